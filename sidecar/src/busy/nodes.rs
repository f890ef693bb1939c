//! What was heard of the Celery nodes of this pod. In: events and answers. Out: their sum. Left to others: hearing them (`celery`), asking them to take
//! nothing more (`gate`).

use crate::input::Activity;
use qscaler_broker::activity::kombu::CeleryEvent;
use qscaler_core::message::Busy;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A node that has been silent for this many of its periods says nothing any more: a solo pool is silent while it works.
const PERIODS_MAX: u32 = 3;
/// How often a node that does not beat is asked. Every question goes to the whole fleet, as every heartbeat does: no more often than a few of those.
pub(crate) const ASK_PERIOD: Duration = Duration::from_secs(5);

/// The Celery nodes of this pod, by name, with the last that was heard of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nodes(pub(crate) BTreeMap<String, Node>);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    event: CeleryEvent,
    heard: Instant,
    /// It answers, and does not beat: it does not say how many tasks it has begun.
    asked: bool,
}

impl Nodes {
    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    pub(crate) fn take(&mut self, event: CeleryEvent, now: Instant) {
        if event.offline {
            self.0.remove(&event.node);
        } else {
            self.0.insert(event.node.clone(), Node { event, heard: now, asked: false });
        }
    }

    /// An answer: so many tasks run there.
    pub(crate) fn answered(&mut self, name: &str, active: u32, now: Instant) {
        let event = CeleryEvent { node: name.to_owned(), active, processed: 0, period: ASK_PERIOD, offline: false };
        self.0.insert(name.to_owned(), Node { event, heard: now, asked: true });
    }

    /// One that was heard before, and neither beats nor answers now.
    pub(crate) fn silent(&mut self, name: &str, now: Instant) {
        if let Some(node) = self.0.get_mut(name) {
            (node.event.active, node.event.period, node.heard, node.asked) = (node.event.active.max(1), ASK_PERIOD, now, true);
        }
    }

    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        !self.0.is_empty() && self.0.values().all(|node| now.duration_since(node.heard) <= node.event.period * PERIODS_MAX)
    }

    /// All beat, and none of them is late.
    pub(crate) fn beat(&self, now: Instant) -> bool {
        self.is_fresh(now) && self.0.values().all(|node| !node.asked)
    }

    /// The sum over all nodes; unknown as soon as one is silent or none is there. Celery counts a task as processed when it begins: those that run are no
    /// finished ones.
    pub(crate) fn activity(&self, now: Instant) -> Activity {
        if !self.is_fresh(now) {
            return Activity::unknown();
        }
        let active: u32 = self.0.values().map(|node| node.event.active).sum();
        let begun: u64 = self.0.values().map(|node| node.event.processed).sum();
        Activity {
            busy: if active > 0 { Busy::Busy } else { Busy::Idle },
            active: Some(active),
            processed: self.0.values().all(|node| !node.asked).then(|| begun.saturating_sub(u64::from(active))),
            ended: None,
            taking: false,
        }
    }
}
