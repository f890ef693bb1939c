//! Flow 3 by properties: what holds for any history.

use proptest::prelude::*;
use qscaler_core::size::{
    ClusterVersion, ContainerResources, DAY_S, Estimate, InProgress, Observation, PeakFacts, Peaks, Pending, PendingReason, PodPhase, QosClass,
    ResizeFacts, ResizePlan, SizeBounds, grow_after_oom, need, observations, plan_resize, plausible,
};

const MIB: u64 = 1 << 20;
const T0: f64 = 1_790_000_000.0;
/// Rounding to whole MiB, once up and once down.
const ROUND: u64 = 2 * MIB;

/// A task in a pod of the recommended size: what it needs, and how long after the one before it ends.
#[derive(Clone, Copy, Debug)]
struct Task {
    need_mib: u64,
    gap_s: f64,
}

fn tasks(most: usize) -> impl Strategy<Value = Vec<Task>> {
    let need = prop_oneof![4 => 20..200u64, 1 => 200..3000u64];
    let gap = prop_oneof![3 => 0.0..60.0f64, 2 => 600.0..7200.0f64, 1 => 0.0..(4.0 * DAY_S)];
    proptest::collection::vec((need, gap).prop_map(|(need_mib, gap_s)| Task { need_mib, gap_s }), 1..most)
}

fn bounds() -> impl Strategy<Value = SizeBounds> {
    (proptest::option::of(16..600u64), proptest::option::of(100..4000u64)).prop_map(|(min, max)| SizeBounds {
        min_memory: min.map(|m| m * MIB),
        max_memory: max.map(|m| m * MIB),
        ..SizeBounds::default()
    })
}

fn sized(bytes: u64) -> ContainerResources {
    ContainerResources { memory_request: Some(bytes), memory_limit: Some(bytes), cpu_request_m: Some(100), cpu_limit_m: None }
}

/// One step of a run in which every recommendation is applied at once.
struct Step {
    now_s: f64,
    task: Task,
    size: u64,
    killed: bool,
    /// Kills so far, and the size is the answer to one: answers are guesses, and give way to what is seen at once.
    kills: u32,
    answered: bool,
}

