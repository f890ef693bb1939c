//! Samples as one self-contained HTML page with plots: no script, no outside file.

use super::{Sample, Summary};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 46.0;
const BOTTOM: f64 = 22.0;

/// One line of a plot.
struct Line<'a> {
    name: &'a str,
    color: &'a str,
    /// NaN where it is not known: a gap.
    values: Vec<f64>,
}

/// The page.
#[must_use]
pub fn html(summary: &Summary, samples: &[Sample]) -> String {
    let pick = |f: fn(&Sample) -> f64| samples.iter().map(f).collect::<Vec<f64>>();
    let plots = [
        plot(
            "Messages",
            samples,
            &[
                Line { name: "backlog", color: "#c0392b", values: pick(|s| s.backlog.map_or(f64::NAN, |n| n as f64)) },
                Line { name: "in flight", color: "#e59866", values: pick(|s| s.in_flight.map_or(f64::NAN, |n| n as f64)) },
            ],
        ),
        plot(
            "Pods",
            samples,
            &[
                Line { name: "replicas", color: "#1f618d", values: pick(|s| s.replicas as f64) },
                Line { name: "ready", color: "#27ae60", values: pick(|s| s.ready as f64) },
                Line { name: "parked", color: "#8e44ad", values: pick(|s| s.parked as f64) },
                Line { name: "ending", color: "#7f8c8d", values: pick(|s| s.terminating as f64) },
            ],
        ),
        plot(
            "Memory of a worker, MiB",
            samples,
            &[
                Line { name: "highest", color: "#b9770e", values: pick(|s| s.memory_mib.1 as f64) },
                Line { name: "lowest", color: "#f0b27a", values: pick(|s| s.memory_mib.0 as f64) },
            ],
        ),
    ];
    let mut rows = String::new();
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(summary) {
        for (key, value) in fields {
            let text = match &value {
                serde_json::Value::Number(n) if n.is_f64() => format!("{:.2}", n.as_f64().unwrap_or(0.0)),
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let _ = write!(rows, "<tr><td>{}</td><td>{}</td></tr>", escape(&key.replace('_', " ")), escape(&text));
        }
    }
    let mut decisions = String::new();
    let mut last = "";
    for sample in samples {
        if sample.reason != last && !sample.reason.is_empty() {
            last = &sample.reason;
            let _ = write!(decisions, "<tr><td>{:.1} s</td><td>{}</td><td>{}</td></tr>", sample.at, sample.replicas, escape(&sample.reason));
        }
    }
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>QScaler demo: {broker}</title><style>\
         body{{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:900px;color:#222}}h1{{font-size:1.5rem}}h2{{font-size:1.1rem;margin:1.4rem 0 .3rem}}\
         table{{border-collapse:collapse}}td{{padding:.15rem .8rem .15rem 0;vertical-align:top;border-bottom:1px solid #eee}}svg{{width:100%;height:auto}}text{{font:11px system-ui,sans-serif;fill:#555}}\
         .ok{{color:#1e8449;font-weight:600}}.bad{{color:#c0392b;font-weight:600}}</style>\
         <h1>QScaler demo on {broker}</h1><p class=\"{class}\">{done} of {sent} tasks done; {cut} cut, {doubled} done twice, {lost} lost.</p>{plots}\
         <h2>Summary</h2><table>{rows}</table><h2>Decisions</h2><table><tr><td><b>at</b></td><td><b>replicas</b></td><td><b>reason</b></td></tr>{decisions}</table></html>",
        broker = escape(&summary.broker),
        class = if summary.cut + summary.doubled + summary.lost == 0 { "ok" } else { "bad" },
        done = summary.done,
        sent = summary.sent,
        cut = summary.cut,
        doubled = summary.doubled,
        lost = summary.lost,
        plots = plots.concat(),
    )
}

fn plot(title: &str, samples: &[Sample], lines: &[Line<'_>]) -> String {
    let end = samples.last().map_or(1.0, |s| s.at).max(1.0);
    let top = lines.iter().flat_map(|l| l.values.iter().copied()).fold(1.0_f64, f64::max) * 1.08;
    let x = |at: f64| LEFT + (WIDTH - LEFT - 8.0) * (at.max(0.0) / end);
    let y = |value: f64| (HEIGHT - BOTTOM) * (1.0 - value / top) + 4.0;
    let mut svg = format!("<h2>{}</h2><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">", escape(title), HEIGHT + 16.0);
    for i in 0..=4 {
        let value = top * f64::from(i) / 4.0;
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#eee\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
            WIDTH - 8.0,
            LEFT - 6.0,
            y(value) + 4.0,
            y = y(value)
        );
    }
    let step = (end / 8.0 / 10.0).ceil() * 10.0;
    let mut at = 0.0;
    while at <= end {
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{at:.0} s</text>", x(at), HEIGHT);
        at += step;
    }
    for line in lines {
        let mut path = String::new();
        let (mut before, mut gap) = (None, false);
        for (sample, value) in samples.iter().zip(&line.values) {
            // Steps: a count holds until it changes.
            if let Some(old) = before {
                let _ = write!(path, "L{:.1},{:.1}", x(sample.at), y(old));
            }
            before = if value.is_nan() { None } else { Some(*value) };
            if let Some(new) = before {
                let _ = write!(path, "{}{:.1},{:.1}", if path.is_empty() || gap { 'M' } else { 'L' }, x(sample.at), y(new));
            }
            gap = before.is_none();
        }
        let _ = write!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\"/>", line.color);
    }
    for (i, line) in lines.iter().enumerate() {
        let at = LEFT + 10.0 + 110.0 * i as f64;
        let _ = write!(
            svg,
            "<rect x=\"{at:.0}\" y=\"{:.0}\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            HEIGHT + 5.0,
            line.color,
            at + 14.0,
            HEIGHT + 14.0,
            escape(line.name)
        );
    }
    svg.push_str("</svg>");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_shows() {
        let samples = [Sample { reason: "a < b".into(), backlog: Some(3), ..Sample::default() }, Sample { at: 5.0, ..Sample::default() }];
        let page = html(&Summary { broker: "redis".into(), ..Summary::default() }, &samples);
        assert!(page.contains("a &lt; b") && page.contains("<svg"));
        assert!(!page.contains("NaN"), "what is not known is a gap");
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
    }
}
