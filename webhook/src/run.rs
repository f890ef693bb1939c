//! The process: parts put together, started, and ended in order. In: checked arguments. Out: a served port until the shutdown. Left to others: each
//! part's work.
//!
//! The end: readiness fails first; calls are served for a few seconds more while the Service forgets this pod, each asking for its connection to
//! be closed; then the port closes and open calls end. So a rolling update loses no call.

use crate::args::Args;
use crate::decide::Decider;
use crate::dial;
use crate::memory;
use crate::metrics::Metrics;
use crate::server;
use crate::tls::{self, Loader, Served};
use crate::world::World;
use anyhow::Context;
use kube::Client;
use qscaler_core::names::MANAGER;
use qscaler_runtime::metrics::Registry;
use qscaler_runtime::ready::Readiness;
use qscaler_runtime::{CancellationToken, admin, listen, shutdown};
use std::sync::Arc;
use std::time::Duration;

/// Runs until the first signal, and drains.
///
/// # Errors
/// When a port cannot be bound or there is no API server to talk to.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.settings()?;
    let shutdown = shutdown::on_signals().context("installing signal handlers")?;
    let mut kubeconfig = kube::Config::infer().await.context("finding the API server")?;
    kubeconfig.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(concat!("qscaler-webhook/", env!("CARGO_PKG_VERSION")))));
    let client = Client::try_from(kubeconfig).context("making a client of the API server")?;
    let readiness = Readiness::default();
    let metrics = Metrics::new(Registry::default());
    let world = Arc::new(World::new(Some(client.clone())));
    world.control_keys.also(&args.control_keys);
    let served = Arc::new(Served::default());

    let listener = listen::bind(args.listen).await.with_context(|| format!("listening on {}", args.listen))?;
    let reached = listener.local_addr().context("the port that was bound")?;
    let admin_listener = listen::bind(args.admin_address).await.with_context(|| format!("listening on {}", args.admin_address))?;
    tracing::info!(listen = %args.listen, admin = %args.admin_address, namespace = args.namespace, manager = MANAGER, "starting");

    // Ends after the drain, so that probes are answered until the last moment.
    let end = CancellationToken::new();
    let texts = metrics.clone();
    let admin = admin::Admin::new(readiness.clone()).metrics(move || texts.text());
    let admin = tokio::spawn(admin::serve(admin_listener, admin, end.clone()));
    let decider = Decider { world: Arc::clone(&world), settings: Arc::new(settings), own_namespace: args.namespace.as_str().into() };
    let router = server::router(decider, metrics.clone(), shutdown.clone());
    let server =
        tokio::spawn(server::serve(listener, served.config().context("TLS")?, router, metrics.clone(), server::CONNECTIONS_MAX, end.clone()));
    let watching = {
        let (end, readiness) = (end.clone(), readiness.clone());
        let (client, world) = (client.clone(), Arc::clone(&world));
        tokio::spawn(async move { world.follow(client, &readiness, end).await })
    };
    let trust = tokio::spawn(dial::follow(client.clone(), reached, readiness.clone(), metrics.clone(), end.clone()));
    let memory = tokio::spawn(memory::follow(end.clone()));
    let loader = Loader::new(served, metrics, readiness.clone()).telling(Arc::clone(&world));
    let certificates = match (args.tls_cert, args.tls_key) {
        (Some(cert), Some(key)) => tokio::spawn(tls::follow_files(cert, key, tls::FILES_POLL, loader, end.clone())),
        _ => {
            let (namespace, end) = (args.namespace, end.clone());
            tokio::spawn(async move { tls::follow_secret(client, &namespace, loader, end).await })
        }
    };

    shutdown.cancelled().await;
    readiness.drain();
    tokio::time::sleep(Duration::from_secs(args.drain_seconds)).await;
    end.cancel();
    let parts = [("server", server), ("admin", admin), ("watches", watching), ("trust", trust), ("memory", memory), ("certificates", certificates)];
    for (part, task) in parts {
        task.await.with_context(|| format!("{part} did not end cleanly"))?;
    }
    Ok(())
}
