//! Readiness: a process is ready once every part that it waits for has said so, and until it drains. In: named handles, held until a part is
//! up. Out: a yes or the names still missing. Left to others: who asks (`admin`), and what the parts are.

use std::sync::Arc;
use tokio::sync::watch;

/// Shared readiness of one process; clones are the same readiness.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<(u64, String)>,
    next: u64,
    draining: bool,
}

/// Something that readiness waits for. Dropping it releases it; [`Handle::release`] says the same aloud.
#[derive(Debug)]
#[must_use = "a handle that is dropped at once holds nothing up"]
pub struct Handle {
    id: u64,
    state: Arc<watch::Sender<State>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }
}

impl Readiness {
    /// A new part to wait for; `name` is what `/readyz` says while it is missing.
    pub fn handle(&self, name: &str) -> Handle {
        let mut id = 0;
        self.state.send_modify(|state| {
            id = state.next;
            state.next += 1;
            state.pending.push((id, name.to_owned()));
        });
        Handle { id, state: Arc::clone(&self.state) }
    }

    /// From now on not ready, for good: the process is leaving.
    pub fn drain(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Whether all handles are released and nothing drains.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// Why it is not ready, or None.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let state = self.state.borrow();
        match (state.draining, state.pending.is_empty()) {
            (true, _) => Some("draining".to_owned()),
            (false, true) => None,
            (false, false) => {
                let names: Vec<_> = state.pending.iter().map(|(_, name)| name.as_str()).collect();
                Some(format!("waiting for {}", names.join(", ")))
            }
        }
    }

    /// Returns once ready; never, if the process drains first.
    pub async fn wait(&self) {
        let mut changes = self.state.subscribe();
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = changes.wait_for(State::is_ready).await;
    }
}

impl State {
    fn is_ready(&self) -> bool {
        !self.draining && self.pending.is_empty()
    }
}

impl Handle {
    /// The part is up.
    pub fn release(self) {}
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.pending.retain(|(id, _)| *id != self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_ready_once_every_handle_is_released() {
        let ready = Readiness::default();
        let (a, b) = (ready.handle("cache"), ready.handle("certificate"));
        assert_eq!(ready.reason().unwrap(), "waiting for cache, certificate");
        a.release();
        assert_eq!(ready.reason().unwrap(), "waiting for certificate");
        let waiter = tokio::spawn({
            let ready = ready.clone();
            async move { ready.wait().await }
        });
        drop(b);
        waiter.await.unwrap();
        assert!(ready.is_ready() && ready.reason().is_none());
    }

    #[test]
    fn two_handles_of_one_name_are_two() {
        let ready = Readiness::default();
        let (a, _b) = (ready.handle("x"), ready.handle("x"));
        drop(a);
        assert_eq!(ready.reason().unwrap(), "waiting for x");
    }

    #[test]
    fn a_draining_process_is_never_ready_again() {
        let ready = Readiness::default();
        assert!(ready.is_ready());
        ready.drain();
        assert_eq!(ready.reason().unwrap(), "draining");
        ready.handle("late").release();
        assert!(!ready.is_ready());
    }
}
