//! Comes in: the cases. Goes out: what every scaler but the law makes of them, with KEDA's best settings in hindsight; kept in a file on request, since it does not
//! depend on the law and takes nearly all of the bench's time. Leaves to others: the law, and what is promised.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Case, Effort};
use crate::policy::goscaler::GoScaler;
use crate::policy::keda::{KedaConfig, grid};
use crate::policy::wpa::Wpa;
use crate::progress::Progress;
use crate::score::{Score, geometric_mean};

/// Settings that go on from the first seed: the best of each case, and the best over all.
const BEST_OF_CASE: usize = 25;
const BEST_OF_ALL: usize = 25;
/// A run that costs so many times the optimum can't win and is cut short.
const HOPELESS: f64 = 8.0;
/// Factors of the Go scaler that hindsight chooses from; as released it is 1.
const GO_FACTORS: [f64; 5] = [1.0, 0.5, 0.2, 0.1, 0.05];

/// One case under every scaler but the law.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rival {
    /// Workload.
    pub name: String,
    /// Mean start latency, seconds.
    pub start_s: f64,
    /// KEDA, `value: 1`, all else default.
    pub keda_v1: Score,
    /// KEDA as it comes, `value: 20`.
    pub keda_default: Score,
    /// The best KEDA setting for this case.
    pub hindsight: Score,
    /// Which one that is.
    pub hindsight_setting: KedaConfig,
    /// The best single KEDA setting over all cases, here.
    pub single: Score,
    /// Go QScaler as released.
    pub go: Score,
    /// Go QScaler with its best factor for this case.
    pub go_hindsight: Score,
    /// Practo's worker-pod-autoscaler.
    pub wpa: Score,
}

/// All cases under every scaler but the law.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Rivals {
    /// Seed that the cases were drawn by, and how thoroughly they were run.
    seed: u64,
    seeds: u32,
    grid_step: usize,
    /// The best single KEDA setting, as for a service time of 1 s.
    pub single_setting: KedaConfig,
    /// In the order of the cases.
    pub cases: Vec<Rival>,
}

/// Why the file of the rivals is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// It is not what this bench writes.
    #[error("{0} is no file of the bench's rivals: {1}")]
    Json(String, serde_json::Error),
    /// It is of another run.
    #[error("{0} is of another seed, other cases or another effort: remove it, or name another file")]
    Other(String),
}

/// Runs the rivals, or takes what they came to from `file`, which is written where it does not exist.
pub(super) fn rivals(cases: &[Case], seed: u64, effort: Effort, file: Option<&Path>) -> Result<Rivals, FileError> {
    let Some(file) = file else { return Ok(play(cases, seed, effort)) };
    let name = || file.display().to_string();
    if file.exists() {
        let text = std::fs::read_to_string(file).map_err(|error| FileError::Io(name(), error))?;
        let rivals: Rivals = serde_json::from_str(&text).map_err(|error| FileError::Json(name(), error))?;
        let known = rivals.cases.iter().map(|case| (case.name.as_str(), case.start_s));
        let same = known.eq(cases.iter().map(|case| (case.name.as_str(), case.start_s)));
        let run = (rivals.seed, rivals.seeds, rivals.grid_step);
        return if same && run == (seed, effort.seeds, effort.grid_step) { Ok(rivals) } else { Err(FileError::Other(name())) };
    }
    let rivals = play(cases, seed, effort);
    let text = serde_json::to_string_pretty(&rivals).map_err(|error| FileError::Json(name(), error))?;
    std::fs::write(file, text + "\n").map_err(|error| FileError::Io(name(), error))?;
    Ok(rivals)
}

