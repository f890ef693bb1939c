//! Queues of which nothing has ever been seen: a wrong name, virtual host, database or prefix looks like an empty queue. In: each look at each queue. Out:
//! which of them have not been seen for how long. Left to others: what may be wrong (each broker's figures), saying it (`controller`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A new queue gets its first message within this time, or else it is worth a word.
pub(crate) const SAID_AFTER: Duration = Duration::from_secs(60);
/// A queue that is not asked for any more is forgotten after this time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Above this number of queues the forgotten ones are looked for.
const KEPT_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Unseen<T> {
    queues: Mutex<HashMap<String, Look<T>>>,
}

impl<T> Default for Unseen<T> {
    fn default() -> Self {
        Self { queues: Mutex::new(HashMap::new()) }
    }
}

#[derive(Debug)]
struct Look<T> {
    /// When it was asked for first; None: it has been seen.
    since: Option<Instant>,
    asked: Instant,
    found: Option<T>,
}

impl<T: Clone> Unseen<T> {
    /// This queue was looked at; `seen`: there was something.
    pub(crate) fn looked(&self, queue: &str, seen: bool) {
        let now = Instant::now();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.len() > KEPT_MAX {
            queues.retain(|_, look| now.duration_since(look.asked) < FORGOTTEN_AFTER);
        }
        if let Some(look) = queues.get_mut(queue) {
            look.asked = now;
            if seen {
                (look.since, look.found) = (None, None);
            }
        } else {
            queues.insert(queue.to_owned(), Look { since: (!seen).then_some(now), asked: now, found: None });
        }
    }

    /// Whether it is time for a word about this queue.
    pub(crate) fn is_overdue(&self, queue: &str) -> bool {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.get(queue).and_then(|look| look.since).is_some_and(|since| since.elapsed() >= SAID_AFTER)
    }

    /// What was found out about an overdue queue.
    pub(crate) fn found(&self, queue: &str) -> Option<T> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.get(queue).and_then(|look| look.found.clone())
    }

    /// Keeps what was found out.
    pub(crate) fn keep(&self, queue: &str, found: T) {
        if let Some(look) = self.queues.lock().unwrap_or_else(PoisonError::into_inner).get_mut(queue) {
            look.found = look.since.map(|_| found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_overdue_after_a_minute_of_nothing_and_never_again_once_it_was_seen() {
        let unseen: Unseen<u8> = Unseen::default();
        unseen.looked("q", false);
        assert!(!unseen.is_overdue("q"));
        tokio::time::advance(SAID_AFTER).await;
        unseen.looked("q", false);
        assert!(unseen.is_overdue("q") && !unseen.is_overdue("other"));
        unseen.keep("q", 1);
        assert_eq!(unseen.found("q"), Some(1));
        unseen.looked("q", true);
        unseen.looked("q", false);
        tokio::time::advance(SAID_AFTER).await;
        assert!(!unseen.is_overdue("q") && unseen.found("q").is_none());
    }
}
