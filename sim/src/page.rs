//! Comes in: a [`SimulationReport`]. Goes out: one HTML page with table and curves that loads nothing from anywhere. Leaves to others: where it is written.

use std::fmt::Write;

use crate::simulate::{Row, SimulationReport, span};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
/// Colours that people with colour blindness tell apart (Okabe and Ito), in the order of the rows.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#777777"];
/// Gridlines per axis.
const TICKS: u32 = 4;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{padding:.3em .6em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}tr.first{font-weight:600;background:#eef5fb}small{color:#666}svg{width:100%;height:auto}\
.key{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}label{margin-right:1.2em;white-space:nowrap}";

/// Shows or hides a scaler's curves; the page reads well without it.
const SCRIPT: &str = "document.querySelectorAll('input[data-n]').forEach(b=>b.onchange=()=>\
document.querySelectorAll('.c'+b.dataset.n).forEach(e=>e.style.display=b.checked?'':'none'))";

/// Draws the page.
pub fn html(report: &SimulationReport) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>QScaler simulation</title><style>{STYLE}</style></head><body><h1>What each scaler would have made of this trace</h1>\
         <p>{} tasks within {}, {} each on average. Promise: no message waits longer than {}. A pod starts in {} on average; {} to {} pods. Seed {}.</p>",
        report.tasks,
        span(report.span_s),
        span(report.mean_service_s),
        span(report.max_wait_s),
        span(report.start_s),
        report.min_replicas,
        report.max_replicas,
        report.seed
    );
    table(&mut out, report);
    let _ = write!(out, "<p>{}</p><p>", escape(&report.verdict()));
    for (at, row) in report.rows.iter().enumerate() {
        let checked = if at == 0 || row.scaler.contains("value 1") || row.scaler.contains("hindsight") { " checked" } else { "" };
        let _ = write!(
            out,
            "<label><input type=\"checkbox\" data-n=\"{at}\"{checked}> <span class=\"key\" style=\"background:{}\"></span>{}</label>",
            colour(at),
            escape(&row.scaler)
        );
    }
    out.push_str("</p>");
    tradeoff(&mut out, report);
    let end = report.rows.iter().filter_map(|row| row.points.last()).map(|point| point.at_s).fold(1.0, f64::max);
    chart(&mut out, "Messages waiting", report, end, None, |row| row.points.iter().map(|point| (point.at_s, f64::from(point.backlog))).collect());
    chart(&mut out, "Pods", report, end, None, |row| row.points.iter().map(|point| (point.at_s, f64::from(point.pods))).collect());
    chart(&mut out, "Longest wait by time of arrival, seconds (dashed: the promise)", report, end, Some(report.max_wait_s), |row| row.waits.clone());
    let _ = writeln!(
        out,
        "<p><small>First in, first out; one task per pod; start times vary by a quarter. KEDA sees figures sampled each 5 s, as RabbitMQ gives them, and \
         deletes pods as a ReplicaSet does. QScaler runs the law the controller runs.</small></p><script>{SCRIPT};document.querySelectorAll('input[data-n]').forEach(b=>b.onchange())</script></body></html>"
    );
    out
}

fn table(out: &mut String, report: &SimulationReport) {
    out.push_str("<table><tr><th>scaler<th>late<th>wait p50<th>p95<th>p99<th>pod-hours<th>x ideal<th>cut<th>starts<th>peak<th>cost</tr>");
    for (at, row) in report.rows.iter().enumerate() {
        let wait = |wait: Option<f64>| wait.map_or_else(|| "never".to_owned(), span);
        let _ = write!(
            out,
            "<tr{}><td>{}<br><small>{}</small><td>{:.2} %<td>{}<td>{}<td>{}<td>{:.2}<td>{:.2}<td>{}<td>{}<td>{}<td>{:.2}</tr>",
            if at == 0 { " class=\"first\"" } else { "" },
            escape(&row.scaler),
            escape(&row.settings),
            row.late_share * 100.0,
            wait(row.wait_p50_s),
            wait(row.wait_p95_s),
            wait(row.wait_p99_s),
            row.pod_hours,
            row.pods_over_optimum,
            row.cut,
            row.starts,
            row.peak_pods,
            row.cost
        );
    }
    out.push_str("</table>");
}

