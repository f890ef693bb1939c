//! Who works. In: the processes of one pod's worker container. Out: a [`HoldPlan`]. Left to others: what is done by it (`holder`).

use super::{Descriptors, HoldPlan, Process, ProcessId, Untold, Worker};
use crate::framework::Signal;
use std::collections::{BTreeMap, BTreeSet};

/// Shells, by the name in `argv[0]`, which a script's shebang leaves as the interpreter's. A shell never holds a task; it may have a handler.
const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "fish"];
/// Programs that start others and pass over to their children where nothing better than a handler tells who works.
const LAUNCHERS: &[&str] = &[
    "tini",
    "dumb-init",
    "docker-init",
    "catatonit",
    "gosu",
    "su-exec",
    "su",
    "sudo",
    "setpriv",
    "env",
    "timeout",
    "nohup",
    "xargs",
    "supervisord",
    "pm2",
    "pm2-runtime",
    "honcho",
    "foreman",
    "goreman",
    "hivemind",
    "overmind",
    "circusd",
    "s6-supervise",
    "s6-svscan",
    "runsv",
    "runsvdir",
    "monit",
    "god",
    "forever",
    "nodemon",
    "watchmedo",
    "npm",
    "npx",
    "yarn",
    "pnpm",
    "poetry",
    "pipenv",
    "uv",
    "bundle",
    "multirun",
];
/// Programs beside a worker that never take a task.
const HELPERS: &[&str] =
    &["tail", "tee", "cat", "sleep", "logger", "rotatelogs", "cronolog", "multilog", "svlogd", "awk", "sed", "grep", "inotifywait", "cron", "crond"];
/// Arguments in which a program's own name may stand: `python -m flask rq worker`.
const NAMED_ARGUMENTS_MAX: usize = 5;

/// Whether a process whose `/proc/PID/cgroup` reads `theirs` belongs to the container whose top process's reads `top`: in each hierarchy the same
/// group or one below it (version 1 has one line per hierarchy, version 2 one in all). A container that has made groups of its own is whole then.
#[must_use]
pub fn in_same_container(top: &str, theirs: &str) -> bool {
    let groups = |text: &str| -> BTreeMap<String, String> {
        let group = |line: &str| line.split_once(':')?.1.rsplit_once(':').map(|(controllers, path)| (controllers.to_owned(), path.to_owned()));
        text.lines().filter_map(group).collect()
    };
    if top == theirs {
        return true;
    }
    let (top, theirs) = (groups(top), groups(theirs));
    !top.is_empty()
        && top.iter().all(|(controllers, path)| {
            let below = |theirs: &String| path != "/" && theirs.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'));
            theirs.get(controllers).is_some_and(|theirs| theirs == path || below(theirs))
        })
}

/// The container's processes as a tree.
struct Tree<'a> {
    all: BTreeMap<i32, &'a Process>,
    framework: &'a str,
    /// With what its program's name begins.
    program: &'a str,
    signals: &'a [Signal],
    before: Before<'a>,
}

/// What is known of this container from an earlier moment of its hold.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// Workers have been told already.
    pub told: bool,
    /// These stood above a worker: where nothing but a handler says so, they are none.
    pub above: &'a BTreeSet<ProcessId>,
}

impl Before<'static> {
    /// Nothing.
    pub const NOTHING: Self = Self { told: false, above: &BTreeSet::new() };
}

