//! Who is connected, and who must go when there are too many. In: connections, and the calls on them. Out: the request to leave. Left to others: sockets
//! (`server`).
//!
//! The port is open to the pod network, so anyone can hold connections and send a byte a second on each. Turning newcomers away would let him keep the
//! API server out; so the one that has gone longest without a call being answered makes room, and one that has never had an answer first.

use qscaler_runtime::CancellationToken;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All connections.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// Counts arrivals and answers: whoever has the smaller number came, or was served, earlier.
    clock: u64,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// When its last call was answered; 0: never.
    served: u64,
    leave: CancellationToken,
}

/// One connection; it leaves the book when it is dropped.
#[derive(Debug)]
pub struct Guest {
    guests: Guests,
    id: u64,
    leave: CancellationToken,
}

impl Guests {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection. Where there are `max` already, another is asked to leave.
    #[must_use]
    pub fn enter(&self, max: usize) -> Guest {
        let leave = CancellationToken::new();
        let mut book = self.lock();
        while book.entries.len() >= max.max(1) {
            let least = book.entries.iter().min_by_key(|(id, entry)| (entry.served, **id)).map(|(id, _)| *id);
            let Some(entry) = least.and_then(|id| book.entries.remove(&id)) else { break };
            entry.leave.cancel();
        }
        book.clock += 1;
        let id = book.clock;
        book.entries.insert(id, Entry { served: 0, leave: leave.clone() });
        drop(book);
        Guest { guests: self.clone(), id, leave }
    }
}

impl Guest {
    /// Waits for the request to leave.
    pub async fn asked_to_leave(&self) {
        self.leave.cancelled().await;
    }

    /// One of its calls was answered.
    pub fn served(&self) {
        let mut book = self.guests.lock();
        book.clock += 1;
        let now = book.clock;
        if let Some(entry) = book.entries.get_mut(&self.id) {
            entry.served = now;
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.lock().entries.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_served_least_lately_makes_room_and_strangers_first() {
        let guests = Guests::default();
        let gone = |guest: &Guest| guest.leave.is_cancelled();
        let (a, b, stranger) = (guests.enter(3), guests.enter(3), guests.enter(3));
        b.served();
        a.served();
        let c = guests.enter(3);
        assert!(gone(&stranger) && !gone(&a) && !gone(&b) && !gone(&c));
        c.served();
        let d = guests.enter(3);
        assert!(gone(&b) && !gone(&a) && !gone(&c) && !gone(&d));
        drop((a, b, c, d, stranger));
        assert!(guests.lock().entries.is_empty());
    }
}
