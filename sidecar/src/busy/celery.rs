//! Celery: the worker's own heartbeat events, which say how many tasks run and how many it has begun; where there are none, its remote control, asked now
//! and then. In: events of this host's nodes, their answers. Out: samples; the nodes' names for the gate; the gaps where neither comes. Left to
//! others: the wire (`broker::activity`), closing the gate (`gate`), how long a start may take (`start`).
//!
//! While the gate is closed, a heartbeat alone does not prove idle: it may have been under way, and prefetched tasks still follow. The worker
//! is then asked what it runs and what it holds.
//! A node that was heard and is silent now is asked, too; one that does not answer either has a task (a solo pool neither beats nor answers meanwhile).

use crate::busy::nodes::{ASK_PERIOD, Nodes};
use crate::busy::start::Start;
use crate::gaps::Gaps;
use crate::gate::{GateView, Remote};
use crate::input::Input;
use crate::input::MainReceiver;
use crate::input::tell;
use crate::worker::procs::ProcFs;
use qscaler_broker::BrokerError;
use qscaler_broker::activity::CeleryEvents;
use qscaler_broker::activity::kombu::CeleryEvent;
use qscaler_core::message::{Busy, GapReason};
use qscaler_runtime::backoff::Backoff;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How often silence is looked at.
const TICK: Duration = Duration::from_secs(1);
/// A worker that beats does so within a few seconds of its start; then it is asked.
const ASK_AFTER: Duration = Duration::from_secs(6);

/// The source.
pub(super) struct CelerySource {
    pub(super) url: String,
    pub(super) name: String,
    pub(super) host: String,
    pub(super) procs: ProcFs,
    pub(super) main: MainReceiver,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) nodes: watch::Sender<Nodes>,
    pub(super) gate: GateView,
    pub(super) remote: Remote,
    pub(super) gaps: Gaps,
    pub(super) start: Start,
}

/// The subscription, made anew after each failure.
struct Line {
    events: Option<CeleryEvents>,
    backoff: Backoff,
    again: Instant,
    complained: bool,
}

impl Line {
    async fn next(&mut self) -> Result<CeleryEvent, BrokerError> {
        match &mut self.events {
            Some(events) => events.next().await,
            None => std::future::pending().await,
        }
    }

    fn failed(&mut self, error: &BrokerError) {
        self.events = None;
        self.again = Instant::now() + self.backoff.next_delay();
        if !std::mem::replace(&mut self.complained, true) {
            tracing::info!(%error, "no Celery events for now");
        }
    }
}

/// What is known of the worker process that runs now.
struct Watch {
    since: Instant,
    ask_at: Instant,
    /// Something was heard of it.
    heard: bool,
}

impl Watch {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, ask_at: now + ASK_AFTER, heard: false }
    }
}

impl CelerySource {
    /// Samples until the driver is gone.
    pub(super) async fn run(mut self) {
        let mut line = Line { events: None, backoff: Backoff::reconnect(), again: Instant::now(), complained: false };
        let mut main = self.main.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut watch = Watch::new();
        let mut known = Busy::Unknown;
        loop {
            let heard = tokio::select! {
                event = line.next() => match event {
                    Ok(event) => {
                        line.complained = false;
                        self.nodes.send_modify(|nodes| nodes.take(event, Instant::now()));
                        true
                    }
                    Err(error) => {
                        line.failed(&error);
                        false
                    }
                },
                // Another worker process: what the one before said is void.
                changed = main.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.nodes.send_modify(|nodes| nodes.0.clear());
                    watch = Watch::new();
                    true
                }
                _ = tick.tick() => {
                    self.connect(&mut line).await;
                    self.ask(&mut watch).await
                }
            };
            let now = Instant::now();
            let mut activity = self.nodes.borrow().activity(now);
            self.say(&mut watch, activity.busy);
            // A repeated old sample is no new evidence; the beginning of silence is told.
            if !heard && (known == Busy::Unknown || activity.busy != Busy::Unknown) {
                if self.inputs.is_closed() {
                    return;
                }
                continue;
            }
            if self.gate.is_closed() && activity.busy == Busy::Idle {
                activity.busy = self.proved().await;
            } else if !self.gate.is_closed() && self.nodes.borrow().beat(now) {
                self.remote.disconnect();
            }
            known = activity.busy;
            if !tell(&self.inputs, activity).await {
                return;
            }
        }
    }

    async fn connect(&self, line: &mut Line) {
        if line.events.is_some() || line.again > Instant::now() {
            return;
        }
        match CeleryEvents::connect(&self.url, &self.name, &self.host).await {
            Ok(events) => {
                line.events = Some(events);
                line.backoff.reset();
            }
            Err(error) => line.failed(&error),
        }
    }

    /// Asks nodes that do not beat. True: something new is known of them.
    async fn ask(&mut self, watch: &mut Watch) -> bool {
        let now = Instant::now();
        if self.main.borrow().is_none() || watch.ask_at > now || self.nodes.borrow().beat(now) {
            return false;
        }
        watch.ask_at = now + ASK_PERIOD;
        let mut names = self.nodes.borrow().names();
        if names.is_empty() {
            names = self.remote.nodes_on(&self.host).await.unwrap_or_default();
        }
        if names.is_empty() {
            return false;
        }
        let Ok(active) = self.remote.active(&names).await else { return false };
        let now = Instant::now();
        self.nodes.send_modify(|nodes| {
            for name in &names {
                match active.get(name) {
                    Some(active) => nodes.answered(name, *active, now),
                    None => nodes.silent(name, now),
                }
            }
        });
        true
    }

    /// Says in a gap that nothing is heard of the worker, and takes it back.
    fn say(&mut self, watch: &mut Watch, busy: Busy) {
        if busy != Busy::Unknown && !std::mem::replace(&mut watch.heard, true) {
            self.gaps.clear(GapReason::IdleUnknown);
            self.gaps.clear(GapReason::GateCannotClose);
        }
        let worker = self.main.borrow().as_ref().map(|main| (main.pid, main.incarnation));
        let Some((top, worker)) = worker.filter(|_| !watch.heard) else { return };
        if !self.start.is_gap(worker, watch.since) {
            return;
        }
        let flags = self.flags(top);
        let seen = if flags.is_empty() { String::new() } else { format!(" (its command line has {})", flags.join(", ")) };
        let words = format!(
            "Celery's worker is not heard: no node of the name *@{} beats or answers remote control{seen}; start it without a fixed host in -n (NAME@%h), and \
             leave heartbeats or remote control on",
            self.host
        );
        self.gaps.set(GapReason::IdleUnknown, words.clone());
        self.gaps.set(GapReason::GateCannotClose, words);
    }

    /// Flags of the worker's command line that explain why it is not heard.
    fn flags(&self, top: i32) -> Vec<String> {
        let Ok(processes) = self.procs.processes() else { return Vec::new() };
        let lines = crate::worker::find::family(&processes, top).into_iter().filter_map(|process| self.procs.command_line(process.pid));
        lines.map(|words| silencing(&words, &self.host)).find(|flags| !flags.is_empty()).unwrap_or_default()
    }

    /// What the worker itself says that it runs and holds.
    async fn proved(&mut self) -> Busy {
        let nodes = self.nodes.borrow().names();
        match self.remote.is_quiet(&nodes).await {
            Ok(Some(true)) => Busy::Idle,
            Ok(Some(false)) => Busy::Busy,
            Ok(None) => Busy::Unknown,
            Err(error) => {
                tracing::debug!(%error, "the worker cannot be asked");
                Busy::Unknown
            }
        }
    }
}

