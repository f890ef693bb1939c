//! Shapes go through their trials, each fleet with QScaler beside the same without. In: shapes and trials. Out: every cell, said as it comes, and where it was
//! measured. Left to others: one fleet (`arm`), what is right (`cell`), the page (`table`).

use super::arm::{Shown, Side};
use super::cell::{Arm, Cell, name};
use super::shape::{PODS, Shape};
use super::trial::Trial;
use super::{said, table};
use crate::matrix::book::Place;
use crate::matrix::lab::{Lab, Subject};
use crate::matrix::{now, whole};
use crate::stand::BrokerKind;
use crate::stand::cuts::Counted;
use crate::stand::fleet::{Fleet, FleetOptions, STEP, describe, is_ready};
use crate::wait::wait_for;
use anyhow::{Context, Result};
use futures::stream::{self, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Fleets side by side, each of two pods and a client: two cores run them all.
const AT_ONCE: usize = 12;
/// Databases that Redis has beside the first.
const DATABASES: u32 = 15;
/// Pods that came up may start again this soon: a liveness probe that fails shows then.
const STEADY: Duration = Duration::from_secs(20);

/// What fleets without QScaler showed earlier, by the cell's name: QScaler's own code does not change it.
pub type Kept = BTreeMap<String, Arm>;
/// `name version` of what workers are made of.
type Packages = Mutex<BTreeSet<String>>;
/// A fleet, and why its pods did not come up, if they did not.
type Made<'a> = Result<(Side<'a>, Option<String>)>;

/// The arm without QScaler.
enum Bare<'a> {
    /// A fleet of now.
    Beside(Box<Made<'a>>),
    /// What was seen earlier, for each trial.
    Kept(Vec<Arm>),
}

/// A run.
struct Run<'a> {
    lab: &'a Lab,
    trials: &'a [Trial],
    kept: &'a Kept,
    packages: Packages,
    /// Fleets side by side.
    beside: usize,
    /// Fleets made so far.
    fleets: AtomicU32,
}

