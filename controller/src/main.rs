//! `qscaler-controller`: parses arguments, builds the parts and runs them; everything else is in the library.

use anyhow::Context;
use clap::Parser;
use kube::client::ClientBuilder;
use kube::{Api, Client};
use qscaler_broker::signing::Signer;
use qscaler_controller::args::Args;
use qscaler_controller::lead::control_key;
use qscaler_controller::lead::definition;
use qscaler_controller::lead::lease::{self, Leadership};
use qscaler_controller::lead::run::{self, INPUTS_MAX, Parts};
use qscaler_controller::lead::uninstall::{self, CleanUp};
use qscaler_controller::observe::brokers::{Brokers, Opener};
use qscaler_controller::observe::index::Index;
use qscaler_controller::observe::watch::{self, SharedIndex};
use qscaler_controller::show::fleet::SharedFleet;
use qscaler_controller::show::metrics::Metrics;
use qscaler_controller::show::page::Page;
use qscaler_runtime::admin::{self, Admin};
use qscaler_runtime::ready::Readiness;
use qscaler_runtime::{CancellationToken, listen, log, serve, shutdown};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    log::init(args.log_format, &args.log_filter)?;
    // An error means that a provider is installed already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if args.after_uninstall {
        let client = Client::try_default().await.context("reading the cluster's configuration")?;
        match uninstall::clean_up(&client, &args.namespace, &args.identity).await? {
            CleanUp::Done { pods } => tracing::info!(pods, "what was left has been taken back"),
            CleanUp::StillInstalled => tracing::warn!(namespace = args.namespace, "the release is installed: nothing was done"),
        }
        return Ok(());
    }
    let stop = shutdown::on_signals().context("installing signal handlers")?;
    let listener = listen::bind(args.admin_address).await.with_context(|| format!("listening on {}", args.admin_address))?;
    let fleet = if args.page_address.is_some() { SharedFleet::for_page() } else { SharedFleet::default() };
    let (metrics, readiness) = (Metrics::default(), Readiness::default());
    let config = kube::Config::infer().await.context("reading the cluster's configuration")?;
    let client = ClientBuilder::try_from(config).context("making a client of the API server")?.with_layer(&metrics.calls.of_api()).build();

    let (texts, known) = (metrics.clone(), fleet.clone());
    let admin = Admin::new(readiness.clone()).metrics(move || texts.text()).decisions(move || known.lock().decisions());
    // The endpoints outlive the work, so that the end can be watched.
    let endpoints_stop = CancellationToken::new();
    let endpoints = tokio::spawn(admin::serve(listener, admin, endpoints_stop.clone()));
    if let Some(address) = args.page_address {
        let listener = listen::bind(address).await.with_context(|| format!("listening on {address} for the page"))?;
        let page = Page::new(fleet.clone(), readiness.clone());
        tokio::spawn(serve::serve(listener, move |request| page.answer(request), endpoints_stop.clone()));
    }

    if !definition::fits(&client, &readiness, &stop).await {
        endpoints_stop.cancel();
        return endpoints.await.context("closing the admin endpoints");
    }
    let (sender, inputs) = mpsc::channel(INPUTS_MAX);
    let index = SharedIndex::new(Index::default().with_sidecar(args.sidecar()).with_webhook(&args.namespace));
    watch::start(&client, &index, &sender, &readiness, &stop);
    // The Lease is given back only after the last write.
    let lease_stop = CancellationToken::new();
    let (leadership, lease) = if args.leader_elect {
        let (leadership, task) = lease::run(Api::namespaced(client.clone(), &args.namespace), args.identity.clone(), lease_stop.clone());
        (leadership, Some(task))
    } else {
        (Leadership::always(), None)
    };
    let signer = Signer::default();
    control_key::start(Api::namespaced(client.clone(), &args.namespace), signer.clone(), metrics.clone(), stop.clone()).await;
    // An eviction that is refused is not to be made by itself later on: the proof that its pod is idle would be old by then.
    let mut once = kube::Config::infer().await.context("reading the cluster's configuration")?;
    once.default_retry = false;
    let parts = Parts {
        evictions: Client::try_from(once).context("a client for evictions")?,
        client,
        index,
        brokers: Brokers::new(metrics.calls.of_brokers(Opener::limited(args.broker_hosts, signer.clone())), sender.clone()),
        sender,
        inputs,
        leadership,
        metrics,
        fleet,
        signer,
        instance: args.identity,
        readiness: readiness.clone(),
        sidecar_image: args.sidecar_image,
    };
    run::run(parts, stop).await;
    readiness.drain();
    lease_stop.cancel();
    if let Some(lease) = lease {
        lease.await.context("giving the Lease back")?;
    }
    endpoints_stop.cancel();
    endpoints.await.context("closing the admin endpoints")?;
    Ok(())
}
