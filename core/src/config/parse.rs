//! Annotations -> `WorkerConfig`, or every mistake at once. In: the annotations of a workload and of its pod template (the template wins). Out: a checked
//! configuration; or all the mistakes, each with its key, its value and what would be valid; or nothing where the workload does not ask for us.
//! Left to others: whether the named container, secret or broker exists (`webhook`, `controller`).

use crate::config::types::*;
use crate::framework::{BusySource, FRAMEWORKS, Framework, GateKind, KeyNames, Signal, framework};
use crate::names::{self, DOMAIN, annotation};
use crate::units::{Bytes, Millicores, parse_duration_ms};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Longest value, in bytes: 32 queues of 255 bytes fit. A sidecar has all of them in one variable, of which Linux takes 128 KiB: one that is longer does not start, nor
/// then does its pod.
const VALUE_BYTES_MAX: usize = 8 << 10;
/// Less memory is a forgotten unit (`512`, `512m`): container runtimes themselves take 6 to 12 MiB to start anything.
const MEMORY_LEAST: Bytes = Bytes(8 << 20);
/// More CPU is a forgotten unit, too (`500`), and a pod that no node has room for.
const CPU_MOST: Millicores = Millicores(256_000);
/// Letters of a key or a value that an error repeats.
const SHOWN_CHARS_MAX: usize = 100;
/// Unknown annotations that are named one by one: a few are mistakes, thousands are none.
const UNKNOWN_SHOWN: usize = 8;
/// Edits up to which a key is taken for another, mistyped.
const NEAR: usize = 2;
/// What pages and editors leave around copied text, and Rust does not count as white space.
const INVISIBLE: [char; 5] = ['\u{feff}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}'];
const NO_SECRET: &str =
    "names nothing that a Secret may have: its name is of small letters, digits, - and ., and its key of letters, digits, -, _ and .";

/// One mistake in the annotations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigError {
    /// The annotation's key.
    pub key: String,
    /// Its value; None: it is missing.
    pub value: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What would be valid.
    pub valid: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: {:?}: {}; valid: {}", self.key, value, self.problem, self.valid),
            None => write!(f, "{}: {}; valid: {}", self.key, self.problem, self.valid),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What the annotations of one workload say.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// No annotation of ours: not our workload.
    NotOurs,
    /// Every mistake.
    Invalid(Vec<ConfigError>),
    /// A checked configuration.
    Valid(Box<WorkerConfig>),
}

/// Reads the annotations of a workload's metadata and of its pod template; the template's win key by key.
#[must_use]
pub fn parse(workload: &BTreeMap<String, String>, template: &BTreeMap<String, String>) -> Parsed {
    let ours = |map: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        map.iter()
            .filter(|(k, _)| k.starts_with(DOMAIN) && k[DOMAIN.len()..].starts_with('/') && !annotation::SYSTEM.contains(&k.as_str()))
            .map(|(k, v)| (k.clone(), v.trim_matches(|c: char| c.is_whitespace() || INVISIBLE.contains(&c)).to_owned()))
            .collect()
    };
    let mut map = ours(workload);
    map.extend(ours(template));
    if map.is_empty() {
        return Parsed::NotOurs;
    }
    let mut reader = Reader { map: &map, errors: Vec::new() };
    reader.texts();
    if !reader.errors.is_empty() {
        return Parsed::Invalid(reader.errors);
    }
    let config = reader.read();
    match config {
        Some(config) if reader.errors.is_empty() => Parsed::Valid(Box::new(config)),
        _ => Parsed::Invalid(reader.errors),
    }
}

