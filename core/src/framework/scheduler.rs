//! A scheduler inside a worker's pod: it sends tasks by the clock, and is scaled along. In: a command line, or a shell's text. Out: which scheduler it starts, and
//! what that means where replicas come and go. Left to others: whose command lines these are (the sidecar: processes; the controller and the webhook: pod templates).
//!
//! Sources: Celery's `worker -B` ("only for development", docs/userguide/periodic-tasks) and `beat` ("only a single scheduler … at a time"); RQ's `--with-scheduler`, which
//! takes turns by a lock in Redis (rq/scheduler.py).

use serde::{Deserialize, Serialize};

/// Which scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scheduler {
    /// Celery's beat, embedded or beside the worker: as many as replicas, and each of them sends every periodic task.
    CeleryBeat,
    /// RQ's, one at work among all workers: it moves what was enqueued for later.
    Rq,
    /// One that a newer sidecar knows.
    #[serde(other)]
    Other,
}

/// What a scheduler inside means for a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scaled {
    /// With several replicas a periodic task is sent several times.
    Repeats,
    /// With no replicas nothing is sent when its time has come.
    StopsAtZero,
}

impl Scaled {
    /// Reason of the condition.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Repeats => "Repeats",
            Self::StopsAtZero => "StopsAtZero",
        }
    }
}

impl Scheduler {
    /// The scheduler that this command line starts: each argument a word or a shell's text.
    #[must_use]
    pub fn of_command<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let words: Vec<&str> = arguments.into_iter().flat_map(str::split_whitespace).collect();
        words.split_inclusive(|word| word.ends_with([';', '&', '|'])).find_map(of_words)
    }

    /// What of it is other than it was, where replicas are between these bounds; None: nothing.
    #[must_use]
    pub fn scaled(self, min_replicas: u32, max_replicas: u32) -> Option<Scaled> {
        match self {
            Self::CeleryBeat if max_replicas > 1 => Some(Scaled::Repeats),
            Self::CeleryBeat | Self::Rq if min_replicas == 0 => Some(Scaled::StopsAtZero),
            Self::CeleryBeat | Self::Rq | Self::Other => None,
        }
    }

    /// That in words, with the mend. `place`: what starts it, as "container worker".
    #[must_use]
    pub fn words(self, scaled: Scaled, place: &str) -> String {
        let (name, alone) = match self {
            Self::CeleryBeat => {
                ("Celery's beat (-B)", "run `celery beat` as a Deployment of its own, with one replica and without annotations of ours")
            }
            Self::Rq | Self::Other => (
                "RQ's scheduler",
                "run one worker `--with-scheduler` as a Deployment of its own, without annotations of ours, or set min-replicas: \"1\"",
            ),
        };
        match scaled {
            Scaled::Repeats => format!(
                "{place} runs {name} in each replica, so a periodic task is sent as often as there are replicas, and never with none: {alone}"
            ),
            Scaled::StopsAtZero => {
                format!("{place} runs {name}, so with 0 replicas nothing is sent when its time has come, and nothing starts a pod for it: {alone}")
            }
        }
    }
}

/// Options of `celery` before its command that take a value.
const CELERY_VALUES: &[&str] = &["-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir"];

/// Of one simple command.
fn of_words(words: &[&str]) -> Option<Scheduler> {
    let base = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '/' && c != '.');
        bare.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let at = words.iter().position(|word| ["celery", "celeryd", "rq", "rq.cli", "rqworker"].contains(&base(word).as_str()))?;
    let (program, rest) = (base(words[at]), &words[at + 1..]);
    let has = |wanted: &[&str]| rest.iter().any(|word| wanted.contains(&word.trim_matches(['"', '\'', ')', ';', '&', '|'])));
    match program.as_str() {
        // A title that the worker gives itself: `[celeryd: celery@host:MainProcess] -active- (worker -B -A app)`.
        "celeryd" => (rest.contains(&"(worker") && rest.iter().any(|word| is_beat(word))).then_some(Scheduler::CeleryBeat),
        "celery" => {
            let command = celery_command(rest)?;
            let starts = match base(rest[command]).as_str() {
                "beat" => true,
                "worker" | "multi" => rest.iter().any(|word| is_beat(word)),
                _ => false,
            };
            starts.then_some(Scheduler::CeleryBeat)
        }
        "rqworker" => has(&["--with-scheduler"]).then_some(Scheduler::Rq),
        _ => (has(&["worker"]) && has(&["--with-scheduler", "-s"])).then_some(Scheduler::Rq),
    }
}

