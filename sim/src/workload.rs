//! Comes in: a name and a seed. Goes out: tasks with arrival and service time, and the promise they are judged by. Leaves to others: serving them.

use crate::rng::Rng;

/// One task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Task {
    /// Arrival, seconds from the start of the trace.
    pub at_s: f64,
    /// Seconds of work.
    pub service_s: f64,
}

/// Tasks and what is promised for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Stable name.
    pub name: String,
    /// Ordered by arrival.
    pub tasks: Vec<Task>,
    /// No task should wait longer, seconds.
    pub max_wait_s: f64,
    /// Fewest pods.
    pub min_replicas: u32,
    /// Most pods.
    pub max_replicas: u32,
    /// End of arrivals, seconds.
    pub horizon_s: f64,
    /// Tasks that run at once before they slow each other down (a shared database); `None` for no such limit.
    pub shared_capacity: Option<f64>,
}

impl Workload {
    /// Mean service time, seconds; what a person who knows the work exactly would configure.
    pub fn mean_service_s(&self) -> f64 {
        self.tasks.iter().map(|task| task.service_s).sum::<f64>() / self.tasks.len().max(1) as f64
    }
}

/// The generated workloads, by name. Rates per second, times in seconds.
pub const NAMES: [&str; 11] = ["steady", "diurnal", "flash", "mmpp", "batch", "long", "heavy", "azure", "sparse", "downstr", "shift"];

/// Workloads that end in silence: so many bursts, of so many tasks, this far apart, seconds, and then nothing for an hour. Single tasks (the trickle) come at
/// random. They are held against KEDA as people tune it, not scored with [`NAMES`].
pub const BURSTS: [(&str, u32, usize, f64); 11] = [
    ("once", 1, 60, 90.0),
    ("three", 3, 60, 90.0),
    ("ten", 10, 60, 90.0),
    ("quick", 10, 60, 30.0),
    ("slow", 5, 60, 600.0),
    ("hourly", 4, 60, 3600.0),
    ("daily", 2, 60, 86_400.0),
    ("trickle", 120, 1, 60.0),
    ("few once", 1, 3, 90.0),
    ("few", 3, 3, 90.0),
    ("pair", 1, 2, 90.0),
];
/// Of [`BURSTS`], those of heavy tasks alone.
const HEAVY: [&str; 2] = ["few once", "few"];
/// Seconds of silence after the last burst.
const SILENCE_S: f64 = 3600.0;

/// Generates one of [`BURSTS`]: 60 % of the tasks take 1 to 5 s, 25 % 6 to 20 s, 15 % 31 to 40 s, those of [`HEAVY`] 31 to 45 s, on three pods at most, and the
/// pair 80 to 100 s; `None` for another name.
pub fn bursts(name: &str, seed: u64) -> Option<Workload> {
    let (index, (_, count, size, apart_s)) = BURSTS.iter().enumerate().find(|(_, (known, ..))| *known == name)?;
    let mut rng = Rng::new(seed, 0xb0 + index as u64);
    let (mut tasks, mut at_s) = (Vec::new(), 60.0);
    for _ in 0..*count {
        for _ in 0..*size {
            let kind = rng.uniform();
            let service_s = if HEAVY.contains(&name) {
                rng.between(31.0, 45.0)
            } else if name == "pair" {
                rng.between(80.0, 100.0)
            } else if kind < 0.6 {
                rng.between(1.0, 5.0)
            } else if kind < 0.85 {
                rng.between(6.0, 20.0)
            } else {
                rng.between(31.0, 40.0)
            };
            tasks.push(Task { at_s, service_s });
        }
        at_s += if *size > 1 { *apart_s } else { rng.exponential(*apart_s) };
    }
    let horizon_s = tasks.last().map_or(0.0, |task| task.at_s) + SILENCE_S;
    let max_replicas = if HEAVY.contains(&name) { 3 } else { 20 };
    Some(Workload { name: name.to_owned(), tasks, max_wait_s: 15.0, min_replicas: 0, max_replicas, horizon_s, shared_capacity: None })
}