struct Reader<'a> {
    map: &'a BTreeMap<String, String>,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    /// What no value may be, whatever it is for.
    fn texts(&mut self) {
        for (key, value) in self.map.iter().filter(|(key, _)| annotation::ALL.contains(&key.as_str())) {
            if value.len() > VALUE_BYTES_MAX {
                self.fail(key, &format!("is longer than {VALUE_BYTES_MAX} bytes"), "a shorter value");
            } else if value.contains(char::is_control) {
                self.fail(key, "has a line break, a tab or another control character in it", "the same on one line");
            }
        }
    }

    fn unknown(&mut self) {
        let unknown = || self.map.keys().filter(|key| !annotation::ALL.contains(&key.as_str()));
        let count = unknown().count();
        for key in unknown().take(UNKNOWN_SHOWN) {
            let valid = match nearest(key) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("one of {}", annotation::ALL.join(", ")),
            };
            self.fail(key, "unknown annotation", &valid);
        }
        if let Some(key) = unknown().nth(UNKNOWN_SHOWN) {
            let problem = format!("unknown annotation, and {} more like it", count - UNKNOWN_SHOWN - 1);
            self.fail(key, &problem, "as above");
        }
    }

    fn read(&mut self) -> Option<WorkerConfig> {
        self.unknown();
        let queues = self.queues();
        let broker = self.broker_ref(annotation::BROKER, true);
        let control_broker = self.broker_ref(annotation::CONTROL_BROKER, false);
        let broker_tls = self.broker_tls();
        let management = self.management();
        let worker = self.get(annotation::WORKER).unwrap_or("custom").to_owned();
        let row = framework(&worker);
        if row.is_none() {
            let names: Vec<_> = FRAMEWORKS.iter().map(|f| f.name).collect();
            self.fail(annotation::WORKER, "unknown framework", &format!("one of {}", names.join(", ")));
        }
        let key_names = self.key_names(row);
        let container = self.get(annotation::CONTAINER).map(str::to_owned);
        if container.as_deref() == Some("") {
            self.fail(annotation::CONTAINER, "is empty", "the name of a container of the pod template");
        }
        let min_replicas = self.number(annotation::MIN_REPLICAS, 0, Some(1));
        let max_replicas = self.number(annotation::MAX_REPLICAS, 1, None);
        if let (Some(min), Some(max)) = (min_replicas, max_replicas)
            && min > max
        {
            let min_is_set = self.get(annotation::MIN_REPLICAS).is_some();
            let key = if min_is_set { annotation::MIN_REPLICAS } else { annotation::MAX_REPLICAS };
            self.fail(key, &format!("min-replicas ({min}) is above max-replicas ({max})"), &format!("a min-replicas from 0 to {max}"));
        }
        let max_wait_ms = self.duration(annotation::MAX_WAIT, MAX_WAIT_DEFAULT_MS);
        let optimize_for = self.choice(
            annotation::OPTIMIZE_FOR,
            &[OptimizeFor::Balanced, OptimizeFor::Latency, OptimizeFor::Cost].map(|choice| (choice.name(), choice)),
        );
        let messages_per_worker = match self.get(annotation::MESSAGES_PER_WORKER) {
            None => Some(None),
            Some(_) => self.number(annotation::MESSAGES_PER_WORKER, 1, None).map(Some),
        };
        let concurrency = self.number(annotation::CONCURRENCY, 1, Some(1));
        let max_task_duration_ms = self.duration(annotation::MAX_TASK_DURATION, MAX_TASK_DURATION_DEFAULT_MS);
        let drain_deadline_policy = self.choice(annotation::DRAIN_DEADLINE_POLICY, &[("wait", DeadlinePolicy::Wait), ("cut", DeadlinePolicy::Cut)]);
        let signals = self.signals(row);
        let busy = self.busy(row);
        let vertical = self.choice(annotation::VERTICAL, &[("off", Vertical::Off), ("initial", Vertical::Initial), ("in-place", Vertical::InPlace)]);
        let (min_memory, max_memory) = self.bounds(annotation::MIN_MEMORY, annotation::MAX_MEMORY, Bytes::parse, |bytes| {
            (bytes < MEMORY_LEAST).then(|| (format!("is {} bytes, with which no container starts", bytes.0), "8Mi or more, such as 512Mi or 1.5Gi"))
        });
        let (min_cpu, max_cpu) = self.bounds(annotation::MIN_CPU, annotation::MAX_CPU, Millicores::parse, |cpu| {
            let words =
                || (format!("is {} whole CPUs, which no worker has", cpu.0 / 1000), "up to 256 CPUs, and thousandths with an m: 500m is half of one");
            (cpu > CPU_MOST).then(words)
        });
        let scaling = self.choice(annotation::SCALING, &[("managed", Scaling::Managed), ("protect", Scaling::Protect)]);
        let paused = self.choice(
            annotation::PAUSED,
            &[("false", Paused::No), ("true", Paused::All), ("scale-down", Paused::ScaleDown), ("scale-up", Paused::ScaleUp)],
        );
        let dry_run = self.choice(annotation::DRY_RUN, &[("false", false), ("true", true)]);
        let replace_pre_stop = self.choice(annotation::PRE_STOP, &[("keep", false), ("replace", true)]);
        let keep_pods = self.choice(annotation::REPLACE_PODS, &[("idle", false), ("never", true)]);
        let share_processes = self.choice(annotation::SHARE_PROCESSES, &[("true", true), ("false", false)]);
        let share_processes = share_processes.map(|share| self.get(annotation::SHARE_PROCESSES).map(|_| share));
        if let (Some(row), Some(signals), Some(busy), Some(share)) = (row, &signals, &busy, share_processes)
            && row.gate == GateKind::Freeze
            && signals.is_empty()
        {
            self.freezes(row, busy, share != Some(false));
        }
        Some(WorkerConfig {
            queues: queues?,
            broker: broker?,
            control_broker,
            broker_tls,
            management,
            worker,
            key_names,
            container,
            min_replicas: min_replicas?,
            max_replicas: max_replicas?,
            max_wait_ms: max_wait_ms?,
            optimize_for: optimize_for?,
            messages_per_worker: messages_per_worker?,
            concurrency: concurrency?,
            max_task_duration_ms: max_task_duration_ms?,
            drain_deadline_policy: drain_deadline_policy?,
            signals: signals?,
            busy: busy?,
            vertical: vertical?,
            min_memory,
            max_memory,
            min_cpu,
            max_cpu,
            scaling: scaling?,
            paused: paused?,
            dry_run: dry_run?,
            replace_pre_stop: replace_pre_stop?,
            keep_pods: keep_pods?,
            share_processes: share_processes?,
        })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.map.get(key).map(String::as_str)
    }

    fn fail(&mut self, key: &str, problem: &str, valid: &str) {
        let value = self.map.get(key).map(|value| if may_hold_a_password(key, value) { "(not shown)".to_owned() } else { shown(value) });
        self.errors.push(ConfigError { key: shown(key), value, problem: problem.to_owned(), valid: valid.to_owned() });
    }

    fn queues(&mut self) -> Option<Vec<String>> {
        let valid = format!("1 to {QUEUES_MAX} queue names, comma-separated, each named once");
        let Some(text) = self.get(annotation::QUEUE) else {
            self.fail(annotation::QUEUE, "is required", &valid);
            return None;
        };
        let queues: Vec<String> = text.split(',').map(|q| q.trim().to_owned()).collect();
        let mut sorted = queues.clone();
        sorted.sort();
        sorted.dedup();
        if queues.iter().any(String::is_empty) {
            self.fail(annotation::QUEUE, "has an empty queue name", &valid);
        } else if sorted.len() < queues.len() {
            self.fail(annotation::QUEUE, "names a queue twice", &valid);
        } else if queues.len() > QUEUES_MAX {
            self.fail(annotation::QUEUE, "names too many queues", &valid);
        } else {
            return Some(queues);
        }
        None
    }

    /// Prefix and priorities, each only where the framework has such a thing.
    fn key_names(&mut self, row: Option<&'static Framework>) -> KeyNames {
        let (Some(row), [prefix, steps, separator]) =
            (row, [annotation::KEY_PREFIX, annotation::PRIORITY_STEPS, annotation::PRIORITY_SEPARATOR].map(|key| self.get(key).map(str::to_owned)))
        else {
            return KeyNames::default();
        };
        if prefix.is_some() && row.prefix.is_none() {
            let with: Vec<_> = FRAMEWORKS.iter().filter(|f| f.prefix.is_some()).map(|f| f.name).collect();
            let problem = format!("{} has no prefix for its keys", row.name);
            self.fail(annotation::KEY_PREFIX, &problem, &format!("no such annotation; or worker: one of {}", with.join(", ")));
        }
        for (key, value) in [(annotation::PRIORITY_STEPS, &steps), (annotation::PRIORITY_SEPARATOR, &separator)] {
            if value.is_some() && !row.has_priorities() {
                self.fail(key, &format!("{} has no key for each priority", row.name), "no such annotation; or worker: celery");
            }
        }
        if separator.as_deref() == Some("") {
            self.fail(annotation::PRIORITY_SEPARATOR, "is empty", "what stands between a queue's name and its priority, such as :");
        }
        let priority_steps = steps.and_then(|text| {
            let parsed = priority_steps(&text);
            if parsed.is_none() {
                self.fail(annotation::PRIORITY_STEPS, "is no list of priorities", "numbers from 0 to 255 and ranges of them, such as 0,3,6,9 or 0-9");
            }
            parsed
        });
        KeyNames { prefix, priority_steps, priority_separator: separator }
    }

    fn broker_ref(&mut self, key: &str, required: bool) -> Option<BrokerRef> {
        const VALID: &str = "env:NAME (a variable of the worker's container) or secret:NAME/KEY (a Secret of its namespace)";
        let Some(text) = self.get(key) else {
            if required {
                self.fail(key, "is required", VALID);
            }
            return None;
        };
        let parsed = BrokerRef::parse(text);
        if parsed.is_none() {
            let problem = match () {
                () if text.contains("://") => "a URL does not belong in an annotation",
                () if text.starts_with("secret:") => NO_SECRET,
                () => "is neither env: nor secret:",
            };
            self.fail(key, problem, VALID);
        }
        parsed
    }

    fn broker_tls(&mut self) -> Option<String> {
        let text = self.get(annotation::BROKER_TLS)?;
        let name = text.strip_prefix("secret:").filter(|name| is_secret_name(name)).map(str::to_owned);
        if name.is_none() {
            let valid = format!(
                "secret:NAME, a Secret of the workload's namespace with the keys {}, {}, {} (each may be missing)",
                names::TLS_KEY_CA,
                names::TLS_KEY_CERT,
                names::TLS_KEY_KEY
            );
            self.fail(annotation::BROKER_TLS, "is not secret:NAME", &valid);
        }
        name
    }

    fn management(&mut self) -> Option<ManagementRef> {
        const VALID: &str =
            "http://HOST:PORT or https://HOST:PORT, with /PREFIX where a proxy adds one; or env:NAME or secret:NAME/KEY where such an address is";
        let text = self.get(annotation::MANAGEMENT)?;
        let is_url = ["http://", "https://"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        let parsed = match is_url {
            true if text.contains(['@', '?', ' ']) => None,
            true => Some(ManagementRef::Url(text.to_owned())),
            false => BrokerRef::parse(text).map(ManagementRef::At),
        };
        if parsed.is_none() {
            let problem = match () {
                () if text.contains('@') => "has a user: put the address into a Secret and name it by secret:NAME/KEY",
                () if text.starts_with("secret:") => NO_SECRET,
                () => "is neither an address nor env: nor secret:",
            };
            self.fail(annotation::MANAGEMENT, problem, VALID);
        }
        parsed
    }

    fn number(&mut self, key: &str, min: u32, default: Option<u32>) -> Option<u32> {
        let valid = format!("a whole number from {min} to {REPLICAS_MAX}");
        match self.get(key).map(str::parse::<u32>) {
            None if default.is_some() => default,
            None => {
                self.fail(key, "is required", &valid);
                None
            }
            Some(Ok(n)) if (min..=REPLICAS_MAX).contains(&n) => Some(n),
            Some(_) => {
                self.fail(key, "is not such a number", &valid);
                None
            }
        }
    }

    fn duration(&mut self, key: &str, default_ms: u64) -> Option<u64> {
        match self.get(key).map(parse_duration_ms) {
            None => Some(default_ms),
            Some(Ok(ms)) => Some(ms),
            Some(Err(error)) => {
                self.fail(key, "is not a duration", error.valid);
                None
            }
        }
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let Some(text) = self.get(key) else { return Some(choices[0].1) };
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, v)| *v);
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(n, _)| *n).collect();
            self.fail(key, "is none of its values", &names.join(", "));
        }
        found
    }

    fn signals(&mut self, row: Option<&'static Framework>) -> Option<Vec<Signal>> {
        let Some(text) = self.get(annotation::SIGNAL) else { return Some(row?.signals.to_vec()) };
        if text == "none" {
            return Some(Vec::new());
        }
        let signals: Option<Vec<Signal>> = text.split(',').map(|s| Signal::from_name(s.trim())).collect();
        if signals.is_none() {
            let names: Vec<_> = Signal::ALL.iter().map(|(n, _)| *n).collect();
            self.fail(annotation::SIGNAL, "is not a list of signals", &format!("none, or one or more of {}, comma-separated", names.join(", ")));
        }
        signals
    }

    fn busy(&mut self, row: Option<&'static Framework>) -> Option<BusySource> {
        let Some(text) = self.get(annotation::BUSY) else { return Some(row?.busy.clone()) };
        let parsed = match text {
            "broker" => Some(BusySource::Broker),
            "children" => Some(BusySource::Children),
            "celery-events" => Some(BusySource::CeleryEvents),
            "blocked-pop" => Some(BusySource::BlockedPop),
            "unknown" => Some(BusySource::Unknown),
            _ => match text.split_once(':') {
                Some(("http", rest)) => rest.split_once('/').and_then(|(port, path)| {
                    let port = port.parse::<u16>().ok().filter(|p| *p > 0)?;
                    Some(BusySource::Http { port, path: format!("/{path}") })
                }),
                Some(("file", path)) if path.starts_with('/') => Some(BusySource::File { path: path.to_owned() }),
                _ => None,
            },
        };
        if parsed.is_none() {
            self.fail(
                annotation::BUSY,
                "is no source of busy or idle",
                "broker, children, celery-events, blocked-pop, unknown, http:PORT/PATH or file:/PATH",
            );
        }
        parsed
    }

    /// A worker that dies of every signal is kept whole by the freeze gate alone: without what that needs, each of its pods' ends would cut a task.
    fn freezes(&mut self, row: &'static Framework, busy: &BusySource, share_processes: bool) {
        if *busy != row.busy {
            let problem = format!("does not tell when a worker of {} may be frozen, and on every signal it cuts its task", row.name);
            self.fail(annotation::BUSY, &problem, "no such annotation; or a handler in the worker, and the annotation signal");
        }
        if !share_processes {
            let problem = format!("a worker of {} can then not be frozen, and on every signal it cuts its task", row.name);
            self.fail(annotation::SHARE_PROCESSES, &problem, "true; or a handler in the worker, and worker: custom");
        }
    }

    fn bounds<T: Copy + PartialOrd + fmt::Display>(
        &mut self,
        min_key: &str,
        max_key: &str,
        parse: fn(&str) -> Result<T, crate::units::UnitError>,
        mistaken: fn(T) -> Option<(String, &'static str)>,
    ) -> (Option<T>, Option<T>) {
        let mut one = |key: &str| match self.get(key).map(parse) {
            None => None,
            Some(Ok(value)) => match mistaken(value) {
                None => Some(value),
                Some((problem, valid)) => {
                    self.fail(key, &problem, valid);
                    None
                }
            },
            Some(Err(error)) => {
                self.fail(key, "is not a quantity", error.valid);
                None
            }
        };
        let (min, max) = (one(min_key), one(max_key));
        if let (Some(low), Some(high)) = (min, max)
            && low > high
        {
            self.fail(min_key, &format!("is above {max_key} ({high})"), &format!("at most {high}"));
        }
        (min, max)
    }
}

