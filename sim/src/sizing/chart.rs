//! The slack-against-OOM curve as one SVG file. In: points. Out: text. Left to others: where it is written.

use super::bench::SizingScore;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 180.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
/// Colours that people with colour blindness tell apart (Okabe and Ito), in the order of the curves.
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#e69f00", "#009e73", "#555555"];
/// Kills per 1000 below this are drawn at this: the axis is logarithmic.
const LEAST: f64 = 0.01;

/// Draws curves (name, points), and `marks`: the policies as they are, in the same order.
#[must_use]
pub fn svg(title: &str, curves: &[(&str, Vec<SizingScore>)], marks: &[SizingScore]) -> String {
    let all: Vec<&SizingScore> = curves.iter().flat_map(|c| &c.1).chain(marks).collect();
    let slack_max = (all.iter().map(|s| s.slack_pct).fold(10.0, f64::max) / 10.0).ceil() * 10.0;
    let kills_max = 10f64.powf(all.iter().map(|s| s.ooms_per_1000).fold(1.0, f64::max).log10().ceil());
    let x = |s: f64| LEFT + (WIDTH - LEFT - RIGHT) * s / slack_max;
    let y = |k: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (k.max(LEAST) / LEAST).log10() / (kills_max / LEAST).log10());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"25\" font-size=\"15\">{title}</text>\n"
    );
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = out.write_fmt(text);
        out.push('\n');
    };
    for i in 0..=(slack_max / 10.0) as u32 {
        let at = f64::from(i) * 10.0;
        line(format_args!("<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{1:.1}\" stroke=\"#eee\"/>", x(at), HEIGHT - BOTTOM));
        line(format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at} %</text>", x(at), HEIGHT - BOTTOM + 18.0));
    }
    let mut decade = LEAST;
    while decade <= kills_max * 1.001 {
        line(format_args!("<line x1=\"{LEFT}\" x2=\"{1:.1}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#eee\"/>", y(decade), WIDTH - RIGHT));
        line(format_args!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{decade}</text>", LEFT - 8.0, y(decade) + 4.0));
        decade *= 10.0;
    }
    line(format_args!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">slack: reserved memory that no successful task needed</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 18.0
    ));
    line(format_args!(
        "<text transform=\"translate(18,{:.1}) rotate(-90)\" text-anchor=\"middle\">OOM kills per 1000 tasks (log)</text>",
        (TOP + HEIGHT - BOTTOM) / 2.0
    ));
    for (i, ((name, points), colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let path: Vec<String> = points.iter().map(|s| format!("{:.1},{:.1}", x(s.slack_pct), y(s.ooms_per_1000))).collect();
        line(format_args!("<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join(" ")));
        for s in points {
            line(format_args!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>", x(s.slack_pct), y(s.ooms_per_1000)));
        }
        if let Some(s) = marks.get(i) {
            line(format_args!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"7\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\"/>",
                x(s.slack_pct),
                y(s.ooms_per_1000)
            ));
        }
        let at = TOP + 10.0 + 20.0 * i as f64;
        line(format_args!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>", WIDTH - RIGHT + 20.0, at - 10.0));
        line(format_args!("<text x=\"{:.1}\" y=\"{at:.1}\">{name}</text>", WIDTH - RIGHT + 38.0));
    }
    line(format_args!(
        "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\">ring: as configured</text>",
        WIDTH - RIGHT + 20.0,
        TOP + 20.0 * curves.len() as f64 + 12.0
    ));
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn_for_each_policy() {
        let points = vec![
            SizingScore { ooms_per_1000: 3.0, slack_pct: 40.0, ..SizingScore::default() },
            SizingScore { slack_pct: 60.0, ..SizingScore::default() },
        ];
        let text = svg("title", &[("one", points.clone()), ("two", points.clone())], &points);
        assert_eq!(text.matches("<polyline").count(), 2);
        assert!(text.ends_with("</svg>\n") && !text.contains("NaN"));
    }
}
