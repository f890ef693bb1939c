//! Flow 3 by example: need, estimate, recommendation.

use qscaler_core::size::{
    Access, AccessGap, CapSource, Confidence, ContainerResources, DAY_S, Estimate, Observation, OuterBound, Peaks, Recommendation, SizeBounds,
    container_id, grow_after_oom, need, observations,
};

const MIB: u64 = 1 << 20;
const T0: f64 = 1_790_000_000.0;

fn peak(mib: u64, limit_mib: u64) -> Observation {
    Observation::Peak { memory_bytes: mib * MIB, cpu_millicores: Some(100), tasks: 1, limit_bytes: Some(limit_mib * MIB), pod_started_s: T0 - 60.0 }
}

fn oom(limit_mib: u64) -> Observation {
    Observation::Oom { limit_bytes: limit_mib * MIB, child: false, at_s: T0 }
}

fn has(mib: u64) -> ContainerResources {
    ContainerResources { memory_request: Some(mib * MIB), memory_limit: Some(mib * MIB), cpu_request_m: Some(500), cpu_limit_m: None }
}

fn at_most(mib: u64) -> SizeBounds {
    SizeBounds { max_memory: Some(mib * MIB), ..SizeBounds::default() }
}

/// An estimate after `n` tasks of `mib` in pods of `limit_mib`, one a second.
fn seen(n: u32, mib: u64, limit_mib: u64) -> Estimate {
    let mut e = Estimate::default();
    for i in 0..n {
        e.observe(&peak(mib, limit_mib), &SizeBounds::default(), T0 + f64::from(i));
    }
    e
}

fn mib_of(r: &Recommendation) -> Option<u64> {
    r.memory_bytes.map(|b| b / MIB)
}

#[test]
fn the_need_is_bounded_by_all_that_was_measured() {
    let m = |p: u64, w: u64, v: u64, l: u64| Peaks {
        cgroup_peak: (p > 0).then_some(p),
        working_set_max: (w > 0).then_some(w),
        vmhwm_sum_max: (v > 0).then_some(v),
        limit: (l > 0).then_some(l),
        ..Peaks::default()
    };
    for (peaks, expected, why) in [
        (m(223, 75, 91, 0), Some(91), "page cache is in the cgroup peak only"),
        (m(120, 70, 91, 120), Some(91), "page cache pins the cgroup peak at the limit"),
        (m(105, 90, 301, 0), Some(105), "staggered children: the VmHWM sum counts what never was at one time"),
        (m(294, 60, 294, 0), Some(294), "a short spike falls between samples"),
        (m(120, 0, 0, 120), Some(120), "the cgroup peak alone"),
        (m(0, 0, 400, 160), Some(160), "processes alone: nobody used more than the limit"),
        (m(0, 0, 0, 160), None, "a limit is no measurement"),
        (m(0, 0, 0, 0), None, "nothing readable"),
    ] {
        assert_eq!(need(&peaks), expected, "{why}");
    }
    // Known spikes take the place of the VmHWM sum, which counts shared pages and programs' files once per process.
    assert_eq!(need(&Peaks { spike_max: Some(48), ..m(128, 45, 114, 128) }), Some(48));
    assert_eq!(need(&Peaks { spike_max: Some(170), ..m(128, 45, 170, 128) }), Some(128));
}

#[test]
fn a_report_becomes_a_peak_and_at_most_one_kill() {
    let first = Peaks {
        cgroup_peak: Some(100),
        working_set_max: Some(80),
        cpu_usage_us: Some(1_000_000),
        limit: Some(160),
        tasks_done: Some(4),
        started_s: Some(T0),
        sampled_s: Some(T0 + 10.0),
        access: Access::Full,
        ..Peaks::default()
    };
    let second = Peaks {
        oom_kills: 3,
        oom_limit: Some(120),
        limit: Some(220),
        cpu_usage_us: Some(6_000_000),
        tasks_done: Some(9),
        sampled_s: Some(T0 + 20.0),
        ..first.clone()
    };
    assert_eq!(
        observations(None, &first, false, T0 + 11.0),
        [Observation::Peak { memory_bytes: 80, cpu_millicores: Some(100), tasks: 4, limit_bytes: Some(160), pod_started_s: T0 }]
    );
    assert_eq!(
        observations(Some(&first), &second, false, T0 + 21.0),
        [
            Observation::Oom { limit_bytes: 120, child: true, at_s: T0 + 20.0 },
            Observation::Peak { memory_bytes: 80, cpu_millicores: Some(500), tasks: 5, limit_bytes: Some(220), pod_started_s: T0 },
        ]
    );
}

