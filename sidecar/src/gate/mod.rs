//! The gate: keeping a worker from taking tasks, Celery by its own remote control, plain workers by freezing them (`freeze`). In: close or open, from
//! the driver. Out: `GateClosed` and `GateOpened`, each only once that is so. Left to others: when (`core::drain::worker`), the wire
//! (`broker::activity`).
//!
//! Of Celery, closed means: the worker's own list of the queues that it consumes is empty. What it had prefetched still runs; [`Remote::is_quiet`] tells
//! when that is over too.

pub mod freeze;

use crate::busy::nodes::Nodes;
use crate::gate::freeze::Freeze;
use crate::input::{Input, MainReceiver};
use crate::worker::procs::ProcFs;
use qscaler_broker::BrokerError;
use qscaler_broker::activity::CeleryRemote;
use qscaler_core::drain::worker::WorkerEvent;
use qscaler_runtime::backoff::Backoff;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A worker answers its remote control within milliseconds, or (solo pool) between two tasks; then the gate is tried again.
const REPLY_WAIT: Duration = Duration::from_secs(2);
/// Between two looks at a Celery worker that has not carried out yet what it was told, or is not known yet.
const AGAIN: Duration = Duration::from_millis(250);

/// A wish, with its number: the same wish for a new worker process is another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    number: u64,
    closed: bool,
}

/// The driver's end.
pub struct GateSwitch {
    wish: watch::Sender<Wish>,
}

impl GateSwitch {
    /// Leaves the wish; the gate's task carries it out.
    pub fn switch(&self, closed: bool) {
        self.wish.send_modify(|wish| *wish = Wish { number: wish.number + 1, closed });
    }
}

/// Whether the gate is meant to be closed now: then idle has to be proved (`busy::celery`).
#[derive(Clone)]
pub struct GateView {
    wish: watch::Receiver<Wish>,
}

impl GateView {
    /// See [`GateView`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.wish.borrow().closed
    }
}

/// The task that carries wishes out.
pub struct Gate {
    wish: watch::Receiver<Wish>,
    way: Way,
    inputs: mpsc::Sender<Input>,
}

/// How a gate moves.
pub enum Way {
    /// Celery's remote control.
    Remote(CeleryGate),
    /// Stopping the processes.
    Freeze(Box<Freeze>),
}

impl Way {
    /// True: it is closed. False: not yet, to be tried again soon.
    async fn close(&mut self) -> Result<bool, BrokerError> {
        match self {
            Self::Remote(celery) => celery.close().await,
            Self::Freeze(freeze) => freeze.close().await,
        }
    }

    fn again(&self) -> Duration {
        match self {
            Self::Remote(_) => AGAIN,
            Self::Freeze(freeze) => freeze.again(),
        }
    }

    async fn open(&mut self) -> Result<bool, BrokerError> {
        match self {
            Self::Remote(celery) => celery.open().await,
            Self::Freeze(freeze) => Ok(freeze.open()),
        }
    }
}

/// Celery's queues, cancelled and added.
pub struct CeleryGate {
    remote: Remote,
    /// Queues to go back to when the worker's own answer was not kept (this sidecar was restarted meanwhile).
    queues: Vec<String>,
    nodes: watch::Receiver<Nodes>,
    procs: ProcFs,
    main: MainReceiver,
    /// By node: what `add_consumer` needs to go back.
    cancelled: BTreeMap<String, Vec<Value>>,
}

/// A new gate, open.
#[must_use]
pub fn gate(way: Way, inputs: mpsc::Sender<Input>) -> (GateSwitch, GateView, Gate) {
    let (sender, wish) = watch::channel(Wish::default());
    let view = GateView { wish: wish.clone() };
    (GateSwitch { wish: sender }, view, Gate { wish, way, inputs })
}

/// Remote control that connects when it is needed, and anew after a failure.
pub struct Remote {
    url: String,
    name: String,
    /// kombu's `global_keyprefix`.
    prefix: String,
    connection: Option<CeleryRemote>,
}

impl Remote {
    /// Not connected yet.
    #[must_use]
    pub fn new(url: String, name: String, prefix: String) -> Self {
        Self { url, name, prefix, connection: None }
    }

