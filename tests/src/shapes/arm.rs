//! One fleet in one trial. In: a fleet, with QScaler or without, and what its shape needs. Out: what became of its tasks, when an idle pod left, how many replicas were
//! asked for. Left to others: both fleets side by side (`run`), what is right (`cell`).

use super::cell::Arm;
use super::shape::{PODS, Shape};
use super::trial::Trial;
use crate::matrix::cell::Counts;
use crate::matrix::fault::Fault;
use crate::matrix::lab::{Lab, Subject};
use crate::matrix::strike::{self, Struck};
use crate::matrix::{now, round};
use crate::stand::fleet::{STEP, Task};
use crate::wait::wait_for;
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::Duration;

/// A trial whose ledger says nothing new for this long, in seconds, is over: its longest task is shorter, but for what a shape's patience adds to it.
const STILL: f64 = 60.0;
/// A pod that is idle when everything is done, and is still there so much later, is not going to leave: in seconds.
const LEAVES_WITHIN_S: f64 = 90.0;
/// Between two looks at a wave.
const LOOK: Duration = Duration::from_millis(500);
/// A task that is due later is due after this many seconds: long enough for an idle fleet to be at zero still.
const DUE_S: f64 = 15.0;
/// What waits for its time while it is held by a worker is due after this many seconds: long after everything here.
const HELD_S: f64 = 600.0;
/// A task that is due is done within this: a pod must be started, and on Sidekiq's side the next look at what is due.
const DUE_DONE: Duration = Duration::from_secs(150);

/// A fleet in its trials.
pub struct Side<'a> {
    /// The stand.
    pub lab: &'a Lab,
    /// What it is.
    pub shape: &'static Shape,
    /// The fleet.
    pub subject: Subject,
    /// With QScaler.
    pub managed: bool,
    /// Fleets side by side: the more, the longer tasks must be.
    pub beside: usize,
}

/// What a trial showed beside tasks.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The tasks.
    pub arm: Arm,
    /// From the lower minimum until a pod was asked to leave, in seconds.
    pub parked_s: Option<f64>,
    /// Most replicas that were asked for.
    pub most: i32,
    /// When the trial struck, seconds since the Unix epoch.
    pub since: f64,
}

/// A task that is due later.
#[derive(Serialize)]
struct Later {
    #[serde(flatten)]
    task: Task,
    delay: f64,
}