#[test]
fn the_peak_of_a_killed_process_is_no_tasks_need() {
    let killed =
        Peaks { cgroup_peak: Some(MIB), working_set_max: Some(MIB), oom_kills: 1, oom_limit: Some(MIB), limit: Some(MIB), ..Peaks::default() };
    let peak_of = |p: &Peaks, before: Option<&Peaks>| {
        observations(before, p, false, T0).into_iter().find_map(|o| match o {
            Observation::Peak { memory_bytes, .. } => Some(memory_bytes),
            Observation::Oom { .. } => None,
        })
    };
    assert_eq!(peak_of(&killed, None), Some(0));
    let resized = Peaks { limit: Some(3 * MIB), ..killed.clone() };
    assert_eq!(peak_of(&resized, Some(&killed)), Some(0), "the maximum is still that of the kill");
    let unsaid = |p: &Peaks| Peaks { oom_limit: None, ..p.clone() };
    assert_eq!(
        observations(None, &unsaid(&resized), false, T0)[0],
        Observation::Oom { limit_bytes: MIB, child: true, at_s: T0 },
        "a kill heard of late is counted at the limit that was hit, not at the one since"
    );
    let used_it = Peaks { cgroup_peak: Some(2 * MIB), working_set_max: Some(2 * MIB), ..resized.clone() };
    assert_eq!(peak_of(&used_it, Some(&killed)), Some(2 * MIB));
    assert_eq!(peak_of(&unsaid(&used_it), Some(&unsaid(&killed))), Some(2 * MIB));
    let mut e = Estimate::default();
    for _ in 0..50 {
        e.observe(
            &Observation::Peak { memory_bytes: 0, cpu_millicores: None, tasks: 1, limit_bytes: Some(MIB), pod_started_s: T0 },
            &SizeBounds::default(),
            T0,
        );
    }
    assert_eq!(e.recommend(&SizeBounds::default(), &has(96), T0).memory_bytes, None, "unknown is not zero");
}

#[test]
fn nothing_seen_changes_nothing() {
    let r = Estimate::default().recommend(&SizeBounds::default(), &has(96), T0);
    assert_eq!((r.memory_bytes, r.cpu_request_m, r.confidence), (None, None, Confidence::None));
}

#[test]
fn a_kill_is_answered_at_once_from_the_limit_that_was_hit() {
    let mut e = Estimate::default();
    e.observe(&oom(96), &SizeBounds::default(), T0);
    let r = e.recommend(&SizeBounds::default(), &has(96), T0);
    assert_eq!(mib_of(&r), Some(196), "{}", r.reason);
    assert!(r.after_oom);
    // The same kill seen on other pods of the old size adds nothing.
    e.observe(&oom(96), &SizeBounds::default(), T0 + 1.0);
    assert_eq!(mib_of(&e.recommend(&SizeBounds::default(), &has(96), T0 + 1.0)), Some(196));
    // One at the new size grows again.
    e.observe(&oom(196), &SizeBounds::default(), T0 + 2.0);
    assert_eq!(mib_of(&e.recommend(&SizeBounds::default(), &has(196), T0 + 2.0)), Some(296));
    assert_eq!(grow_after_oom(1000 * MIB), 1500 * MIB);
}

#[test]
fn a_success_above_the_old_limit_replaces_the_answer_to_the_kill() {
    let mut e = seen(40, 80, 96);
    e.observe(&oom(96), &SizeBounds::default(), T0 + 50.0);
    e.observe(&peak(90, 96), &SizeBounds::default(), T0 + 51.0);
    assert!(e.oom().is_some(), "a task below the old limit proves nothing");
    e.observe(&peak(180, 196), &SizeBounds::default(), T0 + 60.0);
    assert!(e.oom().is_none());
    let r = e.recommend(&SizeBounds::default(), &has(196), T0 + 60.0);
    assert_eq!(r.memory_target_bytes.map(|b| b / MIB), Some(207), "{}", r.reason);
}

#[test]
fn few_samples_widen_the_margin_and_forbid_shrinking() {
    let young = seen(29, 100, 400);
    let r = young.recommend(&SizeBounds::default(), &has(400), T0 + 40.0 * DAY_S);
    assert_eq!((mib_of(&r), r.memory_target_bytes.map(|b| b / MIB)), (Some(400), Some(130)), "{}", r.reason);
    assert_eq!(r.saving_memory_bytes, Some(270 * MIB as i64));
    let r = young.recommend(&SizeBounds::default(), &ContainerResources::default(), T0 + 60.0);
    assert_eq!(r.memory_bytes, None, "an idle worker's first report is no reason for a limit: {}", r.reason);
    let grown = seen(30, 100, 400);
    assert_eq!(grown.recommend(&SizeBounds::default(), &has(400), T0 + 60.0).memory_target_bytes, Some(115 * MIB));
}

