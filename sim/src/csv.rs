//! Comes in: the user's own trace, one task per line. Goes out: tasks in order of arrival, or the first line that isn't one and what would be.
//! Leaves to others: opening files.

use std::io::BufRead;

use crate::workload::Task;

/// Most tasks of one trace: beyond it a run takes minutes and the page gets too large to open.
pub const TASKS_MAX: usize = 5_000_000;
/// Longest time a trace may span, seconds: a year.
pub const SPAN_MAX_S: f64 = 31_536_000.0;

/// Why a trace was refused.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// A line is not `arrival,duration`.
    #[error("line {line}: {text:?}: {why}; valid is `arrival_s,duration_s`, two numbers from 0 on, for example `12.5,0.8`")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What it says.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Reading failed.
    #[error("the trace cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// No task at all.
    #[error("the trace has no tasks; each line is `arrival_s,duration_s`, for example `12.5,0.8`")]
    Empty,
    /// Too many tasks.
    #[error("the trace has more than {TASKS_MAX} tasks; take a part of it")]
    TooLong,
}

/// Parses `arrival_s,duration_s` lines. Empty lines, lines that start with `#`, and one heading are passed over; further columns are ignored; order
/// doesn't matter; the first arrival becomes time 0.
///
/// # Errors
/// The first bad line, by number.
pub fn parse(reader: impl BufRead) -> Result<Vec<Task>, CsvError> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut heading = true;
    for (index, line) in reader.lines().enumerate() {
        let line = line?;
        let text = line.trim().trim_start_matches('\u{feff}');
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let mut fields = text.split([',', ';', '\t']).map(str::trim);
        let (first, second) = (fields.next().unwrap_or_default(), fields.next());
        let bad = |why| CsvError::Line { line: index + 1, text: text.chars().take(80).collect(), why };
        let (arrival, duration) = (first.parse::<f64>(), second.map(str::parse::<f64>));
        if std::mem::take(&mut heading) && arrival.is_err() && !matches!(duration, Some(Ok(_))) && second.is_some() {
            continue;
        }
        let at_s = arrival.map_err(|_| bad("the arrival is not a number"))?;
        let service_s = duration.ok_or_else(|| bad("there is no second column"))?.map_err(|_| bad("the duration is not a number"))?;
        if !at_s.is_finite() || !service_s.is_finite() {
            return Err(bad("the numbers must be finite"));
        }
        if at_s < 0.0 || service_s < 0.0 {
            return Err(bad("the numbers must not be negative"));
        }
        if service_s > SPAN_MAX_S {
            return Err(bad("the duration is above a year; seconds are meant"));
        }
        if tasks.len() == TASKS_MAX {
            return Err(CsvError::TooLong);
        }
        tasks.push(Task { at_s, service_s });
        let start = tasks[0].at_s;
        if (at_s - start).abs() > SPAN_MAX_S {
            return Err(bad("the arrival is more than a year from the first one; seconds are meant"));
        }
    }
    let first_s = tasks.iter().map(|task| task.at_s).reduce(f64::min).ok_or(CsvError::Empty)?;
    tasks.iter_mut().for_each(|task| task.at_s -= first_s);
    tasks.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_traces_are_read() {
        for (text, expected) in [
            ("0,1\n2.5,3\n", vec![(0.0, 1.0), (2.5, 3.0)]),
            ("arrival_s,duration_s\n\n# note\n10,1,more\n", vec![(0.0, 1.0)]),
            ("\u{feff}20;2\n10\t1\n", vec![(0.0, 1.0), (10.0, 2.0)]),
        ] {
            let tasks: Vec<(f64, f64)> = parse(text.as_bytes()).unwrap().iter().map(|task| (task.at_s, task.service_s)).collect();
            assert_eq!(tasks, expected, "{text}");
        }
    }

    #[test]
    fn a_bad_line_is_named_with_what_would_be_valid() {
        for (text, line, why) in [
            ("0,1\n5,slow\n", 2, "the duration is not a number"),
            ("0,1\n\nx,1\n", 3, "the arrival is not a number"),
            ("0,1\n5\n", 2, "there is no second column"),
            ("0,1\n-5,1\n", 2, "must not be negative"),
            ("0,1\n5,NaN\n", 2, "must be finite"),
            ("0,1\n5,1e12\n", 2, "seconds are meant"),
            ("2020-01-01,1\n", 1, "the arrival is not a number"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line}:")) && error.contains(why) && error.contains("arrival_s,duration_s"), "{text}: {error}");
        }
        assert!(matches!(parse("# nothing\n".as_bytes()), Err(CsvError::Empty)));
    }
}