impl Side<'_> {
    /// One trial.
    pub async fn run(&self, trial: Trial) -> Shown {
        let prefix = format!("{}/", trial.name());
        let mut shown = Shown { since: now(), ..Shown::default() };
        let struck = match trial {
            Trial::Wave => self.wave(&prefix, &mut shown).await.map(Some),
            Trial::Delete | Trial::Rollout => self.struck(trial, &prefix, &mut shown).await.map(Some),
            Trial::Zero => self.due_later(&prefix, &mut shown).await.map(|()| None),
        };
        let arm = &mut shown.arm;
        arm.up = true;
        let (struck, mut trouble) = match struck {
            Ok(struck) => (struck, None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        match round::settled(&self.subject, &prefix, STILL + self.shape.patience_s, async || Ok(())).await {
            Ok(_) => {}
            Err(error) => trouble = trouble.or(Some(format!("{error:#}"))),
        }
        match self.subject.runs(&prefix).await {
            Ok((sent, runs)) => {
                arm.counts = Counts::of(sent, &runs, &[]);
                arm.hit = struck.and_then(|struck| struck.hit(&runs, &self.lab.observer.of(&self.subject.fleet.name)).ok());
            }
            Err(error) => trouble = trouble.or(Some(format!("{error:#}"))),
        }
        arm.trouble = trouble;
        // What is left of a trial would meet the next one's tasks.
        if let Err(error) = round::end_at_once(&self.subject.fleet).await {
            arm.trouble.get_or_insert(format!("{error:#}"));
        }
        shown
    }

    /// The fleet whole; a pod that is not Ready just now because of its helper counts once it works.
    async fn whole(&self) -> Result<()> {
        let fleet = &self.subject.fleet;
        if self.managed {
            fleet.annotate("max-replicas", &self.shape.most().to_string()).await?;
            fleet.annotate("min-replicas", &PODS.to_string()).await?
        } else {
            fleet.scale(PODS).await?
        }
        wait_for(&format!("{}: {PODS} pods", fleet.name), STEP, || async {
            let pods = fleet.pods().await.map_err(|e| e.to_string())?;
            let ready = pods.iter().filter(|pod| crate::stand::fleet::is_ready(pod)).count();
            if ready >= PODS as usize { Ok(()) } else { Err(crate::stand::fleet::describe(&pods)) }
        })
        .await
    }

    fn task(prefix: &str, number: usize, seconds: f64) -> Task {
        Task { task: format!("{prefix}{number}"), at: 0.0, seconds, mib: 0 }
    }

    /// Busy pods are deleted, or all are replaced.
    async fn struck(&self, trial: Trial, prefix: &str, shown: &mut Shown) -> Result<Struck> {
        self.whole().await?;
        let long = 18.0 + self.beside as f64;
        let count = (self.shape.width * PODS) as usize + 1;
        let backlog = if trial == Trial::Delete { self.shape.backlog as usize } else { 0 };
        let plan: Vec<Task> = (0..count + backlog).map(|number| Self::task(prefix, number, long + (number % 3) as f64)).collect();
        self.subject.send(&plan).await?;
        round::at_work(&self.subject, prefix, 1).await?;
        shown.since = now();
        strike::one(self.lab, &self.subject, trial.fault().unwrap_or(Fault::Delete), prefix).await
    }

    /// One long task, and an idle pod beside it that is no longer needed.
    async fn wave(&self, prefix: &str, shown: &mut Shown) -> Result<Struck> {
        self.whole().await?;
        let fleet = &self.subject.fleet;
        if self.shape.held > 0 {
            let held: Vec<Later> = (0..self.shape.held).map(|i| Later { task: Self::task("held/", i as usize, 1.0), delay: HELD_S }).collect();
            fleet.send(&held).await?;
        }
        let long = 40.0 + self.shape.patience_s + self.beside as f64;
        let plan: Vec<Task> = [4.0, 4.0, long].iter().enumerate().map(|(number, seconds)| Self::task(prefix, number, *seconds)).collect();
        self.subject.send(&plan).await?;
        wait_for(&format!("{}: the long task runs and a short one is done", fleet.name), STEP, || async {
            let (_, runs) = self.subject.runs(prefix).await.map_err(|e| e.to_string())?;
            let (ended, all) = (runs.iter().filter(|run| run.done.is_some()).count(), runs.len());
            if ended >= 2 && all > ended { Ok(()) } else { Err(format!("{all} runs, {ended} of them over")) }
        })
        .await?;
        shown.since = now();
        if self.managed {
            fleet.annotate("min-replicas", "1").await?;
            // The law keeps pods for the load that heavy tasks may still bring; here it is a matter of the drain. Where something could wrongly call for more pods,
            // it may.
            if self.shape.held == 0 {
                fleet.annotate("max-replicas", "1").await?;
            }
        } else {
            fleet.scale(1).await?
        }
        let mut done_at = None;
        loop {
            shown.most = shown.most.max(fleet.replicas().await?);
            let asked =
                self.lab.observer.of(&fleet.name).iter().filter_map(|seen| seen.asked_at).filter(|at| at + 1.0 >= shown.since).fold(None, first);
            if let Some(at) = asked {
                shown.parked_s = Some((at - shown.since).max(0.0));
                break;
            }
            let (sent, runs) = self.subject.runs(prefix).await?;
            if !Counts::of(sent, &runs, &[]).is_unsettled() {
                done_at.get_or_insert_with(now);
            }
            // The first limit is for a task that never ends because its worker is gone.
            let limit = done_at.map_or(shown.since + long + STILL, |at| at + self.shape.patience_s) + LEAVES_WITHIN_S;
            if now() > limit {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Struck::Wave { since: shown.since })
    }

    /// No pod, and a task that is due soon; without QScaler one pod is there, as it always is then.
    async fn due_later(&self, prefix: &str, shown: &mut Shown) -> Result<()> {
        let fleet = &self.subject.fleet;
        if self.managed {
            fleet.annotate("min-replicas", "0").await?;
            let limit = STEP + Duration::from_secs_f64(self.shape.patience_s);
            wait_for(&format!("{}: no pod", fleet.name), limit, || async {
                let replicas = fleet.replicas().await.map_err(|e| e.to_string())?;
                if replicas == 0 { Ok(()) } else { Err(format!("{replicas} replicas")) }
            })
            .await
            .context("an idle fleet is not let go")?;
        } else {
            fleet.scale(1).await?;
        }
        shown.since = now();
        fleet.send(&[Later { task: Self::task(prefix, 0, 2.0), delay: DUE_S }]).await?;
        wait_for(&format!("{}: what was due later is done", fleet.name), DUE_DONE, || async {
            let (_, runs) = self.subject.runs(prefix).await.map_err(|e| e.to_string())?;
            if runs.iter().any(|run| run.done.is_some()) { Ok(()) } else { Err(format!("{} runs", runs.len())) }
        })
        .await
    }
}

fn first(least: Option<f64>, at: f64) -> Option<f64> {
    Some(least.map_or(at, |least: f64| least.min(at)))
}
