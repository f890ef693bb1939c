//! Samples as a terminal table that is redrawn in place, or as plain lines where there is no terminal.

use super::Sample;
use std::fmt::Write;

/// Lines of the live view.
const HEIGHT: usize = 9;
/// Width of the bars.
const BAR: usize = 40;

/// The live view of one sample; `first` says that nothing was drawn before.
#[must_use]
pub fn live(sample: &Sample, peak: &Sample, first: bool) -> String {
    let mut out = String::new();
    if !first {
        let _ = write!(out, "\x1b[{HEIGHT}A");
    }
    let bar = |n: i64, most: i64| {
        let full = if most > 0 { (n.max(0) as usize * BAR / most as usize).min(BAR) } else { 0 };
        format!("{}{}", "█".repeat(full), "·".repeat(BAR - full))
    };
    let lines = [
        format!("{:>6.1} s   {}", sample.at, sample.act),
        format!(
            "backlog    {} {:>5}   in flight {}",
            bar(sample.backlog.unwrap_or(0), peak.backlog.unwrap_or(0)),
            count(sample.backlog),
            count(sample.in_flight)
        ),
        format!("replicas   {} {:>5}   desired {}", bar(sample.replicas, peak.replicas), sample.replicas, sample.desired),
        format!("ready      {} {:>5}", bar(sample.ready, peak.replicas), sample.ready),
        format!(
            "parked     {} {:>5}   ending {} (held until their task is done)",
            bar(sample.parked, peak.replicas),
            sample.parked,
            sample.terminating
        ),
        format!("rate       in {:>6}/s   out {:>6}/s", or_unknown(&sample.rate_in), or_unknown(&sample.rate_out)),
        format!("tasks      {} done   OOM kills {}", sample.done, sample.oom_kills),
        format!("memory     {} to {} MiB per worker", sample.memory_mib.0, sample.memory_mib.1),
        format!("decision   {}", clip(&sample.reason, 110)),
    ];
    for line in lines {
        let _ = writeln!(out, "\x1b[2K{line}");
    }
    out
}

/// One line, for logs.
#[must_use]
pub fn line(sample: &Sample) -> String {
    format!(
        "{:>6.1} s  backlog {:>4}  in-flight {:>3}  in {:>5}/s  out {:>5}/s  replicas {:>2}  ready {:>2}  parked {:>2}  ending {:>2}  done {:>4}  {:>3} MiB  {}",
        sample.at,
        count(sample.backlog),
        count(sample.in_flight),
        or_unknown(&sample.rate_in),
        or_unknown(&sample.rate_out),
        sample.replicas,
        sample.ready,
        sample.parked,
        sample.terminating,
        sample.done,
        sample.memory_mib.1,
        clip(&sample.reason, 120)
    )
}

fn count(n: Option<i64>) -> String {
    n.map_or_else(|| "?".to_owned(), |n| n.to_string())
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "?" } else { text }
}

fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_a_question_mark_and_never_a_number() {
        let sample = Sample { backlog: Some(3), ..Sample::default() };
        let (live, line) = (live(&sample, &sample, true), line(&sample));
        assert!(live.contains("in flight ?") && line.contains("in-flight   ?"), "{live}{line}");
        assert!(line.contains("backlog    3") && line.contains("in     ?/s"), "{line}");
    }
}