/// Where the command stands among the words after `celery`.
fn celery_command(words: &[&str]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match *word {
            option if CELERY_VALUES.contains(&option) => at += 2,
            option if option.starts_with('-') => at += 1,
            _ => return Some(at),
        }
    }
    None
}

/// `-B`, `--beat`, or `-B` among short flags (`-EB`).
fn is_beat(word: &str) -> bool {
    let word = word.trim_matches(['"', '\'', '(', ')', ';', '&', '|']);
    let short = word.strip_prefix('-').is_some_and(|flags| flags.trim_start_matches(['E', 'D']).starts_with('B'));
    short || word == "--beat"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_is_seen_in_the_command_lines_that_people_have() {
        let (beat, rq) = (Some(Scheduler::CeleryBeat), Some(Scheduler::Rq));
        for (command, is) in [
            (&["celery", "-A", "app", "worker", "-B", "-l", "info"][..], beat),
            (&["celery", "worker", "-A", "app.worker", "-l", "info", "-Q", "main-queue", "-c", "1", "-B"], beat),
            (&["/venv/bin/python", "-m", "celery", "--app=app", "worker", "--beat"], beat),
            (&["python", "manage.py", "celery", "worker", "-EB"], beat),
            (&["/usr/bin/python3", "/usr/local/bin/celery", "-A", "app", "worker", "-Bl", "info"], beat),
            (&["celery", "-A", "app", "beat", "-l", "info"], beat),
            (&["sh", "-c", "python migrate.py && celery -A app worker --beat --scheduler django"], beat),
            (&["bash", "-c", "celery -A app worker & celery -A app beat; wait"], beat),
            (&["celery multi start w1 -A app -B"], beat),
            (&["[celeryd: celery@host:MainProcess] -active- (worker -B -A app)"], beat),
            (&["[celery beat]"], beat),
            (&["rq", "worker", "--with-scheduler", "high"], rq),
            (&["rq", "worker", "-s", "high"], rq),
            (&["python", "-m", "rq.cli", "worker", "--with-scheduler"], rq),
            (&["python", "manage.py", "rqworker", "default", "--with-scheduler"], rq),
            (&["celery", "-A", "beat", "worker", "-Q", "beat"], None),
            (&["celery", "-A", "app", "worker", "-n", "w1", "-Q", "B"], None),
            (&["celery", "-A", "app", "worker", "-QB"], None),
            (&["celery", "-b", "redis://beat", "--app", "x", "worker"], None),
            (&["celery", "-A", "app", "flower", "-B"], None),
            (&["celery"], None),
            (&["rq", "worker", "high"], None),
            (&["rq", "info", "-s"], None),
            (&["sh", "-c", "celery -A app worker; echo -B"], None),
            (&["python", "-B", "-m", "celery", "-A", "app", "worker"], None),
            (&[], None),
        ] {
            assert_eq!(Scheduler::of_command(command.iter().copied()), is, "{command:?}");
        }
    }

    #[test]
    fn what_it_means_is_said_where_replicas_can_be_several_or_none() {
        let of = |scheduler: Scheduler, min, max| scheduler.scaled(min, max).map(Scaled::name);
        assert_eq!(of(Scheduler::CeleryBeat, 1, 10), Some("Repeats"));
        assert_eq!(of(Scheduler::CeleryBeat, 0, 1), Some("StopsAtZero"));
        assert_eq!(of(Scheduler::CeleryBeat, 1, 1), None);
        assert_eq!(of(Scheduler::Rq, 0, 10), Some("StopsAtZero"));
        assert_eq!(of(Scheduler::Rq, 1, 10), None);
        assert_eq!(of(Scheduler::Other, 0, 10), None);
        assert_eq!(serde_json::from_str::<Scheduler>("\"sundial\"").expect("one of a newer sidecar"), Scheduler::Other);
    }
}
