//! Whether the worker has a task. In: the source that the workload's configuration names. Out: samples of [`Activity`](crate::input::Activity) for the driver, each
//! taken just now. Left to others: what follows from them (`core::drain::worker`), how they are averaged (`service`).
//!
//! Every source says Unknown rather than guess: when it cannot be read, when it is old, when it does not tell this pod from another.

mod broker;
mod celery;
mod children;
mod file;
mod http;
pub mod nodes;
pub mod service;
mod start;

use crate::busy::broker::SourceEnds;
use crate::busy::nodes::Nodes;
use crate::busy::start::{Begin, Start};
use crate::config::Settings;
use crate::gaps::Gaps;
use crate::gate::freeze::{Freeze, FrozenView, Proof};
use crate::gate::{self, GateSwitch, Remote, Way};
use crate::input::Input;
use crate::input::MainReceiver;
use crate::worker::container::{self, Container};
use crate::worker::procs::ProcFs;
use crate::worker::sockets::Watched;
use qscaler_broker::BrokerError;
use qscaler_broker::activity::{BlockedPops, Bookkeeping, Whose};
use qscaler_core::framework::{Books, BusySource, CUSTOM, GateKind, framework};
use qscaler_core::message::GapReason;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tokio::sync::{mpsc, watch};

/// Work for a task of its own, for as long as the driver lives.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a source needs.
pub struct Sources {
    /// What the sidecar was told.
    pub settings: Settings,
    /// The pod's host name, as its containers see it.
    pub host: String,
    /// Where processes are looked up.
    pub procs: ProcFs,
    /// The worker.
    pub main: MainReceiver,
    /// The driver.
    pub inputs: mpsc::Sender<Input>,
    /// Where a source says that it cannot tell.
    pub gaps: Gaps,
}

impl Sources {
    /// The gate where the framework has one, and the work that the source and the gate need.
    #[must_use]
    pub fn start(self) -> (Option<GateSwitch>, Vec<Work>) {
        let Self { settings, host, procs, main, inputs, gaps } = self;
        match settings.config.busy.clone() {
            BusySource::CeleryEvents => {
                let (nodes, known) = watch::channel(Nodes::default());
                let url = settings.broker.as_str().to_owned();
                let prefix = settings.config.key_names.prefix(framework(&settings.config.worker).and_then(|f| f.prefix));
                let remote = |name: String| Remote::new(url.clone(), name, prefix.clone());
                let way = gate::CeleryGate::new(remote(settings.pod_uid.clone()), settings.config.queues.clone(), known, procs.clone(), main.clone());
                let (switch, view, gate) = gate::gate(Way::Remote(way), inputs.clone());
                // A caller of its own: its replies must not mix with the gate's.
                let remote = remote(format!("{}-quiet", settings.pod_uid));
                let start = Start::new(procs.clone(), settings.broker.as_str());
                let source = celery::CelerySource { url, name: settings.pod_uid, host, procs, main, inputs, nodes, gate: view, remote, gaps, start };
                (Some(switch), vec![Box::pin(gate.run()), Box::pin(source.run())])
            }
            BusySource::Children => {
                let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
                let container = Container::new(procs.clone(), own_pid, settings.broker.as_str());
                let workers = children::Workers {
                    procs,
                    container,
                    framework: settings.config.worker.clone(),
                    signals: settings.config.signals.clone(),
                    begin: Begin::default(),
                };
                (None, vec![Box::pin(children::run(workers, main, inputs))])
            }
            BusySource::Http { port, path } => (None, vec![Box::pin(http::run(port, path, main, inputs))]),
            BusySource::File { path } => (None, vec![Box::pin(file::run(procs, path, main, inputs))]),
            BusySource::Broker => {
                let config = &settings.config;
                let whose = Whose { framework: framework(&config.worker).unwrap_or(&CUSTOM), names: &config.key_names, queues: &config.queues };
                let open = || Bookkeeping::open(settings.broker.as_str(), &whose, &host, settings.pod_ip);
                let Some(books) = known(open(), "busy: broker", &gaps) else { return (None, Vec::new()) };
                let proof = freezes(&settings).then(open).and_then(Result::ok).flatten().map(Proof::Books);
                let (switch, frozen, mut work) = freeze(proof, &procs, &main, &inputs, &gaps);
                let start = Start::new(procs, settings.broker.as_str());
                let ends = SourceEnds { main, inputs, gaps, mend: mend_books(&settings, &host), start };
                work.push(Box::pin(broker::books(books, frozen, ends)));
                (switch, work)
            }
            BusySource::BlockedPop => {
                let concurrency = settings.config.concurrency;
                let config = &settings.config;
                let most = Arc::new(AtomicUsize::new(0));
                let whose = Whose { framework: framework(&config.worker).unwrap_or(&CUSTOM), names: &config.key_names, queues: &config.queues };
                let open = || BlockedPops::open(settings.broker.as_str(), &whose);
                let Some(pops) = known(open(), "busy: blocked-pop", &gaps) else { return (None, Vec::new()) };
                let proof = freezes(&settings).then(open).and_then(Result::ok).flatten().map(|pops| Proof::Pops {
                    pops,
                    concurrency,
                    most: Arc::clone(&most),
                });
                let (switch, frozen, mut work) = freeze(proof, &procs, &main, &inputs, &gaps);
                let mend = "none of the worker's connections is found at its broker: with a proxy between them busy and idle cannot be told; say where they \
                    can with the annotation busy";
                let start = Start::new(procs.clone(), settings.broker.as_str());
                let ends = SourceEnds { main, inputs, gaps, mend: mend.to_owned(), start };
                let broker_ports = container::ports(settings.broker.as_str());
                let at_least = broker::waits_at_least(whose.framework, concurrency);
                work.push(Box::pin(broker::pops(
                    broker::Pops { pops, at_least, most, frozen, connections: Watched::new(procs), broker_ports },
                    ends,
                )));
                (switch, work)
            }
            BusySource::Unknown => {
                let words = format!(
                    "nothing tells whether this {} worker has a task, so that it never parks while it is idle; say where that is seen with the annotation busy",
                    settings.config.worker
                );
                gaps.set(GapReason::IdleUnknown, words);
                (None, Vec::new())
            }
        }
    }
}