    /// Lets the connection go: a gate moves rarely, and a broker's connections are many pods'.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    async fn connected(&mut self) -> Result<&mut CeleryRemote, BrokerError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => CeleryRemote::connect(&self.url, &self.name, &self.prefix).await?,
        };
        Ok(self.connection.insert(connection))
    }

    async fn call(&mut self, method: &str, arguments: Value, nodes: &[String]) -> Result<BTreeMap<String, Value>, BrokerError> {
        let connection = self.connected().await?;
        let result = connection.call(method, arguments, nodes, REPLY_WAIT).await;
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    /// The nodes on this host that answer.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn nodes_on(&mut self, host: &str) -> Result<Vec<String>, BrokerError> {
        let connection = self.connected().await?;
        let result = connection.nodes_on(host, REPLY_WAIT).await;
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    /// How many tasks each of these nodes runs; those that do not answer are left out.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn active(&mut self, nodes: &[String]) -> Result<BTreeMap<String, u32>, BrokerError> {
        let replies = self.call("active", json!({}), nodes).await?;
        let count = |tasks: &Value| tasks.as_array().map(|tasks| u32::try_from(tasks.len()).unwrap_or(u32::MAX));
        Ok(replies.iter().filter_map(|(node, tasks)| Some((node.clone(), count(tasks)?))).collect())
    }

    /// Whether these nodes run nothing and hold nothing that they would still run. None: not all have answered.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn is_quiet(&mut self, nodes: &[String]) -> Result<Option<bool>, BrokerError> {
        for method in ["active", "reserved"] {
            let replies = self.call(method, json!({}), nodes).await?;
            if replies.values().any(|tasks| tasks.as_array().is_some_and(|tasks| !tasks.is_empty())) {
                return Ok(Some(false));
            }
            if nodes.iter().any(|node| !replies.get(node).is_some_and(Value::is_array)) {
                return Ok(None);
            }
        }
        Ok(Some(true))
    }
}

impl Gate {
    /// Runs until the driver is gone.
    pub async fn run(mut self) {
        let mut backoff = Backoff::reconnect();
        loop {
            if self.wish.changed().await.is_err() {
                return;
            }
            let wish = *self.wish.borrow_and_update();
            backoff.reset();
            let mut said = false;
            while self.wish.borrow().number == wish.number {
                let pause = match if wish.closed { self.way.close().await } else { self.way.open().await } {
                    Ok(true) => {
                        let event = if wish.closed { WorkerEvent::GateClosed } else { WorkerEvent::GateOpened };
                        tracing::info!(closed = wish.closed, "the gate has moved");
                        if self.inputs.send(Input::Worker(event)).await.is_err() {
                            return;
                        }
                        break;
                    }
                    Ok(false) => self.way.again(),
                    Err(error) => {
                        // Once for each wish: a pod whose gate cannot close stays for its grace, and the reason is here alone.
                        if std::mem::replace(&mut said, true) {
                            tracing::debug!(%error, "the gate does not move yet");
                        } else {
                            tracing::warn!(%error, closed = wish.closed, "the gate does not move yet; it is tried again");
                        }
                        backoff.next_delay()
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    changed = self.wish.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        self.wish.mark_changed();
                        break;
                    }
                }
            }
        }
    }
}

impl CeleryGate {
    /// `nodes` are the pod's, as they become known.
    #[must_use]
    pub fn new(remote: Remote, queues: Vec<String>, nodes: watch::Receiver<Nodes>, procs: ProcFs, main: MainReceiver) -> Self {
        Self { remote, queues, nodes, procs, main, cancelled: BTreeMap::new() }
    }

    /// The queues that each node consumes now. None: not every node has answered, or none is known yet.
    async fn consumed(&mut self) -> Result<Option<BTreeMap<String, Vec<Value>>>, BrokerError> {
        let nodes = self.nodes.borrow().names();
        if nodes.is_empty() {
            return Ok(None);
        }
        let replies = self.remote.call("active_queues", json!({}), &nodes).await?;
        let queues: BTreeMap<_, _> = replies.into_iter().filter_map(|(node, queues)| Some((node, queues.as_array()?.clone()))).collect();
        Ok(nodes.iter().all(|node| queues.contains_key(node)).then_some(queues))
    }

    /// What a worker that consumes nothing now goes back to: the queues of its command line, else those of the annotation.
    fn own_queues(&self) -> Vec<String> {
        let top = self.main.borrow().as_ref().map(|main| main.pid);
        let family = top.and_then(|top| Some(crate::worker::find::family(&self.procs.processes().ok()?, top))).unwrap_or_default();
        let lines = family.into_iter().filter_map(|process| self.procs.command_line(process.pid));
        lines.map(|words| named_queues(&words)).find(|queues| !queues.is_empty()).unwrap_or_else(|| self.queues.clone())
    }

