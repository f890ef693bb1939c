//! Leader election by one Lease. In: the Lease as read, our own clock. Out: whether we lead, and until when that is sure. Left to others: what a
//! leader does (`run`). Two clocks are never compared: a foreign Lease is over when it has not changed for its whole duration while we watched.

use crate::clock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use qscaler_core::names::LEASE;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a Lease is good for without being renewed.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// We stop to lead this long after the last renewal began: the rest of the duration covers writes under way.
const LEAD_FOR: Duration = Duration::from_secs(10);
/// How often a leader renews.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How often others look, and a leader that could not renew tries again.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// One call to the API server; two fit in between the last renewal and the end of [`LEAD_FOR`].
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// What the Lease says, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseSeen {
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// When it was renewed by the holder's clock: only compared with itself.
    pub renewed: String,
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStep {
    /// There is none: make it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// Nobody holds it any more: take it.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// The pure part.
#[derive(Clone, Debug)]
pub struct Election {
    me: String,
    seen: Option<(LeaseSeen, Duration)>,
}

impl Election {
    /// For one candidate; names must differ between candidates.
    #[must_use]
    pub fn new(me: &str) -> Self {
        Self { me: me.to_owned(), seen: None }
    }

    /// What to do about the Lease as just read; `now` is any clock that only goes forward.
    pub fn step(&mut self, lease: Option<&LeaseSeen>, now: Duration) -> LeaseStep {
        let Some(lease) = lease else {
            self.seen = None;
            return LeaseStep::Create;
        };
        if lease.holder == self.me {
            return LeaseStep::Renew;
        }
        if lease.holder.is_empty() {
            return LeaseStep::Take;
        }
        match &self.seen {
            Some((seen, since)) if seen == lease => {
                if now.saturating_sub(*since) >= LEASE_DURATION {
                    LeaseStep::Take
                } else {
                    LeaseStep::Wait
                }
            }
            _ => {
                self.seen = Some((lease.clone(), now));
                LeaseStep::Wait
            }
        }
    }
}

/// Whether we lead; clones are the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: watch::Receiver<Option<Until>>,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    Time(Instant),
    Ever,
}

impl Leadership {
    /// For a single controller that needs no election.
    #[must_use]
    pub fn always() -> Self {
        Self { until: watch::channel(Some(Until::Ever)).1 }
    }

    /// A leadership and the side that grants it.
    #[must_use]
    pub(crate) fn granted() -> (Grant, Self) {
        let (sender, until) = watch::channel(None);
        (Grant(sender), Self { until })
    }

    /// Whether we lead now.
    #[must_use]
    pub fn holds(&self) -> bool {
        match *self.until.borrow() {
            Some(Until::Ever) => true,
            Some(Until::Time(until)) => Instant::now() < until,
            None => false,
        }
    }
}

/// Grants leadership for a time.
#[derive(Debug)]
pub(crate) struct Grant(watch::Sender<Option<Until>>);

impl Grant {
    pub(crate) fn until(&self, until: Option<Instant>) {
        self.0.send_replace(until.map(Until::Time));
    }
}

/// Stands for election until the process ends, then gives the Lease back. Returns at once; the task ends with `shutdown`.
pub fn run(api: Api<Lease>, me: String, shutdown: CancellationToken) -> (Leadership, tokio::task::JoinHandle<()>) {
    let (grant, leadership) = Leadership::granted();
    let task = tokio::spawn(async move {
        let start = Instant::now();
        let mut election = Election::new(&me);
        let mut leads_until: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let round = tokio::time::timeout(CALL_TIMEOUT * 2, round(&api, &me, &mut election, began - start)).await;
            let held = match round {
                Ok(Ok(held)) => {
                    let until = held.then(|| began + LEAD_FOR);
                    if held != leads_until.is_some() {
                        tracing::info!(candidate = me, leads = held, "leader election");
                    }
                    leads_until = until;
                    held
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the Lease could not be read or written");
                    false
                }
                Err(_) => {
                    tracing::warn!("the API server did not answer about the Lease in time");
                    false
                }
            };
            leads_until = leads_until.filter(|until| Instant::now() < *until);
            grant.until(leads_until);
            let wait = if held { RENEW_EVERY } else { RETRY_EVERY };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        grant.until(None);
        if leads_until.is_some()
            && let Err(error) = release(&api, &me).await
        {
            tracing::warn!(%error, "the Lease could not be given back; it ends by itself");
        }
    });
    (leadership, task)
}

/// Reads the Lease and does what is due. True: it is ours.
async fn round(api: &Api<Lease>, me: &str, election: &mut Election, now: Duration) -> Result<bool, kube::Error> {
    let lease = api.get_opt(LEASE).await?;
    let step = election.step(lease.as_ref().map(seen).as_ref(), now);
    let written = match (step, lease) {
        (LeaseStep::Wait, _) => return Ok(false),
        (LeaseStep::Create, _) | (_, None) => {
            let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
            api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec(me, None)) }).await
        }
        (LeaseStep::Renew | LeaseStep::Take, Some(lease)) => {
            // With the version as read: of two that take it at once, one gets a conflict.
            let spec = spec(me, lease.spec.as_ref());
            api.replace(LEASE, &PostParams::default(), &Lease { metadata: lease.metadata, spec: Some(spec) }).await
        }
    };
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn release(api: &Api<Lease>, me: &str) -> Result<(), kube::Error> {
    let Some(mut lease) = api.get_opt(LEASE).await? else { return Ok(()) };
    if seen(&lease).holder != me {
        return Ok(());
    }
    if let Some(spec) = lease.spec.as_mut() {
        spec.holder_identity = Some(String::new());
    }
    api.replace(LEASE, &PostParams::default(), &lease).await.map(|_| ())
}

fn seen(lease: &Lease) -> LeaseSeen {
    let spec = lease.spec.clone().unwrap_or_default();
    LeaseSeen {
        holder: spec.holder_identity.unwrap_or_default(),
        renewed: format!("{:?}/{}", spec.renew_time, lease.metadata.resource_version.as_deref().unwrap_or_default()),
    }
}

fn spec(me: &str, old: Option<&LeaseSpec>) -> LeaseSpec {
    let now = Some(MicroTime(clock::now()));
    let ours = old.is_some_and(|o| o.holder_identity.as_deref() == Some(me));
    let transitions = old.and_then(|o| o.lease_transitions).unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        acquire_time: if ours { old.and_then(|o| o.acquire_time.clone()) } else { now.clone() },
        renew_time: now,
        lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