/// Of a command line, what keeps a worker from being heard under this host's name.
fn silencing(words: &[String], host: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let name = match word.split_once('=') {
            Some(("--hostname", name)) => Some(name),
            _ if word == "-n" || word == "--hostname" => words.get(at + 1).map(String::as_str),
            _ => word.strip_prefix("-n").filter(|name| !name.is_empty()),
        };
        if word == "--without-heartbeat" {
            found.push(word.clone());
        } else if let Some(name) = name.filter(|name| !name.contains('%') && name.rsplit('@').next() != Some(host)) {
            found.push(format!("-n {name}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(node: &str, active: u32, processed: u64) -> CeleryEvent {
        CeleryEvent { node: node.to_owned(), active, processed, period: Duration::from_secs(2), offline: false }
    }

    #[test]
    fn nodes_are_summed_and_one_that_is_silent_makes_the_pod_unknown() {
        let start = Instant::now();
        let after = |s: u64| start + Duration::from_secs(s);
        let mut nodes = Nodes::default();
        assert_eq!(nodes.activity(start).busy, Busy::Unknown);
        nodes.take(event("a@h", 0, 3), start);
        assert_eq!(nodes.activity(start).busy, Busy::Idle);
        nodes.take(event("b@h", 2, 4), start);
        let activity = nodes.activity(after(6));
        assert_eq!((activity.busy, activity.active, activity.processed), (Busy::Busy, Some(2), Some(5)));
        nodes.take(event("a@h", 0, 3), after(5));
        assert_eq!(nodes.activity(after(7)).busy, Busy::Unknown);
        nodes.take(CeleryEvent { offline: true, ..event("b@h", 0, 0) }, after(7));
        assert_eq!((nodes.activity(after(7)).busy, nodes.names()), (Busy::Idle, vec!["a@h".to_owned()]));
    }

    #[test]
    fn a_task_counts_as_done_when_it_ends_and_not_when_it_begins() {
        let now = Instant::now();
        let mut nodes = Nodes::default();
        nodes.take(event("a@h", 4, 4), now);
        assert_eq!(nodes.activity(now).processed, Some(0));
        nodes.take(event("a@h", 0, 4), now);
        assert_eq!(nodes.activity(now).processed, Some(4));
    }

    #[test]
    fn a_node_that_only_answers_is_known_and_one_that_falls_silent_has_a_task() {
        let now = Instant::now();
        let mut nodes = Nodes::default();
        nodes.answered("a@h", 0, now);
        let activity = nodes.activity(now);
        assert_eq!((activity.busy, activity.active, activity.processed), (Busy::Idle, Some(0), None));
        assert!(!nodes.beat(now));
        nodes.silent("a@h", now);
        nodes.silent("other@h", now);
        let activity = nodes.activity(now);
        assert_eq!((activity.busy, activity.active, nodes.names().len()), (Busy::Busy, Some(1), 1));
        nodes.take(event("a@h", 0, 1), now);
        assert!(nodes.beat(now) && nodes.activity(now).busy == Busy::Idle);
    }

    #[test]
    fn flags_that_keep_a_worker_from_being_heard_are_named() {
        let flags = |line: &str| silencing(&line.split(' ').map(str::to_owned).collect::<Vec<_>>(), "pod-a");
        assert_eq!(flags("celery -A a worker -n worker1@fixed --without-heartbeat"), ["-n worker1@fixed", "--without-heartbeat"]);
        assert_eq!(flags("celery worker --hostname=worker1"), ["-n worker1"]);
        assert!(flags("celery worker -n w1@%h -c 2").is_empty() && flags("celery worker -n w1@pod-a").is_empty());
    }
}