impl<'a> Tree<'a> {
    fn get(&self, pid: i32) -> Option<&'a Process> {
        self.all.get(&pid).copied()
    }

    /// From the parent upwards, within the container.
    fn ancestors(&self, of: &Process) -> impl Iterator<Item = &'a Process> {
        let mut at = of.parent;
        let mut seen = BTreeSet::new();
        std::iter::from_fn(move || {
            let next = self.get(at).filter(|_| seen.insert(at))?;
            at = next.parent;
            Some(next)
        })
    }

    fn is_below(&self, process: &Process, above: i32) -> bool {
        self.ancestors(process).any(|ancestor| ancestor.id.pid == above)
    }

    fn below(&self, pid: i32) -> impl Iterator<Item = &'a Process> {
        self.all.values().copied().filter(move |process| self.is_below(process, pid))
    }

    fn hears(&self, process: &Process) -> bool {
        self.signals.first().is_some_and(|signal| process.hears(process.meant(*signal, self.framework)))
    }

    /// Connections that it has opened itself: the topmost that holds one has.
    fn works_by_connection(&self, process: &Process) -> bool {
        let Some(own) = process.descriptors.as_ref().map(|d| &d.broker) else { return false };
        let inherited = |inode: &u64| self.ancestors(process).any(|a| a.descriptors.as_ref().is_some_and(|d| d.broker.contains(inode)));
        own.iter().any(|inode| !inherited(inode))
    }

    fn works_by_name(&self, process: &Process) -> bool {
        !is_shell(process) && names(process).any(|name| words(name).any(|word| word.starts_with(self.program)))
    }

    /// The processes that work, and whether that is known by more than a handler.
    fn workers(&self) -> Vec<&'a Process> {
        let all = || self.all.values().copied();
        let connected: Vec<_> = all().filter(|p| self.works_by_connection(p)).collect();
        // A program that has started one of the same name is its launcher: `uv run celery`.
        let launches = |p: &Process| {
            let by_name = |q: &Process| self.works_by_name(q) && !same_program(p, q);
            self.below(p.id.pid).any(|q| by_name(q) || connected.iter().any(|c| c.id == q.id && !same_program(p, q)))
        };
        let named: Vec<_> = all().filter(|p| self.works_by_name(p) && !launches(p)).collect();
        if connected.is_empty() && named.is_empty() {
            return self.workers_by_handler();
        }
        let has_named = connected.iter().any(|p| named.iter().any(|n| n.id == p.id));
        // Beside the framework's own program a process that only reads the same broker (an exporter, a cache) and would die of a signal is no worker.
        let works = |p: &&Process| !has_named || self.hears(p) || named.iter().any(|n| n.id == p.id);
        let mut chosen: Vec<_> = connected.iter().copied().filter(works).collect();
        chosen.extend(named.into_iter().filter(|n| connected.iter().all(|c| c.id != n.id)));
        chosen
    }

    /// Where neither connection nor name tells. Once others were told, what is left without a handler is no worker.
    fn workers_by_handler(&self) -> Vec<&'a Process> {
        let is_helper = |p: &Process| is_one_of(p, HELPERS);
        let passes_over = |p: &Process| is_shell(p) || is_one_of(p, LAUNCHERS) || is_helper(p);
        let topmost = |is: &dyn Fn(&Process) -> bool| -> Vec<&'a Process> {
            let found: Vec<&'a Process> = self.all.values().copied().filter(|p| is(p)).collect();
            found.iter().copied().filter(|p| !found.iter().any(|q| self.is_below(p, q.id.pid))).collect()
        };
        let hearing = topmost(&|p| !passes_over(p) && self.hears(p) && !self.before.above.contains(&p.id));
        if !hearing.is_empty() || self.before.told {
            return hearing;
        }
        // A script with a trap is told as the kubelet would tell it; then whatever could be a worker, without a handler.
        let tries: [&dyn Fn(&Process) -> bool; 4] = [&|p| !is_helper(p) && self.hears(p), &|p| !passes_over(p), &|p| !is_helper(p), &|_| true];
        tries.into_iter().map(topmost).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The topmost process of the same program that has a handler.
    fn lifted(&self, process: &'a Process) -> &'a Process {
        let mut found = process;
        let mut below = process;
        for ancestor in self.ancestors(process) {
            if !same_program(ancestor, below) {
                break;
            }
            below = ancestor;
            if self.hears(ancestor) {
                found = ancestor;
            }
        }
        found
    }

    fn has_no_connection(&self, process: &Process) -> bool {
        let none = |p: &Process| p.descriptors.as_ref().is_some_and(|d| !d.connected && d.broker.is_empty());
        none(process) && self.below(process.id.pid).all(none)
    }

    fn worker(&self, process: &Process) -> Worker {
        let alone = self.has_no_connection(process);
        let starting = process.is_starting();
        let slow = alone && process.age_ms.is_some_and(|age_ms| age_ms < super::SLOW_START_MS);
        let untold = match (process.permitted, self.hears(process)) {
            (false, _) => Some(Untold::Refused),
            (true, true) => None,
            (true, false) if starting || slow => Some(Untold::Starting),
            (true, false) => Some(Untold::NoHandler),
        };
        Worker {
            id: process.id,
            comm: process.comm.clone(),
            uid: process.uid,
            untold,
            hears_term: process.hears(Signal::Term) && process.meant(Signal::Term, self.framework) == Signal::Term,
            is_shell: is_shell(process),
            harmless: starting && alone,
            launchers: self.launchers(process),
        }
    }

    /// Its parent and the shells above, where they may be stopped for a while: one of them may be the loop that would start all of it again. Not those above
    /// a supervisor, which is told and waited for: should they end first, it would end with its container.
    fn launchers(&self, process: &Process) -> Vec<ProcessId> {
        let supervises = |p: &&Process| p.hears(Signal::Term) && !is_shell(p);
        let starts = |p: &&Process| p.id.pid == process.parent || is_shell(p);
        let below = self.ancestors(process).take_while(|p| !supervises(p));
        below.filter(starts).filter(|p| self.may_be_suspended(p)).map(|p| p.id).collect()
    }

    /// It does not wait for signals as init programs do, is a shell or has no shutdown of its own, and reads nothing that a process of the container writes.
    fn may_be_suspended(&self, process: &Process) -> bool {
        let waits = super::has(process.blocked, Signal::Term);
        let orderly = self.hears(process) || process.hears(Signal::Term);
        let known = match &process.descriptors {
            Some(descriptors) => !self.reads_output(process, descriptors),
            None => is_shell(process),
        };
        process.permitted && !waits && known && (is_shell(process) || !orderly)
    }

    fn reads_output(&self, reader: &Process, descriptors: &Descriptors) -> bool {
        let writes = |p: &&Process| p.descriptors.as_ref().is_none_or(|d| !d.writes.is_disjoint(&descriptors.reads));
        !descriptors.reads.is_empty() && self.below(reader.id.pid).filter(|p| p.id != reader.id).any(|p| writes(&p))
    }
}

