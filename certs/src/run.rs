//! The process: read, plan, apply, until nothing is due; again every few seconds. In: checked arguments. Out: certificates in place, gauges of
//! their end. Left to others: each part's work.

use crate::args::Args;
use crate::issue::{IssueError, service_names};
use crate::metrics::Metrics;
use crate::plan::{StoredKey, expiries, plan};
use crate::store::{Store, StoreError};
use anyhow::Context;
use kube::Client;
use qscaler_core::names::{CONTROL_KEY_PRIVATE, CONTROL_KEY_SECRET};
use qscaler_runtime::backoff::Backoff;
use qscaler_runtime::metrics::Registry;
use qscaler_runtime::ready::Readiness;
use qscaler_runtime::{CancellationToken, admin, listen, shutdown};
use std::time::Duration;
use time::OffsetDateTime;

/// How often everything is looked at: four small reads, and a bundle that an upgrade has cleared is back this soon.
const INTERVAL: Duration = Duration::from_secs(10);
/// Steps of one pass: a first install takes four, an emergency five; more would be two writers undoing each other.
const STEPS_MAX: usize = 12;

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The API server.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A certificate.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// It never ends.
    #[error("still not settled after {STEPS_MAX} steps: is there another writer of the Secrets or of the bundle?")]
    Unsettled,
}

/// Does everything that is due at this time.
///
/// # Errors
/// When the API server refuses, or it never settles.
pub async fn pass(store: &Store, names: &[String], now: OffsetDateTime, metrics: &Metrics) -> Result<(), PassError> {
    for _ in 0..STEPS_MAX {
        let snapshot = store.read().await?;
        let (leaf, authority) = expiries(&snapshot.state);
        metrics.leaf.set(leaf.unwrap_or(0.0));
        metrics.authority.set(authority.unwrap_or(0.0));
        if matches!(snapshot.state.control, Some(StoredKey::Unreadable)) {
            tracing::error!(
                "Secret {CONTROL_KEY_SECRET} has no Ed25519 key in {CONTROL_KEY_PRIVATE}: control messages are not signed; put the key back, or delete the Secret, which makes \
                 a new one that pods made before do not know"
            );
        }
        let Some(planned) = plan(&snapshot.state, names, now)? else { return Ok(()) };
        match store.apply(&snapshot, &planned.step).await {
            Ok(()) => {
                metrics.steps.inc();
                tracing::info!(reason = planned.reason, "certificates changed");
            }
            // Another replica did it, or something else: the next round sees.
            Err(error @ StoreError::Conflict(_)) => tracing::info!(%error, "reading again"),
            Err(error) => return Err(error.into()),
        }
    }
    Err(PassError::Unsettled)
}

/// Runs until the first signal, or once.
///
/// # Errors
/// When a port cannot be bound, there is no API server to talk to, or (once) the pass fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let names = service_names(&args.service, &args.namespace);
    let metrics = Metrics::new(Registry::default());
    let client = Client::try_default().await.context("finding the API server")?;
    let store = Store::new(client, &args.namespace);
    if args.once {
        return pass(&store, &names, OffsetDateTime::now_utc(), &metrics).await.context("keeping certificates");
    }
    let shutdown = shutdown::on_signals().context("installing signal handlers")?;
    let listener = listen::bind(args.admin_address).await.with_context(|| format!("listening on {}", args.admin_address))?;
    let readiness = Readiness::default();
    let first = readiness.handle("certificates");
    let texts = metrics.clone();
    let admin = tokio::spawn(admin::serve(listener, admin::Admin::new(readiness).metrics(move || texts.text()), shutdown.clone()));
    keep(&store, &names, &metrics, first, &shutdown).await;
    admin.await.context("the admin endpoints did not end cleanly")
}

async fn keep(store: &Store, names: &[String], metrics: &Metrics, first: qscaler_runtime::ready::Handle, shutdown: &CancellationToken) {
    let mut first = Some(first);
    let mut backoff = Backoff::reconnect();
    loop {
        let go_on = match pass(store, names, OffsetDateTime::now_utc(), metrics).await {
            Ok(()) => {
                drop(first.take());
                backoff.reset();
                tokio::select! {
                    () = shutdown.cancelled() => false,
                    () = tokio::time::sleep(INTERVAL) => true,
                }
            }
            Err(error) => {
                metrics.errors.inc();
                tracing::warn!(error = &error as &dyn std::error::Error, "certificates could not be kept, trying again");
                backoff.wait(shutdown).await
            }
        };
        if !go_on {
            return;
        }
    }
}
