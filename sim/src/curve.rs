//! Comes in: what the bursts came to. Goes out: waits against pod-seconds as one SVG file, the law as a line over the user's choices and KEDA as points, and in
//! words where the default is not ahead of a rival on both. Leaves to others: where it is written.

use std::fmt::Write;

use crate::bursts::{BurstResult, Came, Scaler};

/// Panels, by case and mean start latency: seconds.
const PANELS: [(&str, f64); 6] = [("three", 36.0), ("ten", 36.0), ("slow", 36.0), ("hourly", 36.0), ("trickle", 36.0), ("few", 36.0)];
const COLUMNS: usize = 3;
/// A panel, and its margins, in user units.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 40.0;
/// Room for the title and the key.
const HEAD: f64 = 44.0;
/// Mid-grey text and colours that people with colour blindness tell apart, none of them near white or black: readable on a light and on a dark page.
const GREY: &str = "#7d7d7d";
const LAW: &str = "#2f8fd0";
const KEDA: &str = "#d9661f";
const UNACKED: &str = "#cc79a7";
/// Gridlines per axis.
const TICKS: u32 = 4;

fn colour(scaler: Scaler) -> &'static str {
    match scaler {
        Scaler::Keda => KEDA,
        Scaler::KedaUnacked => UNACKED,
        _ => LAW,
    }
}

/// The law by the user's choices, and both KEDA.
fn shown(result: &BurstResult) -> impl Iterator<Item = (Scaler, Came)> + '_ {
    Scaler::ALL.into_iter().zip(result.came).filter(|(scaler, _)| !matches!(scaler, Scaler::Fresh | Scaler::AtOnce))
}

/// Names a case as the tables do.
fn case(result: &BurstResult) -> String {
    let nodes = if result.start_at_full_speed.is_finite() { ", few nodes" } else { "" };
    format!("{}, {:.0} s{nodes}", result.name, result.start_s)
}

/// By how many percent more; 0 for nothing over nothing.
fn more(one: f64, other: f64) -> f64 {
    100.0 * (one - other) / other.abs().max(1e-9)
}

/// A round number that is no smaller than `value`, as the end of an axis.
fn end(value: f64) -> f64 {
    let unit = 10f64.powf(value.max(1.0).log10().floor());
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0].iter().map(|times| times * unit).find(|end| *end >= value).unwrap_or(10.0 * unit)
}

/// Draws the panels. Axes begin at 0; lower and further left is better on both.
#[must_use]
pub fn svg(results: &[BurstResult], seed: u64) -> String {
    let rows = PANELS.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEAD + HEIGHT * rows as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"{GREY}\">\n\
         <title>Bursts that end in silence: 99th percentile of the wait against pod-seconds</title>\n\
         <text x=\"8\" y=\"16\" font-size=\"14\">99th percentile of the wait, s, against pod-seconds; a pod starts in 36 s; seed {seed}</text>\n"
    );
    let mut x = 8.0;
    for (name, colour, room) in [
        ("QScaler: latency, balanced (ring), cost", LAW, 240.0),
        ("KEDA, waiting messages", KEDA, 160.0),
        ("KEDA, unacknowledged ones too", UNACKED, 0.0),
    ] {
        // Writing to a String cannot fail.
        let _ =
            writeln!(out, "<circle cx=\"{:.0}\" cy=\"32\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"36\">{name}</text>", x + 4.0, x + 12.0);
        x += room;
    }
    for (at, (name, start_s)) in PANELS.iter().enumerate() {
        let found =
            results.iter().find(|result| result.name == *name && (result.start_s - start_s).abs() < 1e-9 && result.start_at_full_speed.is_infinite());
        if let Some(result) = found {
            let (column, row) = (at % COLUMNS, at / COLUMNS);
            let _ = writeln!(out, "<g transform=\"translate({:.0},{:.0})\">", WIDTH * column as f64, HEAD + HEIGHT * row as f64);
            panel(&mut out, result);
            out.push_str("</g>\n");
        }
    }
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, result: &BurstResult) {
    let points: Vec<(Scaler, Came)> = shown(result).collect();
    let most = |value: fn(&Came) -> f64| end(points.iter().map(|(_, came)| value(came)).filter(|value| value.is_finite()).fold(0.0, f64::max));
    let (pods, wait) = (most(|came| came.pod_seconds), most(|came| came.p99_s));
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * value / pods;
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / wait;
    let (default, keda) = (result.came[0], points.iter().find(|(scaler, _)| *scaler == Scaler::Keda).map(|(_, came)| *came).unwrap_or_default());
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"20\" font-size=\"13\">{}</text><text x=\"{LEFT}\" y=\"36\">balanced over KEDA: pods {:+.0} %, p99 {:+.0} %</text>",
        case(result),
        more(default.pod_seconds, keda.pod_seconds),
        more(default.p99_s, keda.p99_s)
    );
    for tick in 0..=TICKS {
        let share = f64::from(tick) / f64::from(TICKS);
        let (at_x, at_y) = (x(pods * share), y(wait * share));
        let _ = writeln!(
            out,
            "<path d=\"M{at_x:.1} {TOP}V{:.1}M{LEFT} {at_y:.1}H{:.1}\" stroke=\"{GREY}\" stroke-opacity=\".3\"/>\
             <text x=\"{at_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0}</text><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>",
            HEIGHT - BOTTOM,
            WIDTH - RIGHT,
            HEIGHT - BOTTOM + 16.0,
            pods * share,
            LEFT - 6.0,
            at_y + 4.0,
            wait * share
        );
    }
    // The line goes from short waits to few pods.
    let order = ["latency", "balanced", "cost"].iter().filter_map(|name| points.iter().find(|(scaler, _)| scaler.name() == *name));
    let line: Vec<String> = order.map(|(_, came)| format!("{:.1},{:.1}", x(came.pod_seconds), y(came.p99_s))).collect();
    let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{LAW}\" stroke-width=\"2\"/>", line.join(" "));
    for (scaler, came) in &points {
        let (at_x, at_y, colour) = (x(came.pod_seconds), y(came.p99_s), colour(*scaler));
        let _ = writeln!(out, "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"4\" fill=\"{colour}\"><title>{}</title></circle>", scaler.name());
        if *scaler == Scaler::ALL[0] {
            let _ = writeln!(out, "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"8\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>");
        }
    }
}

