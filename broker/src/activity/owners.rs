//! Whose the tasks in hand are, of a framework whose locks name a task's owner (BullMQ). In: the tasks in hand and their locks, and when the pod's own
//! connections were last heard by the server. Out: whether every task in hand is proved to be another worker's. Left to others: which connections are the
//! pod's (`blocked`).
//!
//! An owner's name is random, and stands nowhere beside a pod's. But a worker takes a task, and renews its lock, through a connection of its own, and the
//! server says how long ago it last heard each of them. So a lock that appeared or was renewed between two looks, in a time in which no connection of the pod
//! was heard, is another's; and since every worker object makes its name for itself, all that this owner ever has is. A worker with room for more tasks waits
//! like one that has none (one blocking connection, whatever its concurrency): waiting alone proves nothing, and this does.

use super::Whose;
use crate::redis::RedisLink;
use crate::{BrokerError, Retry};
use qscaler_core::framework::Books;
use redis::{FromRedisValue, Pipeline, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

const OPERATION: &str = "reading who has the tasks in hand";
/// More tasks in hand are not looked at one by one.
const TASKS_MAX: usize = 1000;
/// So many tasks in hand may be looked at in a second: every pod looks. With more the looks come more rarely.
const TASKS_A_SECOND: u64 = 200;
/// Longest time between two looks.
const PERIOD_MAX: Duration = Duration::from_secs(10);
/// So many locks are asked in one look how long they still last.
const LEFT_MAX: usize = 32;
/// The server counts in whole seconds how long ago it heard a connection, by a clock that it renews ten times a second; milliseconds.
const ROUNDING_MS: u64 = 1_250;
/// Two clocks that differ by more over one look: one of them was set, or an answer took long; milliseconds.
const STEP_MS: u64 = 500;
/// A lock that lasts longer than at the look before by more than this was renewed; milliseconds.
const RENEWED_MS: i64 = 1_000;
/// Owners that are remembered, at most; those that have a task stay.
const OWNERS_MAX: usize = 4096;

/// Who has the tasks in hand of some queues.
#[derive(Debug)]
pub(super) struct Owners {
    queues: Vec<Queue>,
    /// Owners that are proved to be others'.
    others: BTreeSet<String>,
    before: Option<Look>,
    /// When it may be read again.
    due: Instant,
}

/// Where a queue's tasks in hand and their locks stand.
#[derive(Debug)]
struct Queue {
    active: String,
    before: String,
    after: String,
}

/// One task's lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lock {
    /// None: it has none.
    value: Option<String>,
    /// How long it still lasts, milliseconds; None: not asked, or for ever.
    left_ms: Option<i64>,
}

impl Lock {
    /// Its owner, where the name is one that no two workers have: a UUID before a colon and a number.
    fn owner(&self) -> Option<&str> {
        let (owner, number) = self.value.as_deref()?.split_once(':')?;
        let is_uuid = owner.len() == 36
            && owner.bytes().enumerate().all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() });
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        (is_uuid && is_number).then_some(owner)
    }
}

/// One look at all tasks in hand.
#[derive(Debug)]
pub(super) struct Look {
    began: Instant,
    /// The same by the server's clock, milliseconds since the epoch.
    server_ms: u64,
    /// By the lock's name.
    locks: BTreeMap<String, Lock>,
    /// Locks that are asked how long they last.
    asked: Vec<String>,
    /// The pod's connections at its end.
    connections: BTreeSet<u64>,
}

impl Look {
    /// Asks how long the locks of unknown owners still last.
    pub(super) fn ask_left(&self, pipeline: &mut Pipeline) {
        for key in &self.asked {
            pipeline.cmd("PTTL").arg(key);
        }
    }
}

/// How a look ended.
pub(super) struct LockEnd {
    pub(super) at: Instant,
    /// The answer to `TIME`.
    pub(super) server: Option<Value>,
    /// The pod's connections.
    pub(super) connections: BTreeSet<u64>,
    /// Seconds since the server has heard any of them; None: not all of them are known.
    pub(super) idle_s: Option<u64>,
}

impl Owners {
    /// None: this framework's locks name nobody.
    pub(super) fn of(whose: &Whose<'_>) -> Option<Self> {
        let Books::Locks { before, after } = whose.framework.books else { return None };
        let name = |template: &str, queue: &str| whose.framework.queue_book_name(template, queue, whose.names);
        let queue = |queue: &String| {
            let active = whose.framework.working_keys(queue, whose.names).into_iter().next()?.name;
            Some(Queue { active, before: name(before, queue), after: name(after, queue) })
        };
        Some(Self { queues: whose.queues.iter().filter_map(queue).collect(), others: BTreeSet::new(), before: None, due: Instant::now() })
    }