    async fn close(&mut self) -> Result<bool, BrokerError> {
        let Some(consumed) = self.consumed().await? else { return Ok(false) };
        let mut closed = true;
        for (node, queues) in consumed.into_iter().filter(|(_, queues)| !queues.is_empty()) {
            closed = false;
            for queue in &queues {
                self.remote.call("cancel_consumer", json!({"queue": queue["name"]}), std::slice::from_ref(&node)).await?;
                let kept = self.cancelled.entry(node.clone()).or_default();
                if !kept.iter().any(|known| known["name"] == queue["name"]) {
                    kept.push(consumer_of(queue));
                }
            }
        }
        if closed {
            self.remote.disconnect();
        }
        Ok(closed)
    }

    async fn open(&mut self) -> Result<bool, BrokerError> {
        let Some(consumed) = self.consumed().await? else { return Ok(false) };
        let mut open = true;
        for (node, queues) in &consumed {
            let missing: Vec<Value> = match self.cancelled.get(node) {
                Some(kept) => kept.iter().filter(|kept| !queues.iter().any(|queue| queue["name"] == kept["name"])).cloned().collect(),
                // A worker that consumes nothing was closed by a sidecar that is gone.
                None if queues.is_empty() => self.own_queues().into_iter().map(|queue| json!({"name": queue})).collect(),
                None => Vec::new(),
            };
            for queue in missing {
                open = false;
                let mut arguments = queue;
                if let Some(map) = arguments.as_object_mut()
                    && let Some(name) = map.remove("name")
                {
                    map.insert("queue".to_owned(), name);
                }
                self.remote.call("add_consumer", arguments, std::slice::from_ref(node)).await?;
            }
        }
        if open {
            self.remote.disconnect();
            self.cancelled.clear();
        }
        Ok(open)
    }
}

/// The queues that a worker's command line names (`-Q a,b`).
fn named_queues(words: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let list = match word.split_once('=') {
            Some(("--queues", list)) => Some(list),
            _ if word == "-Q" || word == "--queues" => words.get(at + 1).map(String::as_str),
            _ => word.strip_prefix("-Q").filter(|list| !list.is_empty()),
        };
        found.extend(list.into_iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
    }
    found
}

/// Of a queue as a worker describes it, what `add_consumer` takes.
fn consumer_of(queue: &Value) -> Value {
    json!({
        "name": queue["name"], "exchange": queue["exchange"]["name"], "exchange_type": queue["exchange"]["type"], "routing_key": queue["routing_key"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Main;
    use crate::testing::FakeProc;
    use std::sync::Arc;

    fn celery(procs: ProcFs, main: Option<Arc<Main>>) -> CeleryGate {
        let ((_, nodes), (_, main)) = (watch::channel(Nodes::default()), watch::channel(main));
        CeleryGate::new(Remote::new(String::new(), String::new(), String::new()), vec!["annotated".to_owned()], nodes, procs, main)
    }

    #[test]
    fn a_worker_that_was_closed_by_a_sidecar_that_is_gone_goes_back_to_the_queues_of_its_command_line() {
        let fake = FakeProc::new();
        fake.add(7, 0, "sh", 100, None, "/a");
        fake.add(8, 7, "celery", 101, None, "/a");
        let pid = rustix::process::getpid();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let gate = celery(fake.procs(), Some(Arc::new(Main { pid: 7, incarnation: 1, pidfd })));
        assert_eq!(gate.own_queues(), ["annotated"]);
        for line in ["celery -A a worker -Q a,b", "celery -A a worker -Qa, -Q b", "celery --queues=a,b worker", "celery worker --queues a,b -c 2"] {
            std::fs::write(fake.path(8).join("cmdline"), line.replace(' ', "\0")).unwrap();
            assert_eq!(gate.own_queues(), ["a", "b"], "{line}");
        }
    }

    #[test]
    fn a_worker_gets_back_the_queue_that_it_described() {
        let described = json!({"name": "q", "exchange": {"name": "e", "type": "topic", "durable": true}, "routing_key": "k", "no_ack": false});
        assert_eq!(consumer_of(&described), json!({"name": "q", "exchange": "e", "exchange_type": "topic", "routing_key": "k"}));
    }

    #[test]
    fn every_wish_is_a_new_one_even_if_it_says_the_same() {
        let (inputs, _receiver) = mpsc::channel(1);
        let (switch, view, gate) = gate(Way::Remote(celery(ProcFs::at("/proc"), None)), inputs);
        switch.switch(true);
        let first = *gate.wish.borrow();
        switch.switch(true);
        assert_ne!(first, *gate.wish.borrow());
        assert!(view.is_closed());
    }
}