/// A URL pasted into an annotation may carry a password, and whatever is not understood may be one: it must not travel into events, warnings and logs.
fn may_hold_a_password(key: &str, value: &str) -> bool {
    [annotation::BROKER, annotation::CONTROL_BROKER, annotation::MANAGEMENT].contains(&key) && (value.contains('@') || value.contains("://"))
}

/// As much of a text as an error repeats.
fn shown(text: &str) -> String {
    let end = text.char_indices().nth(SHOWN_CHARS_MAX).map(|(at, _)| at);
    end.map_or_else(|| text.to_owned(), |end| format!("{}…", &text[..end]))
}

/// `0,3,6,9` or `0-9`; in order, each once.
fn priority_steps(text: &str) -> Option<Vec<u8>> {
    let mut steps = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u8>().ok()?, last.trim().parse::<u8>().ok()?);
        if first > last {
            return None;
        }
        steps.extend(first..=last);
    }
    steps.sort_unstable();
    steps.dedup();
    Some(steps)
}

/// The known key within [`NEAR`] edits of this one, if any. Measuring takes the product of both lengths, at each admission of a pod: so it is done without the domain,
/// which all have, and not where the lengths alone differ more.
fn nearest(key: &str) -> Option<&'static str> {
    let name = key.strip_prefix(DOMAIN).unwrap_or(key);
    let length = name.chars().count();
    let all = annotation::ALL.iter().map(|known| (known.strip_prefix(DOMAIN).unwrap_or(known), *known));
    let near = all.filter(|(other, _)| other.len().abs_diff(length) <= NEAR);
    near.map(|(other, known)| (strsim::levenshtein(name, other), known)).min().filter(|(n, _)| *n <= NEAR).map(|(_, known)| known)
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