/// Waits against pods: the choices of `optimize-for` as a line, the others as points. What is lower and further left is better on both.
fn tradeoff(out: &mut String, report: &SimulationReport) {
    let ours = report.choices.iter().filter_map(|choice| Some((choice.pod_hours, choice.wait_p99_s?, choice.optimize_for.to_owned(), 0)));
    let others = report.rows.iter().enumerate().skip(1).filter_map(|(at, row)| Some((row.pod_hours, row.wait_p99_s?, row.scaler.clone(), at)));
    let points: Vec<(f64, f64, String, usize)> = ours.chain(others).collect();
    let most = |value: fn(&(f64, f64, String, usize)) -> f64| points.iter().map(value).fold(1e-9, f64::max);
    let (pods, wait) = (most(|point| point.0), most(|point| point.1));
    let x = |value: f64| LEFT + (WIDTH - LEFT - 120.0) * value / pods;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value / wait).sqrt());
    let title = "Waits (99th percentile) against pod-hours: QScaler by optimize-for, the others as points";
    let _ = write!(out, "<h2>{title}</h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-size=\"11\" fill=\"#555\" role=\"img\" aria-label=\"{title}\">");
    for tick in 0..=TICKS {
        let share = f64::from(tick) / f64::from(TICKS);
        let (value, hours) = (wait * share * share, pods * share);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#e5e5e5\"/><text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>\
             <text x=\"{5:.1}\" y=\"{6:.1}\" text-anchor=\"middle\">{hours:.2}</text>",
            WIDTH - RIGHT,
            y(value),
            LEFT - 6.0,
            y(value) + 4.0,
            span(value),
            x(hours),
            HEIGHT - 8.0
        );
    }
    let line: Vec<String> = points.iter().filter(|point| point.3 == 0).map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
    let _ = write!(out, "<path d=\"M{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2.5\"/>", line.join(" L"), colour(0));
    for (hours, wait_s, name, at) in &points {
        let _ = write!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(*hours),
            y(*wait_s),
            colour(*at),
            x(*hours) + 7.0,
            y(*wait_s) - 5.0,
            escape(name)
        );
    }
    out.push_str("</svg>");
}

fn chart(out: &mut String, title: &str, report: &SimulationReport, end: f64, line: Option<f64>, curve: impl Fn(&Row) -> Vec<(f64, f64)>) {
    let curves: Vec<Vec<(f64, f64)>> = report.rows.iter().map(curve).collect();
    let highest = curves.iter().flatten().map(|(_, y)| *y).filter(|y| y.is_finite()).chain(line).fold(1.0, f64::max);
    let x = |t: f64| LEFT + (WIDTH - LEFT - RIGHT) * t / end;
    // The square root keeps small values visible beside one scaler's mountain.
    let y = |v: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (v.max(0.0) / highest).sqrt());
    let _ = write!(
        out,
        "<h2>{}</h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-size=\"11\" fill=\"#555\" role=\"img\" aria-label=\"{}\">",
        escape(title),
        escape(title)
    );
    for tick in 0..=TICKS {
        let share = f64::from(tick) / f64::from(TICKS);
        let (value, at) = (highest * share * share, end * share);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#e5e5e5\"/><text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\">{value:.0}</text>",
            WIDTH - RIGHT,
            y(value),
            LEFT - 6.0,
            y(value) + 4.0
        );
        let _ =
            write!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", x(at).clamp(LEFT, WIDTH - 30.0), HEIGHT - 8.0, span(at));
    }
    if let Some(level) = line {
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#c00\" stroke-dasharray=\"5 4\"/>",
            WIDTH - RIGHT,
            y(level)
        );
    }
    for (at, points) in curves.iter().enumerate().rev() {
        let path: Vec<String> = points.iter().filter(|(_, v)| v.is_finite()).map(|(t, v)| format!("{:.1},{:.1}", x(*t), y(*v))).collect();
        let _ = write!(
            out,
            "<polyline class=\"c{at}\" points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"/>",
            path.join(" "),
            colour(at),
            if at == 0 { 2.5 } else { 1.3 }
        );
    }
    out.push_str("</svg>");
}

fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