/// Generates one of [`NAMES`]; `None` for another name.
pub fn generate(name: &str, seed: u64) -> Option<Workload> {
    let index = NAMES.iter().position(|known| *known == name)? as u64;
    let mut arrivals = Rng::new(seed, 2 * index + 1);
    let mut services = Rng::new(seed, 2 * index + 2);
    let (max_wait_s, max_replicas, horizon_s) = match name {
        "steady" => (10.0, 100, 7200.0),
        "diurnal" => (15.0, 100, 14_400.0),
        "flash" => (30.0, 100, 10_800.0),
        "mmpp" => (15.0, 100, 10_800.0),
        "batch" => (120.0, 100, 10_800.0),
        "long" => (60.0, 60, 43_200.0),
        "heavy" => (15.0, 100, 7200.0),
        "azure" => (15.0, 150, 10_800.0),
        "sparse" => (45.0, 100, 43_200.0),
        "downstr" => (30.0, 100, 7200.0),
        _ => (10.0, 100, 7200.0),
    };
    let at: Vec<f64> = match name {
        "steady" => poisson(&mut arrivals, horizon_s, 10.0, |_| 10.0),
        "diurnal" => poisson(&mut arrivals, horizon_s, 10.0, |t| 5.1 - 4.9 * (2.0 * std::f64::consts::PI * t / 7200.0).cos()),
        "flash" => {
            let starts: Vec<f64> = (0..3).map(|n| f64::from(n) * 3600.0 + arrivals.between(600.0, 2700.0)).collect();
            poisson(&mut arrivals, horizon_s, 20.0, move |t| flash_rate(&starts, t))
        }
        "mmpp" => modulated(&mut arrivals, horizon_s, (0.5, 300.0), (12.0, 60.0)),
        "azure" => modulated(&mut arrivals, horizon_s, (1.5, 240.0), (6.0, 90.0)),
        "batch" => batches(&mut arrivals, horizon_s),
        "long" => poisson(&mut arrivals, horizon_s, 1.0 / 90.0, |_| 1.0 / 90.0),
        "heavy" => poisson(&mut arrivals, horizon_s, 5.0, |_| 5.0),
        "sparse" => poisson(&mut arrivals, horizon_s, 1.0 / 240.0, |_| 1.0 / 240.0),
        "downstr" => poisson(&mut arrivals, horizon_s, 8.0, |t| if (2400.0..3000.0).contains(&t) { 8.0 } else { 4.0 }),
        _ => poisson(&mut arrivals, horizon_s, 8.0, |_| 8.0),
    };
    let tasks = at.into_iter().map(|at_s| Task { at_s, service_s: service(name, at_s, horizon_s, &mut services) }).collect();
    let shared_capacity = (name == "downstr").then_some(12.0);
    Some(Workload { name: name.to_owned(), tasks, max_wait_s, min_replicas: 0, max_replicas, horizon_s, shared_capacity })
}

fn service(name: &str, at_s: f64, horizon_s: f64, rng: &mut Rng) -> f64 {
    match name {
        "steady" => rng.lognormal(2.0, 1.0),
        "diurnal" => rng.lognormal(4.0, 1.0),
        "flash" => rng.exponential(3.0),
        "mmpp" => rng.lognormal(3.0, 1.5),
        "batch" => rng.lognormal(20.0, 0.5),
        "long" => rng.lognormal(1200.0, 1.0),
        "heavy" => rng.lognormal(3.0, 4.0),
        "azure" => (-0.38 + 2.36 * rng.normal()).exp().min(600.0),
        "sparse" => rng.lognormal(10.0, 0.5),
        "downstr" => rng.lognormal(2.0, 0.5),
        _ if (horizon_s / 3.0..2.0 * horizon_s / 3.0).contains(&at_s) => rng.lognormal(4.5, 1.0),
        _ => rng.lognormal(1.5, 1.0),
    }
}

/// Poisson arrivals of varying rate, by thinning; `highest` bounds `rate`.
fn poisson(rng: &mut Rng, horizon_s: f64, highest: f64, rate: impl Fn(f64) -> f64) -> Vec<f64> {
    let (mut at, mut now) = (Vec::new(), 0.0);
    loop {
        now += rng.exponential(1.0 / highest);
        if now >= horizon_s {
            return at;
        }
        if rng.uniform() * highest < rate(now) {
            at.push(now);
        }
    }
}

/// 1/s, and 20/s for 300 s from each start, with 10 s from the one to the other.
fn flash_rate(starts: &[f64], t: f64) -> f64 {
    starts
        .iter()
        .map(|start| t - start)
        .filter(|since| (0.0..310.0).contains(since))
        .map(|since| if since < 10.0 { 1.0 + 1.9 * since } else { 20.0 })
        .fold(1.0, f64::max)
}

/// A process that changes between two (rate, mean stay).
fn modulated(rng: &mut Rng, horizon_s: f64, calm: (f64, f64), storm: (f64, f64)) -> Vec<f64> {
    let (mut at, mut from, mut stormy) = (Vec::new(), 0.0, false);
    while from < horizon_s {
        let (rate, stay) = if stormy { storm } else { calm };
        let to = (from + rng.exponential(stay)).min(horizon_s);
        at.extend(poisson(rng, to - from, rate, |_| rate).into_iter().map(|t| from + t));
        (from, stormy) = (to, !stormy);
    }
    at
}

/// 200 to 600 tasks at once, each 1500 to 2100 s.
fn batches(rng: &mut Rng, horizon_s: f64) -> Vec<f64> {
    let (mut at, mut now) = (Vec::new(), rng.between(60.0, 600.0));
    while now < horizon_s - 600.0 {
        let size = rng.between(200.0, 601.0) as usize;
        at.extend(std::iter::repeat_n(now, size));
        now += rng.between(1500.0, 2100.0);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_ordered_and_within_its_horizon() {
        for name in NAMES {
            let workload = generate(name, 1).unwrap_or_else(|| panic!("{name}"));
            assert!(workload.tasks.len() > 100, "{name}");
            assert!(workload.tasks.is_sorted_by(|a, b| a.at_s <= b.at_s), "{name}");
            assert!(workload.tasks.iter().all(|task| task.at_s < workload.horizon_s && task.service_s > 0.0), "{name}");
        }
        assert!(generate("unknown", 1).is_none());
    }

    #[test]
    fn equal_seeds_give_equal_tasks_and_others_do_not() {
        assert_eq!(generate("mmpp", 5), generate("mmpp", 5));
        assert_ne!(generate("mmpp", 5), generate("mmpp", 6));
    }
}
