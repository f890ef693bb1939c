//! Celery: the worker's own heartbeat events, which say how many tasks run and how many it has finished. In: events of this host's nodes. Out:
//! samples; the nodes' names for the gate. Left to others: the wire (`broker::activity`), closing the gate (`gate`).
//!
//! While the gate is closed, a heartbeat alone does not prove idle: it may have been under way, and prefetched tasks still follow. The worker
//! is then asked what it runs and what it holds.

use super::{Activity, tell};
use crate::driver::Input;
use crate::gate::{GateView, Remote};
use crate::watch::MainReceiver;
use qscaler_broker::activity::CeleryEvents;
use qscaler_broker::activity::kombu::WorkerEvent;
use qscaler_core::message::Busy;
use qscaler_runtime::backoff::Backoff;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A node that has been silent for this many of its periods says nothing any more: a solo pool is silent while it works.
const PERIODS_MAX: u32 = 3;
/// How often silence is looked at.
const TICK: Duration = Duration::from_secs(1);

/// The Celery nodes of this pod, by name, with their last heartbeat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nodes(BTreeMap<String, (WorkerEvent, Instant)>);

impl Nodes {
    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn take(&mut self, event: WorkerEvent, now: Instant) {
        if event.offline {
            self.0.remove(&event.node);
        } else {
            self.0.insert(event.node.clone(), (event, now));
        }
    }

    /// The sum over all nodes; unknown as soon as one is silent or none is there.
    fn activity(&self, now: Instant) -> Activity {
        let fresh = |(event, at): &(WorkerEvent, Instant)| now.duration_since(*at) <= event.period * PERIODS_MAX;
        if self.0.is_empty() || !self.0.values().all(fresh) {
            return Activity::unknown();
        }
        let active: u32 = self.0.values().map(|(event, _)| event.active).sum();
        // Celery counts a task as processed when a worker accepts it, so those that run are counted too.
        let finished = self.0.values().map(|(event, _)| event.processed.saturating_sub(u64::from(event.active))).sum();
        Activity {
            busy: if active > 0 { Busy::Busy } else { Busy::Idle },
            active: Some(active),
            processed: Some(finished),
            ended: None,
            taking: false,
        }
    }
}

/// The source.
pub(super) struct Celery {
    pub(super) url: String,
    pub(super) name: String,
    pub(super) host: String,
    pub(super) main: MainReceiver,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) nodes: watch::Sender<Nodes>,
    pub(super) gate: GateView,
    pub(super) remote: Remote,
}

impl Celery {
    /// Samples until the driver is gone.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::reconnect();
        let mut complained = false;
        loop {
            let error = match CeleryEvents::connect(&self.url, &self.name, &self.host).await {
                Ok(mut events) => {
                    backoff.reset();
                    complained = false;
                    match self.listen(&mut events).await {
                        Some(error) => error,
                        None => return,
                    }
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut complained, true) {
                tracing::info!(%error, "no Celery events for now: whether the worker is busy is not known");
            }
            if !tell(&self.inputs, Activity::unknown()).await {
                return;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// None: the driver is gone.
    async fn listen(&mut self, events: &mut CeleryEvents) -> Option<qscaler_broker::BrokerError> {
        let mut main = self.main.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut known = Busy::Unknown;
        loop {
            let now = tokio::select! {
                event = events.next() => match event {
                    Ok(event) => {
                        let now = Instant::now();
                        self.nodes.send_modify(|nodes| nodes.take(event, now));
                        now
                    }
                    Err(error) => return Some(error),
                },
                // Another worker process: what the one before said is void.
                _ = main.changed() => {
                    self.nodes.send_modify(|nodes| nodes.0.clear());
                    Instant::now()
                }
                // Of ticks only the beginning of silence is told: a repeated old sample is no new evidence.
                _ = tick.tick() => {
                    let now = Instant::now();
                    if known == Busy::Unknown || self.nodes.borrow().activity(now).busy != Busy::Unknown {
                        if self.inputs.is_closed() {
                            return None;
                        }
                        continue;
                    }
                    now
                }
            };
            let mut activity = self.nodes.borrow().activity(now);
            if !self.gate.is_closed() {
                self.remote.disconnect();
            } else if activity.busy == Busy::Idle {
                activity.busy = self.proved().await;
            }
            known = activity.busy;
            if !tell(&self.inputs, activity).await {
                return None;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(node: &str, active: u32, processed: u64) -> WorkerEvent {
        WorkerEvent { node: node.to_owned(), active, processed, period: Duration::from_secs(2), offline: false }
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
        assert_eq!((activity.busy, activity.active, activity.processed), (Busy::Busy, Some(2), Some(5)), "two of b's four run still");
        nodes.take(event("a@h", 0, 3), after(5));
        assert_eq!(nodes.activity(after(7)).busy, Busy::Unknown);
        nodes.take(WorkerEvent { offline: true, ..event("b@h", 0, 0) }, after(7));
        assert_eq!((nodes.activity(after(7)).busy, nodes.names()), (Busy::Idle, vec!["a@h".to_owned()]));
    }
}
