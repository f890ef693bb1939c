//! Conditions of a QWorker, and the Events that their edges are worth. In: what holds now. Out: conditions with the time they last changed, and
//! one Event per edge. Left to others: what holds (`workload`), writing (`apply`).

use crate::act::plan::Notice;
use crate::words::{shorten, time};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use qscaler_core::names::{condition, event};
use std::borrow::Cow;
use std::hash::{Hash, Hasher};

/// Kubernetes refuses longer messages.
const MESSAGE_MAX: usize = 32_768;
/// The types that are set; others in a saved status are not ours.
const KINDS: &[&str] = &[
    condition::READY,
    condition::SCALING,
    condition::SCALE_DOWN_BLOCKED,
    condition::BROKER_REACHABLE,
    condition::INJECTED,
    condition::HOLD_EFFECTIVE,
    condition::UP_TO_DATE,
    condition::RESIZE_DEFERRED,
    condition::MEMORY_CAPPED,
    condition::CONFLICT,
    condition::QUEUE_SHARED,
    condition::SCHEDULER_INSIDE,
    condition::DOWNSTREAM_LIMITED,
];

/// What a condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holds {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`: there is nothing yet to say it of.
    Unknown,
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl Holds {
    fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The conditions of one workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions(Vec<One>);

/// Most words are the same everywhere and always: ten thousand workloads share them.
#[derive(Clone, Debug, PartialEq)]
struct One {
    kind: &'static str,
    holds: Holds,
    reason: Cow<'static, str>,
    message: Cow<'static, str>,
    generation: i64,
    since_ms: u64,
}

impl Conditions {
    /// Those of an earlier life.
    #[must_use]
    pub fn restore(saved: &[Condition]) -> Self {
        let one = |c: &Condition| {
            Some(One {
                kind: KINDS.iter().find(|k| **k == c.type_)?,
                holds: match c.status.as_str() {
                    "True" => Holds::True,
                    "Unknown" => Holds::Unknown,
                    _ => Holds::False,
                },
                reason: Cow::Owned(c.reason.clone()),
                message: Cow::Owned(c.message.clone()),
                generation: c.observed_generation.unwrap_or(0),
                since_ms: crate::words::millis(&c.last_transition_time),
            })
        };
        Self(saved.iter().filter_map(one).collect())
    }

    /// Whether anything has been said of it.
    #[must_use]
    pub fn has(&self, kind: &str) -> bool {
        self.0.iter().any(|c| c.kind == kind)
    }

    /// All of them, in the order in which they were first set.
    #[must_use]
    pub fn list(&self) -> Vec<Condition> {
        let one = |c: &One| Condition {
            type_: c.kind.to_owned(),
            status: c.holds.name().to_owned(),
            reason: c.reason.clone().into_owned(),
            message: c.message.clone().into_owned(),
            observed_generation: Some(c.generation),
            last_transition_time: time(c.since_ms),
        };
        self.0.iter().map(one).collect()
    }

    /// Says what holds now. Returns the Event of the edge, if it is one that people should see.
    pub fn set(
        &mut self,
        kind: &'static str,
        holds: impl Into<Holds>,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
        generation: i64,
        now_ms: u64,
    ) -> Option<Notice> {
        let holds = holds.into();
        let mut message: Cow<'static, str> = message.into();
        if message.len() > MESSAGE_MAX {
            shorten(message.to_mut(), MESSAGE_MAX);
        }
        let Some(old) = self.0.iter_mut().find(|c| c.kind == kind) else {
            let told = notice(kind, holds, reason, true, &message);
            self.0.push(One { kind, holds, reason: Cow::Borrowed(reason), message, generation, since_ms: now_ms });
            return told;
        };
        // Another mistake in the place of the first is news as well, and so is another reason for what is not as it should be.
        let bad = holds
            == if [condition::SCALE_DOWN_BLOCKED, condition::QUEUE_SHARED, condition::SCHEDULER_INSIDE].contains(&kind) {
                Holds::True
            } else {
                Holds::False
            };
        let another = match kind {
            condition::READY => old.message != message,
            condition::HOLD_EFFECTIVE
            | condition::INJECTED
            | condition::UP_TO_DATE
            | condition::SCALING
            | condition::SCALE_DOWN_BLOCKED
            | condition::QUEUE_SHARED
            | condition::SCHEDULER_INSIDE => old.reason != reason,
            _ => false,
        };
        let news = old.holds != holds || (bad && another);
        let told = if news { notice(kind, holds, reason, false, &message) } else { None };
        if old.holds != holds {
            (old.holds, old.since_ms) = (holds, now_ms);
        }
        (old.reason, old.message, old.generation) = (Cow::Borrowed(reason), message, generation);
        told
    }

    /// Whether this condition is True.
    #[must_use]
    pub fn holds(&self, kind: &str) -> bool {
        self.0.iter().any(|c| c.kind == kind && c.holds == Holds::True)
    }

    /// The reason and the message of this condition while it is False.
    #[must_use]
    pub fn complaint(&self, kind: &str) -> Option<(&str, &str)> {
        self.0.iter().find(|c| c.kind == kind && c.holds == Holds::False).map(|c| (&*c.reason, &*c.message))
    }

    /// Type and reason of every condition that is not as it should be, in their order.
    pub fn troubles(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().filter(|c| condition::is_trouble(c.kind, c.holds.name(), &c.reason)).map(|c| (c.kind, &*c.reason))
    }

    /// Adds what holds to `state`, and the words about it to `words`.
    pub(crate) fn digest(&self, state: &mut impl Hasher, words: &mut impl Hasher) {
        for one in &self.0 {
            (one.kind, one.holds, &one.reason, one.generation).hash(state);
            one.message.hash(words);
        }
    }
}

/// The Event of an edge. Good news is news only after bad.
fn notice(kind: &str, holds: Holds, reason: &str, first: bool, message: &str) -> Option<Notice> {
    let holds = match holds {
        Holds::True => true,
        Holds::False => false,
        Holds::Unknown => return None,
    };
    match (kind, holds) {
        (condition::READY, false) => Some(Notice::warning(event::INVALID_CONFIG, message)),
        // The others are somebody's will, or another condition tells them.
        (condition::SCALING, false) if reason == condition::REASON_FAILED_CREATE => Some(Notice::warning(event::FAILED_CREATE, message)),
        (condition::BROKER_REACHABLE, false) => Some(Notice::warning(event::BROKER_UNREACHABLE, message)),
        (condition::BROKER_REACHABLE, true) if !first => Some(Notice::normal(event::BROKER_REACHABLE, message)),
        // Long tasks are no trouble.
        (condition::SCALE_DOWN_BLOCKED, true) if reason == condition::REASON_BUSY => None,
        (condition::SCALE_DOWN_BLOCKED, true) => Some(Notice::warning(event::SCALE_DOWN_BLOCKED, message)),
        (condition::INJECTED, false) => Some(Notice::warning(event::NOT_INJECTED, message)),
        (condition::HOLD_EFFECTIVE, false) => Some(Notice::warning(event::HOLD_NOT_EFFECTIVE, message)),
        // What is under way, or somebody's will, is no trouble.
        (condition::UP_TO_DATE, false) if [condition::REASON_REPLACING, condition::REASON_PAUSED].contains(&reason) => None,
        (condition::UP_TO_DATE, false) => Some(Notice::warning(event::NOT_REPLACED, message)),
        (condition::RESIZE_DEFERRED, true) => Some(Notice::warning(event::RESIZE_DEFERRED, message)),
        (condition::MEMORY_CAPPED, true) => Some(Notice::warning(event::MEMORY_CAPPED, message)),
        (condition::CONFLICT, true) => Some(Notice::warning(event::CONFLICT, message)),
        (condition::QUEUE_SHARED, true) if reason == condition::REASON_DIVIDED => Some(Notice::normal(event::QUEUE_SHARED, message)),
        (condition::QUEUE_SHARED, true) => Some(Notice::warning(event::QUEUE_SHARED, message)),
        (condition::SCHEDULER_INSIDE, true) => Some(Notice::warning(event::SCHEDULER_INSIDE, message)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_told_once_and_keeps_its_time() {
        let mut conditions = Conditions::default();
        let told = conditions.set(condition::BROKER_REACHABLE, false, "Refused", "redis://r:6379: refused", 1, 5_000).unwrap();
        assert!(told.warning && told.reason == event::BROKER_UNREACHABLE && told.note.contains("refused"));
        assert_eq!(conditions.set(condition::BROKER_REACHABLE, false, "Refused", "still", 1, 9_000), None);
        assert_eq!(conditions.list()[0].last_transition_time, time(5_000));
        assert_eq!(conditions.list()[0].message, "still");
        assert_eq!(conditions.set(condition::BROKER_REACHABLE, true, "Answers", "again", 1, 9_000).unwrap().reason, event::BROKER_REACHABLE);
        assert_eq!(conditions.list()[0].last_transition_time, time(9_000));
    }

    #[test]
    fn good_news_without_bad_before_is_no_news_and_a_restart_repeats_nothing() {
        let mut conditions = Conditions::default();
        assert_eq!(conditions.set(condition::BROKER_REACHABLE, true, "Answers", "", 1, 1_000), None);
        assert!(conditions.set(condition::CONFLICT, true, "Hpa", "another scaler", 1, 1_000).is_some());
        let mut restored = Conditions::restore(&conditions.list());
        assert_eq!(restored.set(condition::CONFLICT, true, "Hpa", "another scaler", 1, 60_000), None);
        assert!(restored.holds(condition::CONFLICT));
        assert_eq!(restored.list(), conditions.list());
    }

    #[test]
    fn each_mistake_is_told_also_when_one_follows_the_other() {
        let mut conditions = Conditions::default();
        let mut told = |message: &'static str| conditions.set(condition::READY, false, "InvalidConfig", message, 1, 1_000).map(|n| n.note);
        assert_eq!([told("a"), told("a"), told("b")], [Some("a".to_owned()), None, Some("b".to_owned())]);
    }

    #[test]
    fn another_reason_for_a_hold_that_is_not_whole_is_news_and_what_is_unknown_is_none() {
        let mut conditions = Conditions::default();
        let mut told = |holds: Holds, reason: &'static str| conditions.set(condition::HOLD_EFFECTIVE, holds, reason, "m", 1, 1_000).map(|n| n.reason);
        let each = [(Holds::Unknown, "NoPods"), (Holds::False, "NoHandler"), (Holds::False, "NoHandler"), (Holds::False, "SidecarSilent")];
        let news = Some(event::HOLD_NOT_EFFECTIVE);
        assert_eq!(each.map(|(holds, reason)| told(holds, reason)), [None, news, None, news]);
        conditions.set(condition::HOLD_EFFECTIVE, Holds::Unknown, "NoPods", "m", 1, 9_000);
        let unknown = conditions.list();
        assert_eq!((unknown[0].status.as_str(), Conditions::restore(&unknown).list()), ("Unknown", unknown.clone()));
    }

    #[test]
    fn every_condition_that_has_a_name_is_known_after_a_restart() {
        let mut conditions = Conditions::default();
        for kind in KINDS {
            conditions.set(kind, true, "R", "m", 1, 1_000);
        }
        assert_eq!(Conditions::restore(&conditions.list()), conditions);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        for (max, left) in [(10, "aéz"), (3, "aé"), (2, "a"), (0, "")] {
            let mut text = "aéz".to_owned();
            shorten(&mut text, max);
            assert_eq!(text, left);
        }
    }
}