fn play(cases: &[Case], seed: u64, effort: Effort) -> Rivals {
    let settings: Vec<usize> = (0..grid(1.0).len()).step_by(effort.grid_step.max(1)).collect();
    let mut progress = Progress::new("bench law", cases.len() * (settings.len() + 1));
    // Costs of every setting, of each case: for the first seed, then for all.
    let mut costs: Vec<Vec<f64>> = Vec::new();
    for case in cases {
        costs.push(
            settings
                .iter()
                .map(|setting| {
                    progress.step();
                    let round = &case.rounds[0];
                    Score::of(&round.play(Some(HOPELESS), &|round: &super::Round| round.keda(*setting)), &round.optimum).j
                })
                .collect(),
        );
    }
    let overall: Vec<f64> = (0..settings.len()).map(|at| geometric_mean(costs.iter().map(|case| case[at]))).collect();
    let finalists = best(&overall, BEST_OF_ALL);
    let mut hindsight = Vec::new();
    let mut singles: Vec<Vec<Score>> = vec![Vec::new(); finalists.len()];
    for (case, costs) in cases.iter().zip(&costs) {
        progress.step();
        let mut of_case = best(costs, BEST_OF_CASE);
        of_case.extend(finalists.iter().filter(|at| !of_case.contains(at)).copied().collect::<Vec<_>>());
        let full: Vec<(usize, Score)> = of_case.iter().map(|at| (*at, case.mean(|round| round.keda(settings[*at])))).collect();
        for (place, finalist) in finalists.iter().enumerate() {
            singles[place].extend(full.iter().filter(|(at, _)| at == finalist).map(|(_, score)| *score));
        }
        hindsight.extend(full.into_iter().min_by(|a, b| a.1.j.total_cmp(&b.1.j)));
    }
    let single = (0..finalists.len())
        .min_by(|a, b| geometric_mean(singles[*a].iter().map(|s| s.j)).total_cmp(&geometric_mean(singles[*b].iter().map(|s| s.j))))
        .unwrap_or(0);
    let results = cases.iter().enumerate().map(|(index, case)| {
        let go = |factor: f64| case.mean(|round| Box::new(GoScaler::new(factor, round.conditions.seed)));
        let by_factor: Vec<Score> = GO_FACTORS.iter().map(|factor| go(*factor)).collect();
        Rival {
            name: case.name.clone(),
            start_s: case.start_s,
            keda_v1: case.mean(|round| round.keda_with_value(1.0)).finite(),
            keda_default: case.mean(|round| round.keda_with_value(20.0)).finite(),
            hindsight: hindsight[index].1.finite(),
            hindsight_setting: grid(case.rounds[0].workload.mean_service_s())[settings[hindsight[index].0]],
            single: singles[single][index].finite(),
            go: by_factor[0].finite(),
            go_hindsight: by_factor.iter().copied().min_by(|a, b| a.j.total_cmp(&b.j)).unwrap_or_default().finite(),
            wpa: case.mean(|round| Box::new(Wpa::new(round.workload.max_wait_s, round.workload.mean_service_s(), round.conditions.seed))).finite(),
        }
    });
    let cases = results.collect();
    Rivals { seed, seeds: effort.seeds, grid_step: effort.grid_step, single_setting: grid(1.0)[settings[finalists[single]]], cases }
}

/// Places of the `count` smallest.
fn best(costs: &[f64], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..costs.len()).collect();
    places.sort_by(|a, b| costs[*a].total_cmp(&costs[*b]));
    places.truncate(count);
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases;

    #[test]
    fn what_the_rivals_came_to_is_kept_for_the_same_cases_alone() {
        let effort = Effort { seeds: 1, grid_step: 1009 };
        let of = |seed, only: &[&str]| cases(seed, effort.seeds, None, only);
        let file = std::env::temp_dir().join(format!("qscaler-rivals-{}.json", std::process::id()));
        let played = rivals(&of(1, &["sparse"]), 1, effort, Some(&file)).expect("played");
        let read = rivals(&of(1, &["sparse"]), 1, effort, Some(&file)).expect("read");
        assert_eq!((played.cases.len(), played.single_setting), (2, read.single_setting));
        assert!(played.cases.iter().zip(&read.cases).all(|(one, other)| (one.go.j - other.go.j).abs() < 1e-9 && one.name == other.name));
        assert!(matches!(rivals(&of(2, &["sparse"]), 2, effort, Some(&file)), Err(FileError::Other(_))), "another seed");
        assert!(matches!(rivals(&of(1, &["long"]), 1, effort, Some(&file)), Err(FileError::Other(_))), "other cases");
        std::fs::remove_file(file).expect("removed");
    }
}
