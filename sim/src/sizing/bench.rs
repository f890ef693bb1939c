//! All cases under all policies, side by side. In: a seed, the recorded hour if it can be had, how much. Out: a [`SizingReport`].
//! Left to others: printing it (the binary), drawing it (`chart`).

use super::case::{Case, SYNTHETIC, synthetic};
use super::hour::{self, Hour};
use super::krr::KrrLike;
use super::replay::{ReplayOutcome, best_fixed, replay};
use super::sizer::{Fixed, Ours, Sizer};
use super::vpa::{Sampling, VpaLike};

/// A policy by name, with the knob that the curve turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SizingPolicy {
    /// `core::size`; the knob multiplies its limit.
    Ours(f64),
    /// VPA-like, a sample per task; the knob is the percentile.
    Vpa(f64),
    /// VPA-like, a sample per pod and day; the knob is the percentile.
    VpaDaily(f64),
    /// KRR-like; the knob is the margin.
    Krr(f64),
    /// The best fixed limit in hindsight; the knob multiplies it.
    Oracle(f64),
}

/// The policies as they are.
pub const POLICIES: [SizingPolicy; 5] =
    [SizingPolicy::Ours(1.0), SizingPolicy::Vpa(0.9), SizingPolicy::VpaDaily(0.9), SizingPolicy::Krr(1.15), SizingPolicy::Oracle(1.0)];

impl SizingPolicy {
    /// Its name in tables and pictures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours(_) => "qscaler",
            Self::Vpa(_) => "vpa-like",
            Self::VpaDaily(_) => "vpa-like, daily",
            Self::Krr(_) => "krr-like",
            Self::Oracle(_) => "fixed oracle",
        }
    }

    fn sizer(self, start: u64, best: u64, cap: u64) -> Box<dyn Sizer> {
        match self {
            Self::Ours(factor) => Box::new(Ours::new(start, cap, factor)),
            Self::Vpa(p) => Box::new(VpaLike::new(start, cap, Sampling::SizedTask, p)),
            Self::VpaDaily(p) => Box::new(VpaLike::new(start, cap, Sampling::PodDay, p)),
            Self::Krr(margin) => Box::new(KrrLike::new(start, cap, margin)),
            Self::Oracle(factor) => Box::new(Fixed(((best as f64 * factor) as u64).min(cap))),
        }
    }
}

/// How one policy did on one group of cases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SizingScore {
    /// OOM kills per 1000 tasks, without the unavoidable ones.
    pub ooms_per_1000: f64,
    /// OOM kills per 1000 tasks that no allowed limit could have saved.
    pub unavoidable_per_1000: f64,
    /// Tasks killed at least once, per 1000.
    pub tasks_per_1000: f64,
    /// Tasks set aside, per 1000.
    pub dropped_per_1000: f64,
    /// Mean share of reserved memory that no successful task needed, percent.
    pub slack_pct: f64,
    /// Changes of the limit per 1000 tasks.
    pub changes_per_1000: f64,
    /// Tasks until within a fifth of the best fixed limit, mean over the cases that got there.
    pub settled_after: f64,
}

impl SizingScore {
    fn of(outcomes: &[ReplayOutcome]) -> Self {
        let tasks = outcomes.iter().map(|o| o.tasks).sum::<u64>().max(1) as f64;
        let per_1000 = |f: fn(&ReplayOutcome) -> u64| 1000.0 * outcomes.iter().map(f).sum::<u64>() as f64 / tasks;
        let settled: Vec<u64> = outcomes.iter().filter_map(|o| o.settled_after).collect();
        Self {
            ooms_per_1000: per_1000(|o| o.kills - o.unavoidable),
            unavoidable_per_1000: per_1000(|o| o.unavoidable),
            tasks_per_1000: per_1000(|o| o.killed_tasks),
            dropped_per_1000: per_1000(|o| o.dropped),
            slack_pct: outcomes.iter().map(ReplayOutcome::slack_pct).sum::<f64>() / outcomes.len().max(1) as f64,
            changes_per_1000: per_1000(|o| o.changes),
            settled_after: settled.iter().sum::<u64>() as f64 / settled.len().max(1) as f64,
        }
    }

