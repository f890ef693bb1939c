//! What a run of the matrix stands on. In: the stand. Out: fleets of the rows, held at their full number, and looks at their runs. Left to others: rounds.

use super::now;
use super::observe::Observer;
use super::rows::{self, Row};
use super::system::System;
use crate::stand::Stand;
use crate::stand::fleet::{DEPLOYMENT, Fleet, Task};
use crate::stand::ledger::Entry;
use anyhow::Result;
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Pods of each fleet: enough for a wave of two steps, few enough for many fleets on one machine.
pub const PODS: u32 = 3;
/// Fleets that are made at once: their pods start on two cores.
const MADE_AT_ONCE: usize = 3;

/// The cluster, seen by the matrix.
pub struct Lab {
    /// Brokers and ledger.
    pub stand: &'static Stand,
    /// A client of this run's own.
    pub client: kube::Client,
    /// The workers' pods.
    pub observer: Observer,
    /// QScaler's own parts.
    pub system: System,
}

/// A row's fleet.
pub struct Subject {
    /// Its row.
    pub row: Row,
    /// Its fleet.
    pub fleet: Fleet,
    /// Seconds that each task sent works, by name.
    lengths: Mutex<BTreeMap<String, f64>>,
}

/// One run of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The task.
    pub task: String,
    /// The pod.
    pub host: String,
    /// When it began, seconds since the Unix epoch.
    pub start: f64,
    /// When it ended; None: it has not.
    pub done: Option<f64>,
}

impl Run {
    /// It had begun before `from`, and at `to` it was not over.
    #[must_use]
    pub fn covers(&self, from: f64, to: f64) -> bool {
        self.start <= from && self.done.is_none_or(|done| done >= to)
    }
}

impl Lab {
    /// Begins to watch.
    ///
    /// # Errors
    /// The environment is not that of a cluster test.
    pub async fn open() -> Result<Self> {
        let stand = Stand::get().await?;
        let client = stand.client().await?;
        let observer = Observer::start(client.clone(), &format!("app={DEPLOYMENT}"));
        Ok(Self { stand, system: System::new(client.clone()), client, observer })
    }

    /// Makes a managed fleet for each of these names, a few at a time.
    ///
    /// # Errors
    /// One does not come up.
    pub async fn fleets(&self, wanted: Vec<(String, Row)>) -> Result<Vec<Subject>> {
        let made = wanted.into_iter().map(|(name, row)| async move {
            let fleet = Fleet::create(self.stand, rows::managed(row, &name, PODS)).await?;
            Ok(Subject::new(row, fleet))
        });
        stream::iter(made).buffered(MADE_AT_ONCE).try_collect().await
    }
}

impl Subject {
    /// A fleet to which nothing was sent yet.
    #[must_use]
    pub fn new(row: Row, fleet: Fleet) -> Self {
        Self { row, fleet, lengths: Mutex::default() }
    }

    /// Sends tasks and remembers how long each works.
    ///
    /// # Errors
    /// The client fails.
    pub async fn send(&self, plan: &[Task]) -> Result<()> {
        {
            let mut lengths = self.lengths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            lengths.extend(plan.iter().map(|task| (task.task.clone(), task.seconds)));
        }
        self.fleet.send(plan).await
    }

    /// Runs of the tasks with this prefix, and how many of these tasks were sent.
    ///
    /// # Errors
    /// The ledger does not answer.
    pub async fn runs(&self, prefix: &str) -> Result<(usize, Vec<Run>)> {
        let entries = self.fleet.ledger().await?;
        Ok(runs_of(&entries, prefix))
    }

    /// Runs in progress that go on for at least this many seconds more.
    ///
    /// # Errors
    /// The ledger does not answer.
    pub async fn running(&self, prefix: &str, seconds: f64) -> Result<Vec<Run>> {
        let (_, runs) = self.runs(prefix).await?;
        let lengths = self.lengths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let left = |run: &Run| run.start + lengths.get(&run.task).copied().unwrap_or(0.0) - now();
        Ok(runs.into_iter().filter(|run| run.done.is_none() && left(run) >= seconds).collect())
    }
}

/// Runs in a ledger, by run id, of the tasks with this prefix; and how many of these tasks were sent.
#[must_use]
pub fn runs_of(entries: &[Entry], prefix: &str) -> (usize, Vec<Run>) {
    let mut runs: BTreeMap<&str, Run> = BTreeMap::new();
    let mut sent = 0;
    for entry in entries.iter().filter(|e| e.task.starts_with(prefix)) {
        match entry.event.as_str() {
            "sent" => sent += 1,
            "start" => {
                runs.insert(&entry.run, Run { task: entry.task.clone(), host: entry.host.clone(), start: entry.at, done: None });
            }
            "done" => {
                if let Some(run) = runs.get_mut(entry.run.as_str()) {
                    run.done = Some(entry.at);
                }
            }
            _ => {}
        }
    }
    (sent, runs.into_values().collect())
}