/// Whether the worker is stopped by freezing it: its framework knows no better way, and the user none either.
fn freezes(settings: &Settings) -> bool {
    let config = &settings.config;
    config.share_processes && config.signals.is_empty() && framework(&config.worker).is_some_and(|row| row.gate == GateKind::Freeze)
}

/// The freeze gate where there is a proof to close it by, and what the busy source asks whether it is closed.
fn freeze(
    proof: Option<Proof>,
    procs: &ProcFs,
    main: &MainReceiver,
    inputs: &mpsc::Sender<Input>,
    gaps: &Gaps,
) -> (Option<GateSwitch>, FrozenView, Vec<Work>) {
    let (frozen, view) = watch::channel(None);
    let Some(proof) = proof else { return (None, FrozenView::new(view, main.clone()), Vec::new()) };
    let way = Way::Freeze(Box::new(Freeze::new(proof, procs.clone(), main.clone(), frozen, gaps.clone())));
    let (switch, _, gate) = gate::gate(way, inputs.clone());
    (Some(switch), FrozenView::new(view, main.clone()), vec![Box::pin(gate.run())])
}

/// What to do where the books never name this pod.
fn mend_books(settings: &Settings, host: &str) -> String {
    match framework(&settings.config.worker).map(|framework| framework.books) {
        Some(Books::Processes(_)) => format!(
            "{} writes down no worker of the host {host:?} at this broker, so that busy and idle cannot be told: check the annotations broker and key-prefix",
            settings.config.worker
        ),
        _ => "the broker does not tell what this pod's connections hold, so that busy and idle cannot be told: its user needs the tag monitoring, and messages have to be acknowledged by hand".to_owned(),
    }
}

/// A source at the broker, or a gap since there is none.
fn known<T>(opened: Result<Option<T>, BrokerError>, source: &str, gaps: &Gaps) -> Option<T> {
    if !matches!(opened, Ok(Some(_))) {
        let words = format!("{source}: this broker and worker do not tell busy from idle; say where that is seen with the annotation busy");
        gaps.set(GapReason::IdleUnknown, words);
    }
    match opened {
        Ok(Some(source)) => Some(source),
        Ok(None) => {
            tracing::warn!(source, "this broker and worker do not tell busy from idle: tokens are taken by patience alone");
            None
        }
        Err(error) => {
            tracing::warn!(%error, source, "this source of busy or idle cannot be opened");
            None
        }
    }
}