#[test]
fn sizes_go_down_by_a_tenth_a_day() {
    let e = seen(40, 100, 400);
    let mut size = 400;
    let mut sizes = Vec::new();
    for day in 1..=16 {
        let r = e.recommend(&SizeBounds::default(), &has(size), T0 + 40.0 + f64::from(day) * DAY_S + 60.0);
        size = mib_of(&r).unwrap();
        sizes.push(size);
    }
    assert_eq!(sizes[..3], [360, 324, 292]);
    assert_eq!(sizes.last(), Some(&126), "the last difference, to 115, is below a tenth: {sizes:?}");
}

#[test]
fn the_next_step_is_announced() {
    let e = seen(40, 100, 400);
    let now = T0 + 100.0;
    let r = e.recommend(&SizeBounds::default(), &has(400), now);
    let next = r.next_change_s.unwrap();
    assert!((next - T0 - DAY_S).abs() < 3600.0, "{next}");
    assert_eq!(e.recommend(&SizeBounds::default(), &has(400), next - 600.0).memory_bytes, Some(400 * MIB));
    assert_eq!(e.recommend(&SizeBounds::default(), &has(400), next + 600.0).memory_bytes, Some(360 * MIB));
}

#[test]
fn at_the_cap_kills_are_named_and_growth_ends() {
    let bounds = at_most(256);
    let mut e = seen(40, 80, 96);
    let mut size = 96;
    for kill in 0..3 {
        e.observe(&oom(size), &bounds, T0 + 100.0);
        size = mib_of(&e.recommend(&bounds, &has(size), T0 + 100.0)).unwrap();
        assert!(size <= 256, "{kill}");
    }
    assert_eq!(size, 256);
    let r = e.recommend(&bounds, &has(256), T0 + 100.0);
    assert_eq!(r.capped.as_ref().unwrap().ooms_at_cap, 1, "{}", r.reason);
    assert!(!e.given_up(&bounds));
    e.observe(&oom(256), &bounds, T0 + 101.0);
    e.observe(&oom(256), &bounds, T0 + 102.0);
    assert!(e.given_up(&bounds));
    // What no limit can serve does not keep the pods large.
    let r = e.recommend(&bounds, &has(256), T0 + 102.0);
    assert_eq!((r.capped.as_ref().unwrap().ooms_at_cap, r.memory_target_bytes), (3, Some(92 * MIB)), "{}", r.reason);
    assert!(r.reason.contains("3 OOM kills there"), "{}", r.reason);
    let small = mib_of(&r).unwrap();
    assert!(small <= 104, "{small}");
    // Within the hour it is not tried again; after it, one kill at the cap is enough to end the try.
    let kill = |e: &mut Estimate, limit: u64, after_s: f64| {
        e.observe(&Observation::Oom { limit_bytes: limit * MIB, child: false, at_s: T0 + after_s }, &bounds, T0 + after_s)
    };
    kill(&mut e, small, 1000.0);
    assert_eq!(mib_of(&e.recommend(&bounds, &has(small), T0 + 1000.0)), Some(small));
    kill(&mut e, small, 5000.0);
    assert_eq!(mib_of(&e.recommend(&bounds, &has(small), T0 + 5000.0)), Some(256));
    kill(&mut e, 256, 5001.0);
    let r = e.recommend(&bounds, &has(256), T0 + 5001.0);
    assert_eq!((mib_of(&r), r.capped.unwrap().ooms_at_cap), (Some(small), 4));
    // A raised cap is an invitation to try again.
    let raised = at_most(1024);
    assert!(!e.given_up(&raised));
    e.observe(&oom(small), &raised, T0 + 5002.0);
    assert_eq!(mib_of(&e.recommend(&raised, &has(small), T0 + 5002.0)), Some(384));
}