    /// The tasks in hand and their locks. None: it is not the time yet, or there are too many.
    pub(super) async fn read(&mut self, link: &RedisLink) -> Result<Option<Look>, BrokerError> {
        let began = Instant::now();
        if began < self.due {
            return Ok(None);
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        for queue in &self.queues {
            pipeline.cmd("LRANGE").arg(&queue.active).arg(0).arg(TASKS_MAX);
        }
        let mut answers = link.run_all(OPERATION, &mut pipeline).await?.into_iter();
        let server_ms = answers.next().and_then(|value| millis(&value)).ok_or_else(|| unreadable(link))?;
        let mut keys = Vec::new();
        for (queue, value) in self.queues.iter().zip(answers) {
            let tasks = Vec::<String>::from_redis_value(value).map_err(|_| unreadable(link))?;
            keys.extend(tasks.into_iter().map(|task| format!("{}{task}{}", queue.before, queue.after)));
        }
        let tasks = u64::try_from(keys.len()).unwrap_or(u64::MAX);
        self.due = began + Duration::from_millis(tasks.saturating_mul(1000) / TASKS_A_SECOND).saturating_sub(Duration::from_secs(1)).min(PERIOD_MAX);
        if keys.len() > TASKS_MAX {
            self.before = None;
            return Ok(None);
        }
        let mut values = Vec::new();
        if !keys.is_empty() {
            let answer = link.run_all(OPERATION, redis::pipe().cmd("MGET").arg(&keys)).await?.pop().unwrap_or(Value::Nil);
            values = Vec::<Option<String>>::from_redis_value(answer).map_err(|_| unreadable(link))?;
        }
        let locks: BTreeMap<String, Lock> = keys.into_iter().zip(values).map(|(key, value)| (key, Lock { value, left_ms: None })).collect();
        let unknown = |(key, lock): (&String, &Lock)| lock.owner().filter(|owner| !self.others.contains(*owner)).map(|_| key.clone());
        let asked = locks.iter().filter_map(unknown).take(LEFT_MAX).collect();
        Ok(Some(Look { began, server_ms, locks, asked, connections: BTreeSet::new() }))
    }

    /// Whether every task in hand is another's. `left`: the answers to [`Look::ask_left`].
    pub(super) fn judge(&mut self, mut look: Look, left: &[Value], end: LockEnd) -> bool {
        for (key, left) in look.asked.iter().zip(left) {
            if let (Some(lock), Value::Int(left @ 0..)) = (look.locks.get_mut(key), left) {
                lock.left_ms = Some(*left);
            }
        }
        if let Some(before) = self.before.take().filter(|before| was_silent(before, &end)) {
            let is_new = |(key, lock): &(&String, &Lock)| match before.locks.get(*key).filter(|before| before.value == lock.value) {
                None => true,
                Some(before) => matches!((before.left_ms, lock.left_ms), (Some(before), Some(now)) if now > before + RENEWED_MS),
            };
            let proved = look.locks.iter().filter(is_new).filter_map(|(_, lock)| lock.owner());
            self.others.extend(proved.map(str::to_owned));
        }
        if self.others.len() > OWNERS_MAX {
            let at_work: BTreeSet<&str> = look.locks.values().filter_map(Lock::owner).collect();
            self.others.retain(|owner| at_work.contains(owner.as_str()));
        }
        look.connections = end.connections;
        let none_here = look.locks.values().all(|lock| lock.owner().is_some_and(|owner| self.others.contains(owner)));
        self.before = Some(look);
        none_here
    }
}

/// Whether no connection of the pod was heard from the beginning of the look before to the end of this one.
fn was_silent(before: &Look, end: &LockEnd) -> bool {
    let Some((idle_s, server_ms)) = end.idle_s.zip(end.server.as_ref().and_then(millis)) else { return false };
    let own_ms = u64::try_from(end.at.saturating_duration_since(before.began).as_millis()).unwrap_or(u64::MAX);
    let server_ms = server_ms.saturating_sub(before.server_ms);
    let silent = idle_s.saturating_mul(1000) >= own_ms.max(server_ms).saturating_add(ROUNDING_MS);
    silent && own_ms.abs_diff(server_ms) <= STEP_MS && before.connections == end.connections
}

/// An answer to `TIME`: seconds and microseconds.
fn millis(value: &Value) -> Option<u64> {
    let (seconds, micros) = <(u64, u64)>::from_redis_value(value.clone()).ok()?;
    Some(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

fn unreadable(link: &RedisLink) -> BrokerError {
    BrokerError { operation: OPERATION, place: link.place(), message: "an answer that cannot be read".to_owned(), retry: Retry::AfterChange }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_core::framework::{KeyNames, framework};

    const ONE: &str = "0b5c6a34-0f3e-4a0e-9d54-5a5b1f6f7a11";
    const TWO: &str = "7f0b2a55-9c1d-4c57-8e3b-2d4c6b8a9e22";

    /// A pod that looks every second; the server's clock is the same as its own unless it is set.
    struct Pod {
        owners: Owners,
        begin: Instant,
        server_is_ahead_ms: u64,
    }

    impl Pod {
        fn new() -> Self {
            let whose = Whose { framework: framework("bullmq").unwrap(), names: &KeyNames::default(), queues: &["q".to_owned()] };
            Self { owners: Owners::of(&whose).unwrap(), begin: Instant::now(), server_is_ahead_ms: 1_000_000 }
        }

        /// A look at this second, with these tasks: name, lock's value, how long it lasts in seconds. `idle_s`: since the pod was heard.
        fn look(&mut self, second: u64, idle_s: Option<u64>, tasks: &[(&str, &str, i64)]) -> bool {
            let ms = |second: u64| second * 1000 + self.server_is_ahead_ms;
            let time = |second: u64| Value::Array(vec![Value::Int((ms(second) / 1000) as i64), Value::Int((ms(second) % 1000 * 1000) as i64)]);
            let lock = |value: &str| Lock { value: (!value.is_empty()).then(|| value.to_owned()), left_ms: None };
            let locks: BTreeMap<String, Lock> = tasks.iter().map(|(task, value, _)| ((*task).to_owned(), lock(value))).collect();
            let left: Vec<Value> = locks.keys().map(|key| Value::Int(tasks.iter().find(|task| task.0 == key).unwrap().2 * 1000)).collect();
            let at = self.begin + Duration::from_secs(second);
            let asked = locks.keys().cloned().collect();
            let look = Look { began: at, server_ms: ms(second), locks, asked, connections: BTreeSet::new() };
            self.owners.judge(look, &left, LockEnd { at, server: Some(time(second)), connections: BTreeSet::from([7, 8]), idle_s })
        }
    }

    #[test]
    fn what_was_taken_while_the_pod_was_silent_is_another_s_for_good() {
        let mut pod = Pod::new();
        let (first, next) = (format!("{ONE}:0"), format!("{ONE}:5"));
        assert!(pod.look(0, Some(5), &[]));
        assert!(pod.look(1, Some(5), &[("a", &first, 30)]));
        // Its owner is known now: also what it takes while this pod talks.
        assert!(pod.look(2, Some(0), &[("a", &first, 29), ("b", &next, 30)]));
        // Another's is not.
        assert!(!pod.look(3, Some(0), &[("b", &next, 29), ("c", &format!("{TWO}:0"), 30)]));
    }

    #[test]
    fn what_was_taken_while_the_pod_was_heard_may_be_its_own_until_the_lock_is_renewed_in_silence() {
        let mut pod = Pod::new();
        let lock = format!("{ONE}:0");
        assert!(pod.look(0, Some(5), &[]));
        // Heard at a whole second's rounding: it may have been just then.
        assert!(!pod.look(1, Some(2), &[("a", &lock, 30)]));
        assert!(!pod.look(2, Some(9), &[("a", &lock, 29)]));
        assert!(!pod.look(3, Some(1), &[("a", &lock, 30)]));
        assert!(!pod.look(4, Some(9), &[("a", &lock, 29)]));
        assert!(pod.look(5, Some(9), &[("a", &lock, 45)]));
    }

    #[test]
    fn a_task_without_a_lock_or_with_one_that_two_workers_may_have_is_nobody_s() {
        let mut pod = Pod::new();
        assert!(pod.look(0, Some(9), &[]));
        assert!(!pod.look(1, Some(9), &[("a", "", 30)]));
        for value in ["my-token", ONE, &format!("{ONE}:"), &format!("{ONE}:x"), "0b5c6a34:0"] {
            assert!(pod.look(2, Some(9), &[]));
            assert!(!pod.look(3, Some(9), &[("a", value, 30)]), "{value}");
        }
    }

    #[test]
    fn nothing_is_proved_by_a_clock_that_was_set_or_by_connections_that_have_changed() {
        let lock = format!("{ONE}:0");
        // The server's clock goes back by four seconds: every lock seems to last longer.
        let mut pod = Pod::new();
        assert!(!pod.look(0, Some(90), &[("a", &lock, 20)]));
        pod.server_is_ahead_ms -= 4000;
        assert!(!pod.look(1, Some(87), &[("a", &lock, 23)]));
        // Not all connections of the pod are known.
        let mut pod = Pod::new();
        assert!(pod.look(0, Some(9), &[]));
        assert!(!pod.look(1, None, &[("a", &lock, 30)]));
        // One is another one.
        let mut pod = Pod::new();
        assert!(pod.look(0, Some(9), &[]));
        pod.owners.before.as_mut().unwrap().connections = BTreeSet::from([7, 6]);
        assert!(!pod.look(1, Some(9), &[("a", &lock, 30)]));
    }
}
