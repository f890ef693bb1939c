//! Cuts that the controller counted. In: a fleet's QWorker. Out: how many new ones there are since a look. Left to others: how many there were (`ledger`,
//! `matrix::cell`).

use super::fleet::Fleet;
use crate::wait::wait_for;
use std::time::Duration;

/// A cut is told by the pod's sidecar within some seconds, and its status is written once a second at most.
const COUNTED_WITHIN: Duration = Duration::from_secs(45);

/// A look at the count. A Deployment made anew has a QWorker of its own, which counts from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    qworker: String,
    cuts: u64,
}

impl Counted {
    /// The count of now; 0 where there is no QWorker.
    pub async fn now(fleet: &Fleet) -> Self {
        let worker = fleet.qworker().await.ok().flatten().unwrap_or_default();
        let qworker = worker["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        Self { qworker, cuts: worker["status"]["counters"]["cut"].as_u64().unwrap_or_default() }
    }

    /// Those that `later` has and this has not.
    #[must_use]
    fn until(&self, later: &Self) -> u64 {
        if later.qworker == self.qworker { later.cuts.saturating_sub(self.cuts) } else { later.cuts }
    }

    /// Waits until as many cuts as happened are counted, or until they no longer will be; gives how many were.
    pub async fn since(&self, fleet: &Fleet, happened: u64) -> u64 {
        let look = || async {
            let new = self.until(&Self::now(fleet).await);
            if new >= happened { Ok(new) } else { Err(new.to_string()) }
        };
        match wait_for("cuts are counted", COUNTED_WITHIN, look).await {
            Ok(new) => new,
            Err(_) => self.until(&Self::now(fleet).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qworker_made_anew_counts_from_nothing() {
        let at = |qworker: &str, cuts| Counted { qworker: qworker.to_owned(), cuts };
        assert_eq!(at("a", 3).until(&at("a", 5)), 2);
        assert_eq!(at("a", 3).until(&at("b", 1)), 1);
        assert_eq!(at("", 0).until(&at("a", 1)), 1);
    }
}