#[test]
fn answers_in_vain_are_taken_back_and_the_limit_reached_is_remembered() {
    let bounds = at_most(1024);
    let mut e = seen(40, 80, 100);
    let mut size = 100;
    for _ in 0..5 {
        e.observe(&oom(size), &bounds, T0);
        size = mib_of(&e.recommend(&bounds, &has(size), T0)).unwrap();
    }
    assert_eq!(size, 1013);
    let others = |e: &mut Estimate, from: f64| {
        for i in 0..40 {
            e.observe(&peak(80, 1013), &bounds, from + f64::from(i));
        }
    };
    others(&mut e, T0 + 1000.0);
    assert_eq!(mib_of(&e.recommend(&bounds, &has(1013), T0 + 1100.0)), Some(1013), "it may come back within the hour");
    others(&mut e, T0 + 3700.0);
    let r = e.recommend(&bounds, &has(1013), T0 + 3800.0);
    assert_eq!((mib_of(&r), r.memory_target_bytes), (Some(104), Some(92 * MIB)), "at once: no task was ever seen to need it: {}", r.reason);
    assert!(e.oom().unwrap().taken_back);
    // The next kill goes on where the last one ended, for as long as it is given a chance.
    e.observe(&Observation::Oom { limit_bytes: 104 * MIB, child: false, at_s: T0 + 5000.0 }, &bounds, T0 + 5000.0);
    let r = e.recommend(&bounds, &has(104), T0 + 5000.0);
    assert_eq!((mib_of(&r), r.after_oom), (Some(1013), true), "{}", r.reason);
    others(&mut e, T0 + 5000.0 + 3700.0);
    assert!(e.oom().unwrap().taken_back, "and is taken back again");
    e.observe(&peak(700, 1024), &bounds, T0 + 9000.0);
    assert!(e.oom().is_none(), "a task that used more than the limit reached ends the matter");
    assert_eq!(e.recommend(&bounds, &has(100), T0 + 9000.0).memory_bytes, Some(805 * MIB));
}

#[test]
fn a_new_template_starts_from_what_the_old_one_knew() {
    let old = seen(500, 300, 400);
    let new = Estimate::with_prior(&old);
    let r = new.recommend(&SizeBounds::default(), &has(128), T0 + 600.0);
    assert_eq!(mib_of(&r), Some(345), "{}", r.reason);
    assert_eq!(r.confidence, Confidence::Learning);
    assert_eq!(new.recommend(&SizeBounds::default(), &has(1024), T0 + 600.0).memory_bytes, Some(1024 * MIB), "no shrinking before it is known");
}

#[test]
fn a_weekly_burst_is_remembered_over_idle_days_and_many_small_tasks() {
    let mut e = seen(2, 900, 1000);
    for hour in 1..7 * 24 {
        for _ in 0..60 {
            e.observe(&peak(100, 1000), &SizeBounds::default(), T0 + f64::from(hour) * 3600.0);
        }
    }
    assert_eq!(e.highest_need(), Some(900 * MIB));
    for hour in 7 * 24..9 * 24 {
        e.observe(&peak(100, 1000), &SizeBounds::default(), T0 + f64::from(hour) * 3600.0);
    }
    assert_eq!(e.highest_need(), Some(100 * MIB), "after 8 days and 1000 tasks it is gone");
}

#[test]
fn reports_without_task_counts_are_little_experience() {
    let mut e = Estimate::default();
    for minute in 0..60 {
        let o = Observation::Peak { memory_bytes: 40 * MIB, cpu_millicores: None, tasks: 0, limit_bytes: Some(400 * MIB), pod_started_s: T0 };
        e.observe(&o, &SizeBounds::default(), T0 + 60.0 * f64::from(minute));
    }
    assert!(e.samples() <= 7, "{}", e.samples());
}

#[test]
fn cpu_follows_a_percentile_and_never_passes_the_limit() {
    let mut e = Estimate::default();
    for i in 0..1000u32 {
        let cpu = if i % 50 == 0 { 4000 } else { 300 };
        let o = Observation::Peak { memory_bytes: 50 * MIB, cpu_millicores: Some(cpu), tasks: 1, limit_bytes: Some(64 * MIB), pod_started_s: T0 };
        e.observe(&o, &SizeBounds::default(), T0 + f64::from(i));
    }
    let r = e.recommend(&SizeBounds::default(), &has(64), T0 + 1000.0);
    let cpu = r.cpu_request_m.unwrap();
    assert!((300..=330).contains(&cpu), "{cpu}");
    assert_eq!(r.saving_cpu_m, Some(500 - cpu as i64));
    let limited = ContainerResources { cpu_limit_m: Some(250), cpu_request_m: Some(100), ..has(64) };
    assert_eq!(e.recommend(&SizeBounds::default(), &limited, T0 + 1000.0).cpu_request_m, Some(250));
    let near = ContainerResources { cpu_request_m: Some(cpu + 20), ..has(64) };
    assert_eq!(e.recommend(&SizeBounds::default(), &near, T0 + 1000.0).cpu_request_m, None, "small changes are not worth a write");
}