/// Runs tasks one after the other in pods of the recommended size, starting at `start` bytes. A task that does not fit is killed, once.
fn run(e: &mut Estimate, tasks: &[Task], bounds: &SizeBounds, start: u64) -> Vec<Step> {
    let (mut now_s, mut size) = (T0, start);
    let mut steps = Vec::new();
    let (mut kills, mut guess) = (0, 0);
    for &task in tasks {
        now_s += task.gap_s;
        size = e.recommend(bounds, &sized(size), now_s).memory_bytes.unwrap_or(size);
        let killed = task.need_mib * MIB > size;
        let memory_bytes = if killed { 0 } else { task.need_mib * MIB };
        e.observe(
            &Observation::Peak {
                memory_bytes,
                cpu_millicores: Some(50),
                tasks: u32::from(!killed),
                limit_bytes: Some(size),
                pod_started_s: now_s - 60.0,
            },
            bounds,
            now_s,
        );
        if killed {
            e.observe(&Observation::Oom { limit_bytes: size, child: false, at_s: now_s }, bounds, now_s);
        }
        let answered = e.oom().is_some_and(|o| !o.taken_back);
        kills += u32::from(killed);
        steps.push(Step { now_s, task, size, killed, kills, answered: killed || size == guess });
        size = e.recommend(bounds, &sized(size), now_s).memory_bytes.unwrap_or(size);
        guess = if answered { size } else { guess };
        steps.push(Step { now_s, task: Task { need_mib: 0, gap_s: 0.0 }, size, killed: false, kills, answered: size == guess });
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn estimate_never_below_the_highest_recent_peak(tasks in tasks(300), bounds in bounds(), start in 32..2048u64) {
        let mut e = Estimate::default();
        let steps = run(&mut e, &tasks, &bounds, start * MIB);
        let now_s = steps.last().map_or(T0, |s| s.now_s);
        let size = e.recommend(&bounds, &sized(start * MIB), now_s).memory_bytes.unwrap();
        let highest = steps.iter().filter(|s| s.now_s >= now_s - 8.0 * DAY_S).filter(|s| !s.killed).map(|s| s.task.need_mib * MIB).max().unwrap_or(0);
        prop_assert!(size >= bounds.clamp_memory(highest), "{size} < {highest}");
        let last_1000 = steps.iter().filter(|s| !s.killed).map(|s| s.task.need_mib * MIB).max().unwrap_or(0);
        prop_assert!(size >= bounds.clamp_memory(last_1000), "fewer than 1000 tasks are all recent: {size} < {last_1000}");
    }

    #[test]
    fn down_steps_are_bounded(tasks in tasks(300), bounds in bounds(), start in 32..4096u64) {
        let start = bounds.clamp_memory(start * MIB);
        let mut e = Estimate::default();
        let steps = run(&mut e, &tasks, &bounds, start);
        for (i, a) in steps.iter().enumerate().step_by(7) {
            for b in steps[i..].iter().step_by(5) {
                if a.answered || a.kills != b.kills {
                    continue;
                }
                // One step may be due already when the first is taken, since small differences wait.
                let days = (b.now_s - a.now_s) / DAY_S + 1.0;
                let least = (a.size as f64 * 0.9f64.powf(days)) as u64;
                prop_assert!(b.size + ROUND >= least, "{} to {} MiB in {days:.2} days", a.size / MIB, b.size / MIB);
            }
        }
    }

    #[test]
    fn recommendation_within_bounds(tasks in tasks(60), bounds in bounds(), start in 1..8192u64) {
        let mut e = Estimate::default();
        for step in run(&mut e, &tasks, &bounds, start * MIB).iter().skip(1) {
            prop_assert_eq!(step.size, bounds.clamp_memory(step.size));
        }
    }

    #[test]
    fn an_oom_at_the_cap_adds_no_sample(tasks in tasks(60), cap in 100..1000u64, kills in 1..20usize) {
        let bounds = SizeBounds { max_memory: Some(cap * MIB), ..SizeBounds::default() };
        let mut e = Estimate::default();
        run(&mut e, &tasks, &bounds, cap * MIB);
        let now_s = T0 + 1e7;
        e.observe(&Observation::Oom { limit_bytes: cap * MIB, child: false, at_s: now_s }, &bounds, now_s);
        let before = e.clone();
        for _ in 0..kills {
            e.observe(&Observation::Oom { limit_bytes: cap * MIB, child: false, at_s: now_s }, &bounds, now_s);
            let r = e.recommend(&bounds, &sized(cap * MIB), now_s);
            prop_assert!(r.memory_bytes.is_none_or(|m| m <= cap * MIB));
        }
        prop_assert_eq!(e.window(), before.window());
        prop_assert_eq!(e.samples(), before.samples());
        let capped = e.recommend(&bounds, &sized(cap * MIB), now_s).capped.unwrap();
        prop_assert!(capped.ooms_at_cap as usize >= kills.min(3));
        // The uncapped wish does not run away either: it is the answer to a kill at the cap, whatever their number.
        prop_assert!(capped.wanted_bytes <= (grow_after_oom(cap * MIB) + MIB).max(before.highest_need().unwrap_or(0) * 13 / 10 + ROUND));
    }

    #[test]
    fn the_loop_of_one_task_that_never_fits_is_bounded(start in 16..512u64, cap in 512..65536u64) {
        let bounds = SizeBounds { max_memory: Some(cap * MIB), ..SizeBounds::default() };
        let mut e = Estimate::default();
        let poison = vec![Task { need_mib: u64::MAX >> 21, gap_s: 1.0 }; 60];
        let kills = run(&mut e, &poison, &bounds, start * MIB).iter().filter(|s| s.killed).take_while(|s| s.size < cap * MIB).count();
        // 100 MiB more up to 200 MiB, half more from there.
        let most = 4 + ((cap as f64 / 200.0).ln().max(0.0) / 1.5f64.ln()) as usize;
        prop_assert!(kills <= most, "{} kills from {} to {} MiB, at most {}", kills, start, cap, most);
        prop_assert!(e.given_up(&bounds));
    }

    #[test]
    fn every_kill_below_the_cap_grows_by_half_and_100_mib(limit in 16..30000u64) {
        let mut e = Estimate::default();
        let bounds = SizeBounds::default();
        e.observe(&Observation::Oom { limit_bytes: limit * MIB, child: true, at_s: T0 }, &bounds, T0);
        let size = e.recommend(&bounds, &sized(limit * MIB), T0).memory_bytes.unwrap();
        prop_assert!(size >= limit * MIB * 3 / 2 && size >= (limit + 100) * MIB);
        prop_assert!(size <= (limit * MIB * 3 / 2).max((limit + 100) * MIB) + MIB);
    }

    #[test]
    fn an_estimate_stays_below_4_kib(tasks in tasks(2000), cpus in proptest::collection::vec(0..200_000u64, 1..500)) {
        let mut e = Estimate::default();
        let steps = run(&mut e, &tasks, &SizeBounds::default(), 512 * MIB);
        let mut now_s = steps.last().map_or(T0, |s| s.now_s);
        for cpu in cpus {
            now_s += 1_234.567_891;
            let o = Observation::Peak { memory_bytes: (1 << 45) + cpu, cpu_millicores: Some(cpu), tasks: u32::MAX, limit_bytes: None, pod_started_s: now_s };
            e.observe(&o, &SizeBounds::default(), now_s);
        }
        let text = serde_json::to_string(&e).unwrap();
        prop_assert!(text.len() <= 4096, "{} bytes", text.len());
        let back: Estimate = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back.recommend(&SizeBounds::default(), &sized(MIB), now_s), e.recommend(&SizeBounds::default(), &sized(MIB), now_s));
    }

    #[test]
    fn equal_histories_give_equal_estimates(tasks in tasks(100)) {
        let (mut a, mut b) = (Estimate::default(), Estimate::default());
        run(&mut a, &tasks, &SizeBounds::default(), 64 * MIB);
        run(&mut b, &tasks, &SizeBounds::default(), 64 * MIB);
        prop_assert_eq!(a, b);
    }

    #[test]
    fn page_cache_does_not_inflate(anon in 1..1000u64, cache in 0..100_000u64, limit in 1000..2000u64) {
        let peaks = Peaks {
            cgroup_peak: Some((anon + cache).min(limit)),
            working_set_max: Some(anon),
            vmhwm_sum_max: Some(anon),
            limit: Some(limit),
            ..Peaks::default()
        };
        prop_assert_eq!(need(&peaks), Some(anon));
    }

    #[test]
    fn what_the_kernel_can_say_is_plausible_and_folds_without_loss(
        reports in proptest::collection::vec((0..1_000_000u64, 0..100_000u64, 0..3u64, 0..50u64), 1..20),
        // Above every peak by more than the 1 % within which a killed process's peak is left unknown on purpose.
        limit in 1_020_000..2_000_000u64,
    ) {
        let mut previous: Option<Peaks> = None;
        let (mut kills, mut done, mut highest) = (0, 0, 0);
        for (i, (peak, cpu_us, oom, tasks)) in reports.into_iter().enumerate() {
            let old = previous.clone().unwrap_or_default();
            let report = Peaks {
                cgroup_peak: old.cgroup_peak.max(Some(peak)),
                cpu_usage_us: Some(old.cpu_usage_us.unwrap_or(0) + cpu_us),
                oom_kills: old.oom_kills + oom,
                oom_limit: (old.oom_kills + oom > 0).then_some(limit),
                tasks_done: Some(old.tasks_done.unwrap_or(0) + tasks),
                limit: Some(limit),
                started_s: Some(T0),
                sampled_s: Some(T0 + i as f64 + 1.0),
                ..Peaks::default()
            };
            let facts = PeakFacts { pod_exists: true, belongs: true, limit_bytes: Some(limit), node_cpu_m: Some(1000), age_s: i as f64 + 1.0, previous: previous.clone(), ..PeakFacts::default() };
            prop_assert_eq!(plausible(&report, &facts), Ok(()));
            for o in observations(previous.as_ref(), &report, false, T0 + i as f64 + 1.5) {
                match o {
                    Observation::Peak { memory_bytes, tasks, .. } => {
                        highest = highest.max(memory_bytes);
                        done += u64::from(tasks);
                    }
                    Observation::Oom { limit_bytes, child, .. } => {
                        kills += 1;
                        prop_assert!(child && limit_bytes == limit);
                    }
                }
            }
            previous = Some(report);
        }
        let last = previous.unwrap();
        prop_assert_eq!(Some(highest), last.cgroup_peak);
        prop_assert_eq!(Some(done), last.tasks_done);
        prop_assert_eq!(kills > 0, last.oom_kills > 0);
    }
}