/// In which cases the default is not ahead of a rival on both waits and pods, and by how much not.
#[must_use]
pub fn behind(results: &[BurstResult]) -> String {
    let mut out = String::from("where the default is not ahead of a rival in waits (p50 and p99) and pod-seconds:\n");
    let mut ahead = 0;
    for result in results {
        for (scaler, rival) in shown(result).filter(|(scaler, _)| matches!(scaler, Scaler::Keda | Scaler::KedaUnacked)) {
            let default = result.came[0];
            let named =
                [("pod-seconds", default.pod_seconds, rival.pod_seconds), ("p50", default.p50_s, rival.p50_s), ("p99", default.p99_s, rival.p99_s)];
            let worse: Vec<String> =
                named.iter().filter(|(_, one, other)| one > other).map(|(name, one, other)| format!("{name} {:+.0} %", more(*one, *other))).collect();
            ahead += usize::from(worse.is_empty());
            if !worse.is_empty() {
                let _ = writeln!(out, "{} over {}: {}", case(result), scaler.name(), worse.join(", "));
            }
        }
    }
    let _ = writeln!(out, "ahead on all three: {ahead} of {} comparisons", 2 * results.len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &'static str) -> BurstResult {
        let came = |p99_s, pod_seconds| Came { p50_s: 1.0, p99_s, pod_seconds, ..Came::default() };
        let all = [
            came(58.0, 4600.0),
            came(50.0, 9000.0),
            came(62.0, 4100.0),
            came(61.0, 4600.0),
            came(59.0, 4600.0),
            came(77.0, 4200.0),
            came(69.0, 4700.0),
        ];
        BurstResult { name, start_s: 36.0, start_at_full_speed: f64::INFINITY, came: all }
    }

    #[test]
    fn the_law_is_a_line_and_the_rivals_are_points() {
        let text = svg(&PANELS.map(|(name, _)| result(name)), 7);
        assert_eq!(text.matches("<polyline").count(), 6);
        assert_eq!(text.matches("<circle").count(), 3 + 6 * (5 + 1), "the key; three choices, a ring, two rivals");
        assert!(text.ends_with("</svg>\n") && !text.contains("NaN") && text.len() < 20_000, "{}", text.len());
        assert!(text.contains("pods +10 %, p99 -25 %"), "{text}");
    }

    #[test]
    fn where_the_default_is_behind_is_said_with_its_measure() {
        let text = behind(&[result("three")]);
        assert!(text.contains("three, 36 s over KEDA: pod-seconds +10 %\n") && text.contains("ahead on all three: 1 of 2"), "{text}");
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([0.0, 59.0, 60.0, 61.0, 4600.0, 50_602.0].map(end), [1.0, 60.0, 60.0, 80.0, 5000.0, 60_000.0]);
    }
}
