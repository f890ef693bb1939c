//! Sidecars that listen at their workload's name without its UID: those of older releases, and those whose webhook did not know it. In: calls for a
//! workload's address. Out: the same calls, at its two addresses in turn while such sidecars are about. Left to others: brokers, and what a report means.

use async_trait::async_trait;
use qscaler_broker::{BrokerError, ControlSender, Reports};
use qscaler_core::message::{ControlMessage, Report};
use qscaler_core::workload::ControlAddress;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A sidecar reports every 5 s; one that has not been heard of for so long is gone, or silent.
const ABOUT: Duration = Duration::from_secs(60);
/// How often the name without a UID is looked at where nobody has been heard at it.
const LOOK: Duration = Duration::from_secs(20);

/// A control channel that reaches both kinds of sidecars.
pub struct BothAddresses {
    inner: Arc<dyn ControlSender>,
    heard: Mutex<HashMap<ControlAddress, Heard>>,
}

/// What has been heard of one workload.
#[derive(Default)]
struct Heard {
    /// Pods at the address with the UID, and when.
    with: HashMap<String, Instant>,
    /// Pods at the name alone.
    without: HashMap<String, Instant>,
    /// When the name alone was looked at last.
    looked: Option<Instant>,
    /// The last look was at the name alone.
    turn: bool,
    /// Shared messages that are owed to those at the name alone, in parts of all pods.
    owed: usize,
}

impl Heard {
    fn note(&mut self, reports: &[Report], without: bool, now: Instant) {
        let pods = if without { &mut self.without } else { &mut self.with };
        for report in reports {
            if report.last {
                pods.remove(&report.pod_uid);
            } else {
                pods.insert(report.pod_uid.clone(), now);
            }
        }
        for pods in [&mut self.with, &mut self.without] {
            pods.retain(|_, heard| now.duration_since(*heard) < ABOUT);
        }
    }

    /// Whether this look is one at the name alone: every other one while somebody is heard there, and otherwise one now and then.
    fn looks_without(&mut self, now: Instant) -> bool {
        let due = if self.without.is_empty() { self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK) } else { !self.turn };
        self.turn = due;
        if due {
            self.looked = Some(now);
        }
        due
    }

    /// Whether a shared message goes to the name alone: as many as it has of the pods, spread evenly.
    fn sends_without(&mut self) -> bool {
        let all = self.with.len() + self.without.len();
        if self.without.is_empty() {
            return false;
        }
        self.owed += self.without.len();
        let due = self.owed >= all;
        if due {
            self.owed -= all;
        }
        due
    }
}

impl BothAddresses {
    /// Over this channel.
    #[must_use]
    pub fn new(inner: Arc<dyn ControlSender>) -> Self {
        Self { inner, heard: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ControlAddress, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, address: &ControlAddress, ask: impl FnOnce(&mut Heard) -> T) -> T {
        ask(self.lock().entry(address.clone()).or_default())
    }
}

#[async_trait]
impl ControlSender for BothAddresses {
    async fn declare(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        self.inner.declare(address).await
    }

    async fn publish(&self, address: &ControlAddress, message: &ControlMessage) -> Result<(), BrokerError> {
        let without = self.with(address, |heard| match &message.target {
            Some(pod) => heard.without.contains_key(pod),
            None => heard.sends_without(),
        });
        if without { self.inner.publish(&address.without_uid(), message).await } else { self.inner.publish(address, message).await }
    }

    async fn purge(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        if self.with(address, |heard| !heard.without.is_empty()) {
            self.inner.purge(&address.without_uid()).await?;
        }
        self.inner.purge(address).await
    }

    /// One call reads one address, so that nothing is lost when it is cut off.
    async fn reports(&self, address: &ControlAddress, max: usize) -> Result<Reports, BrokerError> {
        let Some(uid) = &address.uid else { return self.inner.reports(address, max).await };
        let without = self.with(address, |heard| heard.looks_without(Instant::now()));
        let reports = if without {
            let Reports { mut reports, malformed } = match self.inner.reports(&address.without_uid(), max).await {
                Ok(reports) => reports,
                // The next call, at the address that matters, tells whether the broker is away.
                Err(error) => {
                    tracing::debug!(%address, %error, "the name without a UID cannot be read");
                    return Ok(Reports::default());
                }
            };
            // A namesake of another cluster may report there.
            reports.retain(|report| !report.workload_uid.is_known() || report.workload_uid == *uid);
            Reports { reports, malformed }
        } else {
            self.inner.reports(address, max).await?
        };
        self.with(address, |heard| heard.note(&reports.reports, without, Instant::now()));
        Ok(reports)
    }

    async fn remove(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        self.lock().remove(address);
        self.inner.remove(address).await?;
        self.inner.remove(&address.without_uid()).await
    }
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;