    /// The mean of scores; each counts the same.
    #[must_use]
    pub fn mean(scores: &[Self]) -> Self {
        let n = scores.len().max(1) as f64;
        let mean = |f: fn(&Self) -> f64| scores.iter().map(f).sum::<f64>() / n;
        Self {
            ooms_per_1000: mean(|s| s.ooms_per_1000),
            unavoidable_per_1000: mean(|s| s.unavoidable_per_1000),
            tasks_per_1000: mean(|s| s.tasks_per_1000),
            dropped_per_1000: mean(|s| s.dropped_per_1000),
            slack_pct: mean(|s| s.slack_pct),
            changes_per_1000: mean(|s| s.changes_per_1000),
            settled_after: mean(|s| s.settled_after),
        }
    }
}

/// Cases of one kind, with their best fixed limits.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    cases: Vec<(Case, u64)>,
}

impl Group {
    fn new(name: &'static str, cases: Vec<Case>) -> Self {
        Self { name, cases: cases.into_iter().map(|c| (best_fixed(&c), c)).map(|(best, c)| (c, best)).collect() }
    }

    /// Tasks in it.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.cases.iter().map(|(c, _)| c.tasks.len()).sum()
    }

    /// How a policy does on it.
    #[must_use]
    pub fn score(&self, policy: SizingPolicy) -> SizingScore {
        let outcomes: Vec<ReplayOutcome> = self
            .cases
            .iter()
            .map(|(case, best)| {
                let start = (*best as f64 * case.start_factor) as u64;
                replay(case, policy.sizer(start, *best, case.cap).as_mut(), Some(*best))
            })
            .collect();
        SizingScore::of(&outcomes)
    }
}

/// All groups: `repeats` of each made-up case with `tasks` tasks, and the recorded hour's queues.
#[must_use]
pub fn groups(seed: u64, repeats: u64, tasks: usize, hour: Option<&Hour>) -> Vec<Group> {
    let made_up = SYNTHETIC.iter().map(|&name| {
        let cases = (0..repeats).map(|r| synthetic(name, seed.wrapping_mul(1000).wrapping_add(r), tasks)).collect();
        Group::new(name, cases)
    });
    let real = hour
        .map(|h| [hour::alike(h, seed), hour::mixed(h, seed)])
        .into_iter()
        .flatten()
        .filter_map(|cases| cases.first().map(|c| c.name).map(|name| Group::new(name, cases)));
    made_up.chain(real).collect()
}

/// Every policy on every group.
#[derive(Clone, Debug)]
pub struct SizingReport {
    /// Group name, tasks, and the scores in the order of [`POLICIES`].
    pub rows: Vec<(&'static str, usize, Vec<SizingScore>)>,
}

/// The bar: kills against those of the VPA-like policy, at most.
pub const BAR_RATIO: f64 = 0.2;
/// The bar also asks that no case has more kills than under the VPA-like policy. Slack above that of the VPA-like policy, at most, percent points.
pub const BAR_SLACK: f64 = 10.0;

/// Kills per 1000 tasks below which a ratio would be noise: one in two thousand tasks.
const FEW: f64 = 0.5;

impl SizingReport {
    /// Runs all of it.
    #[must_use]
    pub fn run(groups: &[Group]) -> Self {
        Self { rows: groups.iter().map(|g| (g.name, g.tasks(), POLICIES.iter().map(|&p| g.score(p)).collect())).collect() }
    }

    /// A policy's mean over the groups, by its place in [`POLICIES`].
    #[must_use]
    pub fn total(&self, policy: usize) -> SizingScore {
        SizingScore::mean(&self.rows.iter().map(|r| r.2[policy]).collect::<Vec<_>>())
    }

    /// The largest ratio of our kills to the VPA-like policy's in a group, with the group's name. Fewer than [`FEW`] kills count as that many.
    #[must_use]
    pub fn worst(&self) -> (&'static str, f64) {
        let ratio = |s: &[SizingScore]| s[0].ooms_per_1000 / s[1].ooms_per_1000.max(FEW);
        self.rows.iter().map(|r| (r.0, ratio(&r.2))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("", 0.0))
    }