/// Runs them; `say` gets a line for each cell. Where `kept` has the arm without QScaler of every cell of a shape, that arm is not measured again.
///
/// # Errors
/// The cluster cannot be had. A fleet that fails is a cell that says so.
pub async fn run(shapes: &[&'static Shape], trials: &[Trial], kept: &Kept, say: impl Fn(String)) -> Result<(Vec<Cell>, Place)> {
    let lab = Lab::open().await?;
    let begin = now();
    let fleets = if shapes.iter().any(|shape| known(shape, trials, kept).is_none()) { 2 } else { 1 };
    let beside = (shapes.len() * fleets).min(AT_ONCE);
    let run = Run { lab: &lab, trials, kept, packages: Packages::default(), beside, fleets: AtomicU32::new(0) };
    let said = |cell: &Cell| say(format!("{:>5.0} s  {}", now() - begin, table::line(cell)));
    let each = shapes.iter().map(|shape| run.one(shape, said));
    let cells: Vec<Cell> = stream::iter(each).buffer_unordered(AT_ONCE / fleets).collect::<Vec<_>>().await.into_iter().flatten().collect();
    let rabbitmq = shapes.iter().any(|shape| shape.framework.broker == BrokerKind::RabbitMq);
    let mut place = whole::place(&lab, rabbitmq).await?;
    let packages: Vec<String> = lock(&run.packages).iter().cloned().collect();
    if !packages.is_empty() {
        place.push(("in the workers' images".to_owned(), packages.join(", ")));
    }
    Ok((cells, place))
}

/// The trials that this shape goes through.
fn of(shape: &Shape, trials: &[Trial]) -> Vec<Trial> {
    trials.iter().copied().filter(|trial| *trial != Trial::Zero || shape.zero).collect()
}

/// The arm without QScaler in each of the shape's trials, if every one is kept.
fn known(shape: &Shape, trials: &[Trial], kept: &Kept) -> Option<Vec<Arm>> {
    of(shape, trials).into_iter().map(|trial| kept.get(&name(shape.slug(), trial)).cloned()).collect()
}

impl Run<'_> {
    /// One shape: both fleets made, tried, removed; `say` gets each cell.
    async fn one(&self, shape: &'static Shape, say: impl Fn(&Cell)) -> Vec<Cell> {
        let ours = self.side(shape, shape.managed(&format!("sh-{}", shape.slug())));
        let bare = async {
            match known(shape, self.trials, self.kept) {
                Some(arms) => Bare::Kept(arms),
                None => Bare::Beside(Box::new(self.side(shape, shape.bare(&format!("sh-bare-{}", shape.slug()))).await)),
            }
        };
        let (ours, bare) = futures::join!(ours, bare);
        if let Ok((side, _)) = &ours
            && let Ok(versions) = whole::versions(&side.subject).await
        {
            lock(&self.packages).extend(versions);
        }
        let mut cells = Vec::new();
        for (number, trial) in of(shape, self.trials).into_iter().enumerate() {
            let without = async {
                match &bare {
                    Bare::Kept(arms) => arms.get(number).cloned().unwrap_or_default(),
                    Bare::Beside(made) => tried(made, trial).await.arm,
                }
            };
            let cell = cell(shape, trial, &ours, without).await;
            say(&cell);
            cells.push(cell);
        }
        let beside = if let Bare::Beside(made) = bare { made.ok() } else { None };
        for (side, _) in [ours.ok(), beside].into_iter().flatten() {
            // What it showed is known already.
            let _ = side.subject.fleet.discard().await;
        }
        cells
    }

    async fn side(&self, shape: &'static Shape, mut options: FleetOptions) -> Made<'_> {
        let managed = options.labelled;
        if shape.framework.broker == BrokerKind::Redis {
            let number = self.fleets.fetch_add(1, Ordering::Relaxed);
            options.url = Some(self.lab.stand.redis_url(1 + number % DATABASES));
        }
        let fleet = Fleet::begin(self.lab.stand, options).await?;
        let down = came_up(&fleet).await.err().map(|error| format!("{error:#}"));
        let subject = Subject::new(&shape.framework, fleet);
        Ok((Side { lab: self.lab, shape, subject, managed, beside: self.beside }, down))
    }
}

/// All pods Ready, and again after a while: a probe that the pod cannot pass has its first say by then.
async fn came_up(fleet: &Fleet) -> Result<()> {
    let ready = async || {
        wait_for(&format!("{}: {PODS} Ready pods", fleet.name), STEP, || async {
            let pods = fleet.pods().await.map_err(|e| e.to_string())?;
            if pods.iter().filter(|pod| is_ready(pod)).count() >= PODS as usize { Ok(()) } else { Err(describe(&pods)) }
        })
        .await
    };
    ready().await?;
    tokio::time::sleep(STEADY).await;
    ready().await.context("after they had been Ready once")
}

async fn cell(shape: &'static Shape, trial: Trial, ours: &Made<'_>, without: impl Future<Output = Arm>) -> Cell {
    let begin = now();
    let before = match ours {
        Ok((side, None)) => Counted::now(&side.subject.fleet).await,
        _ => Counted::default(),
    };
    let (shown, bare) = futures::join!(tried(ours, trial), without);
    let rose_to = (shown.most > PODS as i32).then_some(shown.most);
    let Shown { arm, parked_s, since, .. } = shown;
    let mut cell = Cell { shape: shape.slug().to_owned(), trial, ours: arm, bare, counted: 0, parked_s, rose_to, said: None, seconds: 0.0 };
    if let Ok((side, _)) = ours {
        let fleet = &side.subject.fleet;
        let word = async { if cell.needs_a_word() { said::within_a_minute(fleet, since).await } else { None } };
        let (counted, said) = futures::join!(before.since(fleet, cell.ours.counts.cut as u64), word);
        (cell.counted, cell.said) = (counted, said);
    }
    cell.seconds = now() - begin;
    cell
}

async fn tried(made: &Made<'_>, trial: Trial) -> Shown {
    let down = |why: String| Shown { arm: Arm { trouble: Some(why), ..Arm::default() }, since: now(), ..Shown::default() };
    match made {
        Ok((side, None)) => side.run(trial).await,
        Ok((_, Some(why))) => down(why.clone()),
        Err(error) => down(format!("{error:#}")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