fn facts() -> impl Strategy<Value = ResizeFacts> {
    let size = || proptest::option::of(16..2000u64);
    let phase = prop_oneof![5 => Just(PodPhase::Running), 1 => Just(PodPhase::Pending), 1 => Just(PodPhase::Unknown)];
    let qos = prop_oneof![3 => Just(QosClass::Burstable), 1 => Just(QosClass::Guaranteed), 1 => Just(QosClass::BestEffort)];
    let reason = prop_oneof![Just(PendingReason::Deferred), Just(PendingReason::Infeasible)];
    let pending = proptest::option::of((reason, 0.0..1e5f64, any::<bool>()))
        .prop_map(|p| p.map(|(reason, age_s, current)| Pending { reason, since_s: T0 - age_s, message: String::new(), current }));
    let progress = proptest::option::of((any::<bool>(), 0.0..1e5f64))
        .prop_map(|p| p.map(|(error, age_s)| InProgress { error, since_s: T0 - age_s, message: String::new() }));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let resources = |m: Option<u64>| ContainerResources {
        memory_request: m.map(|m| m * MIB),
        memory_limit: m.map(|m| m * MIB),
        cpu_request_m: Some(100),
        cpu_limit_m: None,
    };
    ((phase, qos, pending, progress), (size(), size(), size()), flags).prop_map(
        move |((phase, qos, pending, in_progress), (spec, status, usage), flags)| ResizeFacts {
            phase,
            qos,
            pending,
            in_progress,
            spec: resources(spec),
            status: status.map(|s| resources(Some(s))),
            usage_bytes: usage.map(|u| u * MIB),
            terminating: flags.0 && flags.1,
            held: flags.1 && flags.2,
            idle: flags.2,
            others_guaranteed: flags.3,
            memory_resize_restarts: flags.4 && flags.0,
            age_s: 1000.0,
            ..ResizeFacts::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_endangers_a_task(pod in facts(), tasks in tasks(40), minor in 30..40u32) {
        let mut e = Estimate::default();
        run(&mut e, &tasks, &SizeBounds::default(), 256 * MIB);
        let rec = e.recommend(&SizeBounds::default(), &pod.spec, T0 + 1e6);
        let version = ClusterVersion { major: 1, minor };
        let plan = plan_resize(&rec, &pod, version, T0);
        let leaving = pod.terminating || pod.held;
        match &plan {
            ResizePlan::Up { patch, .. } => {
                prop_assert!(!leaving && minor >= 33 && pod.phase == PodPhase::Running && pod.qos != QosClass::BestEffort && !pod.memory_resize_restarts);
                prop_assert!(patch.memory_bytes.is_none_or(|m| pod.spec.memory_limit.is_some_and(|l| m >= l)));
            }
            ResizePlan::Down { patch, .. } => {
                prop_assert!(!leaving && minor >= 33 && pod.phase == PodPhase::Running && !pod.memory_resize_restarts);
                if let Some(m) = patch.memory_bytes {
                    prop_assert!(minor >= 34 && pod.idle, "memory goes down on idle pods of 1.34 and later");
                    prop_assert!(pod.usage_bytes.is_some_and(|u| u < m / 10 * 8 + MIB));
                    prop_assert!(pod.pending.is_none() && pod.in_progress.is_none());
                }
            }
            ResizePlan::RollBack { to, .. } => {
                prop_assert!(!leaving && Some(*to) == pod.status);
            }
            ResizePlan::Wait { until_s, .. } => prop_assert!(*until_s >= T0, "a wait has an end to come: {:?}", plan),
            ResizePlan::None { .. } | ResizePlan::NewPodsOnly { .. } | ResizePlan::Conflict { .. } => {}
        }
    }
}