    /// The bar is met.
    #[must_use]
    pub fn meets_the_bar(&self) -> bool {
        let (ours, vpa) = (self.total(0), self.total(1));
        ours.ooms_per_1000 <= BAR_RATIO * vpa.ooms_per_1000 && ours.slack_pct <= vpa.slack_pct + BAR_SLACK && self.worst().1 <= 1.0
    }
}

/// How a policy is made with its knob at a value, and the values.
type Family = (fn(f64) -> SizingPolicy, &'static [f64]);

/// The curve of each policy: its name, and the mean score at each setting of its knob.
#[must_use]
pub fn curves(groups: &[Group]) -> Vec<(&'static str, Vec<SizingScore>)> {
    let families: [Family; 5] = [
        (SizingPolicy::Ours, &[0.75, 0.8, 0.85, 0.9, 1.0, 1.1, 1.25, 1.5]),
        (SizingPolicy::Vpa, &[0.5, 0.75, 0.9, 0.95, 0.98, 0.995, 1.0]),
        (SizingPolicy::VpaDaily, &[0.5, 0.75, 0.9, 0.95, 0.98, 1.0]),
        (SizingPolicy::Krr, &[1.0, 1.05, 1.15, 1.3, 1.5]),
        (SizingPolicy::Oracle, &[0.7, 0.8, 0.9, 1.0, 1.15, 1.3]),
    ];
    families
        .iter()
        .map(|(make, knobs)| {
            let points = knobs.iter().map(|&k| SizingScore::mean(&groups.iter().map(|g| g.score(make(k))).collect::<Vec<_>>())).collect();
            (make(1.0).name(), points)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run small enough for a debug build.
    fn small(seed: u64) -> SizingReport {
        SizingReport::run(&groups(seed, 1, 4000, None))
    }

    #[test]
    fn the_bar_is_met_on_the_made_up_cases() {
        let reports: Vec<SizingReport> = (1..=4).map(small).collect();
        let mean = |policy: usize| SizingScore::mean(&reports.iter().map(|r| r.total(policy)).collect::<Vec<_>>());
        let (ours, vpa, daily) = (mean(0), mean(1), mean(2));
        assert!(ours.ooms_per_1000 <= BAR_RATIO * vpa.ooms_per_1000, "{ours:?} {vpa:?}");
        assert!(ours.slack_pct <= vpa.slack_pct + BAR_SLACK, "{ours:?} {vpa:?}");
        // The real one aggregates by pod and day: closer, and still behind on both.
        assert!(ours.ooms_per_1000 < 0.5 * daily.ooms_per_1000 && ours.slack_pct < daily.slack_pct, "{ours:?} {daily:?}");
    }

    #[test]
    fn the_best_fixed_limit_kills_nothing_that_could_be_saved() {
        let report = small(5);
        assert!(report.total(4).ooms_per_1000 < 1e-9, "{:?}", report.total(4));
        let unavoidable: Vec<f64> = (0..POLICIES.len()).map(|p| report.total(p).unavoidable_per_1000).collect();
        assert!(unavoidable.iter().all(|&u| (u - unavoidable[0]).abs() < 1e-9), "every policy has those: {unavoidable:?}");
    }

    #[test]
    fn equal_seeds_give_equal_reports() {
        let rows = |seed| format!("{:?}", SizingReport::run(&groups(seed, 1, 500, None)).rows);
        assert_eq!(rows(9), rows(9));
        assert_ne!(rows(9), rows(10));
    }

    #[test]
    fn wrong_templates_are_grown_out_of_at_once_and_shrunk_out_of_within_weeks() {
        let day = |factor: f64| {
            let case = Case { start_factor: factor, ..synthetic("stationary", 3, 4000) };
            let best = best_fixed(&case);
            let outcome = replay(&case, &mut Ours::new((best as f64 * factor) as u64, case.cap, 1.0), Some(best));
            let task = outcome.settled_after.unwrap() as usize;
            case.tasks[task.min(case.tasks.len()) - 1].arrive_s / crate::sizing::DAY_S
        };
        let (small, large) = (day(0.25), day(4.0));
        assert!(small <= 2.0, "{small} days from a quarter");
        assert!((8.0..=24.0).contains(&large), "{large} days from four times the size: 10 % a day, and differences below 10 % wait");
    }
}
