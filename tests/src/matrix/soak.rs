//! Bursts with random faults on a few fleets for a while. In: a seed and a time. Out: cells, said as they come. Equal seeds draw equal faults in equal
//! order. Left to others: one round (`round`).

use super::cell::Cell;
use super::fault::Fault;
use super::lab::{Lab, Subject};
use super::rows::Row;
use super::{now, round, table};
use anyhow::Result;
use futures::future::try_join_all;

/// Faults that are drawn for each fleet by itself.
const LOCAL: [Fault; 7] =
    [Fault::Wave, Fault::Protect, Fault::Rollout, Fault::Delete, Fault::Eviction, Fault::SidecarKilledParked, Fault::SidecarKilledHeld];
/// Faults that are drawn for all of them.
const GLOBAL: [Fault; 5] = [Fault::Drain, Fault::ControllerKilled, Fault::BrokerRestarted, Fault::WebhookDown, Fault::LeaderChange];
/// One round in so many meets the whole cluster.
const GLOBAL_ONE_IN: u64 = 3;

/// A small generator: the same numbers for the same seed everywhere.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is not 0 (SplitMix64).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    /// The faults of one round.
    pub fn faults(&mut self, fleets: usize) -> Vec<Fault> {
        if self.below(GLOBAL_ONE_IN) == 0 {
            let fault = GLOBAL[self.below(GLOBAL.len() as u64) as usize];
            return vec![fault; fleets];
        }
        (0..fleets).map(|_| LOCAL[self.below(LOCAL.len() as u64) as usize]).collect()
    }
}

/// Runs rounds until the time is over; the last one is brought to its end. The control arm comes first, and shows that cuts would be seen.
///
/// # Errors
/// The cluster or the fleets cannot be had.
pub async fn run(rows: &[Row], seed: u64, minutes: f64, mut say: impl FnMut(String)) -> Result<Vec<Cell>> {
    let lab = Lab::open().await?;
    let mut draw = Draw::new(seed);
    let mut cells = round::control(&lab, rows.get(..1).unwrap_or_default()).await;
    cells.iter().for_each(|cell| say(table::line(cell)));
    let wanted = rows.iter().map(|row| (format!("soak-{}", row.slug), *row)).collect();
    let subjects = lab.fleets(wanted).await?;
    let all: Vec<&Subject> = subjects.iter().collect();
    let begin = now();
    let mut number = 0;
    while now() - begin < minutes * 60.0 {
        let faults = draw.faults(all.len());
        let made = round::run_until_hit(&lab, &all, &faults, &format!("s{number}")).await;
        for cell in &made {
            say(format!("{:>5.0} s  {}", now() - begin, table::line(cell)));
        }
        cells.extend(made);
        number += 1;
    }
    round::recount(&subjects, &mut cells).await?;
    try_join_all(subjects.into_iter().map(|subject| subject.fleet.remove())).await?;
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_faults_and_every_fault_is_drawn() {
        let draw = |seed| {
            let mut draw = Draw::new(seed);
            (0..200).map(|_| draw.faults(3)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let all: Vec<Fault> = draw(7).into_iter().flatten().collect();
        assert!(LOCAL.iter().chain(&GLOBAL).all(|fault| all.contains(fault)));
    }

    #[test]
    fn a_fault_of_the_whole_cluster_has_its_round_to_itself() {
        let mut draw = Draw::new(1);
        for faults in (0..200).map(|_| draw.faults(3)) {
            assert!(!faults.iter().any(|f| f.is_global()) || faults.iter().all(|f| *f == faults[0]), "{faults:?}");
        }
    }
}
