//! Orders to end a hold, which people give for single pods. In: the pods that are to be let go, the time. Out: the messages of now. Left to others: reading
//! the order (`controller`), obeying it (`drain::worker`).

use super::TOKEN_TTL_MS;
use crate::message::{ControlKind, ControlMessage, Epoch, VERSION};
use crate::workload::WorkloadUid;
use std::collections::BTreeMap;

/// An order to end a hold is repeated this often: a message may be lost, milliseconds.
const AGAIN_MS: u64 = 5_000;

/// When each pod's order was sent last, by its UID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Releases(BTreeMap<String, u64>);

impl Releases {
    /// The messages to send now to `ordered`, pods of the workload by UID; whoever is not in it any more is forgotten. `epoch`: the present wave's.
    pub fn due(&mut self, ordered: &[&str], workload_uid: &WorkloadUid, epoch: Epoch, now_ms: u64) -> Vec<ControlMessage> {
        self.0.retain(|uid, _| ordered.contains(&uid.as_str()));
        let mut messages = Vec::new();
        for uid in ordered {
            if self.0.get(*uid).is_some_and(|at_ms| now_ms < at_ms.saturating_add(AGAIN_MS)) {
                continue;
            }
            self.0.insert((*uid).to_owned(), now_ms);
            messages.push(ControlMessage {
                version: VERSION,
                kind: ControlKind::Release,
                workload_uid: workload_uid.clone(),
                epoch,
                issued_ms: now_ms,
                expires_ms: now_ms.saturating_add(TOKEN_TTL_MS),
                lease_ms: 0,
                target: Some((*uid).to_owned()),
            });
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_its_pod_is_repeated_and_ends_with_the_annotation() {
        let mut releases = Releases::default();
        let mut due = |ordered: &[&str], now_ms| releases.due(ordered, &"dep".into(), Epoch(7), now_ms);
        let first = due(&["a", "b"], 1_000);
        assert_eq!(
            first.iter().map(|m| (m.kind, m.target.as_deref(), m.epoch.0)).collect::<Vec<_>>(),
            [(ControlKind::Release, Some("a"), 7), (ControlKind::Release, Some("b"), 7)]
        );
        assert!(first.iter().all(|m| m.expires_ms == 61_000 && m.workload_uid.as_str() == "dep"));
        assert_eq!((due(&["a", "b"], 5_999).len(), due(&["a"], 6_000).len()), (0, 1));
        assert_eq!(due(&["a", "b"], 6_001).len(), 1, "ordered anew");
    }
}