/// Makes the plan. `processes` are those of the container ([`in_same_container`]), without zombies; what was executed into it (parent 0 and not `top`) is
/// left out here with all below it. None: `top` is not among them.
#[must_use]
pub fn plan(processes: &[Process], top: i32, framework: &str, signals: &[Signal], before: Before<'_>) -> Option<HoldPlan> {
    let program = crate::framework::framework(framework).map_or(framework, |known| known.program());
    let everyone = Tree { all: processes.iter().map(|p| (p.id.pid, p)).collect(), framework, program, signals, before };
    let top = everyone.get(top)?;
    let executed = |p: &Process| p.parent == 0 && p.id != top.id;
    let all = processes.iter().filter(|p| !executed(p) && !everyone.ancestors(p).any(executed)).map(|p| (p.id.pid, p)).collect();
    let tree = Tree { all, framework, program, signals, before };
    let lifted: BTreeMap<i32, &Process> = tree.workers().into_iter().map(|p| tree.lifted(p)).map(|p| (p.id.pid, p)).collect();
    // A process without a handler that has started a worker that has one is its launcher, whatever it is connected to.
    let launches = |p: &Process| !tree.hears(p) && lifted.values().any(|q| tree.hears(q) && tree.is_below(q, p.id.pid));
    let works: Vec<&Process> = lifted.values().copied().filter(|p| !launches(p)).collect();
    let chosen: Vec<&Process> = works.iter().copied().filter(|p| !works.iter().any(|q| tree.is_below(p, q.id.pid))).collect();
    let is_above = |p: &Process| p.id == top.id || chosen.iter().any(|q| tree.is_below(q, p.id.pid));
    let leads = |p: &Process| p.permitted && p.hears(Signal::Term) && is_above(p) && chosen.iter().all(|q| q.id != p.id);
    let supervisors = tree.all.values().filter(|p| leads(p)).map(|p| p.id).collect();
    let spared = tree.all.values().filter(|p| chosen.iter().any(|q| tree.is_below(p, q.id.pid))).map(|p| p.id).collect();
    Some(HoldPlan {
        top: top.id,
        top_comm: top.comm.clone(),
        workers: chosen.iter().map(|p| tree.worker(p)).collect(),
        spared,
        supervisors,
        signals: signals.to_vec(),
    })
}

/// Whether the lower one was forked by the upper one's program and not executed as another: the same memory image; or, where that is not readable, the same
/// arguments. Python's and Node's own pools execute their interpreter again, for the same program.
fn same_program(upper: &Process, lower: &Process) -> bool {
    if lower.argv.iter().any(|argument| argument.starts_with("--multiprocessing-fork") || argument.contains("multiprocessing.")) {
        return true;
    }
    match (upper.image, lower.image) {
        (Some(upper), Some(lower)) if upper == lower => return true,
        _ => {}
    }
    let known = upper.image.is_some() && lower.image.is_some();
    let same = !upper.argv.is_empty() && upper.argv == lower.argv;
    // Executed again with the same arguments: a cluster's member.
    same && (!known || !is_shell(upper))
}

/// A program's name without folders; of a rewritten title the first word.
fn base(argument: &str) -> &str {
    let first = argument.split_whitespace().next().unwrap_or_default();
    first.rsplit('/').next().unwrap_or(first).trim_start_matches('-')
}

/// The first names that say what runs: the program, its script or module, its command. An argument with a space in it is a shell's text or a title.
fn names(process: &Process) -> impl Iterator<Item = &str> {
    let program = process.argv.first().map_or(process.comm.as_str(), |first| base(first));
    let rest = process.argv.iter().skip(1).take(NAMED_ARGUMENTS_MAX).filter(|a| !a.starts_with('-') && !a.contains(char::is_whitespace));
    std::iter::once(program).chain(rest.map(|argument| base(argument)))
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

fn program(process: &Process) -> &str {
    let mut names = names(process);
    match names.next() {
        Some("busybox") => names.next().unwrap_or("busybox"),
        Some(program) => program,
        None => process.comm.as_str(),
    }
}

fn is_shell(process: &Process) -> bool {
    SHELLS.contains(&program(process))
}

/// Whether it is one of these programs, itself or as an interpreter's script.
fn is_one_of(process: &Process, programs: &[&str]) -> bool {
    let is = |name: &str| programs.contains(&name) || programs.contains(&words(name).next().unwrap_or_default());
    let interpreted = ["python", "ruby", "node", "perl"].iter().any(|interpreter| program(process).starts_with(interpreter));
    is(program(process)) || (interpreted && names(process).nth(1).is_some_and(is))
}