#[test]
fn the_users_bounds_win_and_say_so() {
    let e = seen(100, 300, 320);
    let r = e.recommend(&at_most(200), &has(320), T0 + 200.0);
    assert_eq!(mib_of(&r), Some(200));
    assert!(r.reason.contains("capped at 200 MiB by the workload's annotations"), "{}", r.reason);
    let floor = SizeBounds { min_memory: Some(512 * MIB), ..SizeBounds::default() };
    assert_eq!(mib_of(&e.recommend(&floor, &has(320), T0 + 200.0)), Some(512));
}

#[test]
fn a_container_s_id_is_found_in_what_the_kubelet_and_the_kernel_call_it() {
    let id = "0123456789abcdef".repeat(4);
    for text in
        [format!("containerd://{id}"), format!("/kubepods/burstable/pod1/{id}\n"), format!("../crio-{id}.scope"), format!("s:cri-containerd:{id}")]
    {
        assert_eq!(container_id(&text), Some(&*id), "{text}");
    }
    let others = ["3", "", "/", "containerd://", "/system.slice/containerd.service"].map(str::to_owned);
    for text in others.into_iter().chain([format!("/{id}/nested"), format!("{id}0"), id.to_uppercase(), "g".repeat(64)]) {
        assert_eq!(container_id(&text), None, "{text}");
    }
}

#[test]
fn the_platforms_bounds_win_over_the_users_and_are_named() {
    let e = seen(100, 300, 320);
    for (outer, user_max, expected, source, words) in [
        (OuterBound::node(300 * MIB, 64 * MIB), None, 236, CapSource::Node, "the size of the largest node"),
        (OuterBound::quota(2000 * MIB, 500 * MIB, 5, 64 * MIB), None, 236, CapSource::Quota, "ResourceQuota"),
        (OuterBound::limit_range(None, Some(512 * MIB), Some(300 * MIB), 100 * MIB), None, 200, CapSource::LimitRange, "LimitRange"),
        (OuterBound::limit_range(Some(16 * MIB), Some(250 * MIB), None, 0), Some(240), 240, CapSource::User, "annotations"),
    ] {
        let bounds = SizeBounds { max_memory: user_max.map(|m| m * MIB), outer: vec![outer], ..SizeBounds::default() };
        let r = e.recommend(&bounds, &has(320), T0 + 200.0);
        assert_eq!((mib_of(&r), r.capped.as_ref().map(|c| c.source)), (Some(expected), Some(source)), "{}", r.reason);
        assert!(r.reason.contains(words), "{}", r.reason);
    }
    let raised = SizeBounds { outer: vec![OuterBound::limit_range(Some(700 * MIB), None, None, 0)], ..SizeBounds::default() };
    assert_eq!(mib_of(&e.recommend(&raised, &has(320), T0 + 200.0)), Some(700), "a LimitRange's minimum is a floor");
    let both = SizeBounds { min_memory: Some(900 * MIB), outer: vec![OuterBound::node(500 * MIB, 0)], ..SizeBounds::default() };
    assert_eq!(mib_of(&e.recommend(&both, &has(320), T0 + 200.0)), Some(500), "a cap wins over a floor: above it no pod would start");
}

#[test]
fn a_kill_below_what_tasks_have_used_is_old_news() {
    let mut e = seen(40, 300, 400);
    let before = e.recommend(&SizeBounds::default(), &has(345), T0 + 50.0).memory_bytes;
    e.observe(&oom(128), &SizeBounds::default(), T0 + 50.0);
    assert_eq!((e.oom(), e.oom_kills()), (None, 1));
    assert_eq!(e.recommend(&SizeBounds::default(), &has(345), T0 + 50.0).memory_bytes, before);
}

#[test]
fn an_estimate_survives_as_json_of_either_version() {
    let e = seen(500, 300, 400);
    let text = serde_json::to_string(&e).unwrap();
    assert_eq!(serde_json::from_str::<Estimate>(&text).unwrap(), e);
    let newer = text.replacen('{', "{\"fromTheFuture\":{\"x\":1},", 1);
    assert_eq!(serde_json::from_str::<Estimate>(&newer).unwrap(), e);
    assert_eq!(serde_json::from_str::<Estimate>("{}").unwrap(), Estimate::default());
}

#[test]
fn a_gap_of_a_later_version_is_read_as_unknown() {
    let peaks: Peaks = serde_json::from_value(serde_json::json!({"access": "processes", "accessGap": "otherUser"})).unwrap();
    assert_eq!(peaks.access_gap, Some(AccessGap::OtherUser));
    let later: Peaks = serde_json::from_value(serde_json::json!({"access": "processes", "accessGap": "somethingNew"})).unwrap();
    assert_eq!(later.access_gap, Some(AccessGap::Unknown));
}
