//! The resize state machine as tables: cluster versions, QoS classes, conditions and their ages, refusals, holds.

use qscaler_core::size::{
    ClusterVersion, ContainerResources, InProgress, Pending, PendingReason, PodPhase, QosClass, RateCap, Recommendation, RefusalCause, ResizeFacts,
    ResizePlan, ResizeRefusal, plan_resize,
};

const MIB: u64 = 1 << 20;
const NOW: f64 = 1_790_000_000.0;

fn v(minor: u32) -> ClusterVersion {
    ClusterVersion { major: 1, minor }
}

fn size(mib: u64) -> ContainerResources {
    ContainerResources { memory_request: Some(mib * MIB), memory_limit: Some(mib * MIB), cpu_request_m: Some(200), cpu_limit_m: None }
}

/// A settled, idle, running pod of this size.
fn pod(mib: u64) -> ResizeFacts {
    ResizeFacts {
        phase: PodPhase::Running,
        idle: true,
        spec: size(mib),
        status: Some(size(mib)),
        usage_bytes: Some(20 * MIB),
        age_s: 3600.0,
        ..ResizeFacts::default()
    }
}

/// A recommendation of this size, needed to the last MiB.
fn rec(mib: u64) -> Recommendation {
    Recommendation { memory_bytes: Some(mib * MIB), memory_min_bytes: Some(mib * MIB), reason: "because".to_owned(), ..Recommendation::default() }
}

fn after_oom(mib: u64) -> Recommendation {
    Recommendation { after_oom: true, ..rec(mib) }
}

fn pending(reason: PendingReason, age_s: f64) -> Option<Pending> {
    Some(Pending { reason, since_s: NOW - age_s, message: "Node didn't have enough resource: memory".to_owned(), current: true })
}

fn refused(cause: RefusalCause, mib: u64, age_s: f64) -> Option<ResizeRefusal> {
    Some(ResizeRefusal { cause, wanted_memory: mib * MIB, at_s: NOW - age_s })
}

/// A plan in one word, with the MiB that it sets.
fn word(plan: &ResizePlan) -> String {
    let mib = |b: Option<u64>| b.map_or_else(|| "same".to_owned(), |b| (b / MIB).to_string());
    match plan {
        ResizePlan::None { .. } => "none".to_owned(),
        ResizePlan::Up { patch, urgent, .. } => format!("up {}{}", mib(patch.memory_bytes), if *urgent { " urgent" } else { "" }),
        ResizePlan::Down { patch, .. } => format!("down {}", mib(patch.memory_bytes)),
        ResizePlan::Wait { state, overdue, .. } => format!("wait {state:?}{}", if *overdue { " overdue" } else { "" }),
        ResizePlan::RollBack { to, infeasible, .. } => format!("back {}{}", mib(to.memory_limit), if *infeasible { " infeasible" } else { "" }),
        ResizePlan::NewPodsOnly { .. } => "new pods".to_owned(),
        ResizePlan::Conflict { writer } => format!("conflict {writer}"),
    }
}

fn check(rows: &[(&str, Recommendation, ResizeFacts, u32, &str)]) {
    for (why, rec, pod, minor, expected) in rows {
        let plan = plan_resize(rec, pod, v(*minor), NOW);
        assert_eq!(word(&plan), *expected, "{why}: {plan:?}");
    }
}

#[test]
fn each_cluster_version_does_what_it_can() {
    check(&[
        ("1.32 has no resize", rec(200), pod(100), 32, "new pods"),
        ("1.32 neither after a kill", after_oom(200), pod(100), 32, "new pods"),
        ("1.33 grows", rec(200), pod(100), 33, "up 200"),
        ("1.33 does not shrink memory", rec(80), pod(100), 33, "none"),
        ("1.34 shrinks", rec(80), pod(100), 34, "down 80"),
        ("1.35 grows", rec(200), pod(100), 35, "up 200"),
        ("1.35 shrinks", rec(80), pod(100), 35, "down 80"),
        ("1.36 grows", after_oom(200), pod(100), 36, "up 200 urgent"),
        ("1.36 says NodeCapacity", rec(200), ResizeFacts { refusal: refused(RefusalCause::NodeCapacity, 200, 9e5), ..pod(100) }, 36, "new pods"),
        (
            "less than what the node refused may fit",
            rec(150),
            ResizeFacts { refusal: refused(RefusalCause::NodeCapacity, 200, 1.0), ..pod(100) },
            36,
            "up 150",
        ),
        ("a gate that is off", rec(200), ResizeFacts { refusal: refused(RefusalCause::NoSubresource, 200, 1.0), ..pod(100) }, 33, "new pods"),
        ("a server that refuses decreases", rec(80), ResizeFacts { refusal: refused(RefusalCause::Decrease, 80, 1.0), ..pod(100) }, 34, "none"),
    ]);
}

#[test]
fn the_qos_class_is_kept() {
    let equal = |mib| ContainerResources { cpu_limit_m: Some(200), ..size(mib) };
    let guaranteed = |mib| ResizeFacts { qos: QosClass::Guaranteed, spec: equal(mib), status: Some(equal(mib)), others_guaranteed: true, ..pod(mib) };
    let loose = ContainerResources { memory_request: Some(50 * MIB), ..equal(100) };
    check(&[
        (
            "BestEffort gains nothing",
            rec(200),
            ResizeFacts { qos: QosClass::BestEffort, spec: ContainerResources::default(), ..pod(100) },
            35,
            "new pods",
        ),
        ("Guaranteed stays equal", rec(200), guaranteed(100), 35, "up 200"),
        (
            "Burstable would become Guaranteed",
            rec(200),
            ResizeFacts { spec: loose, status: Some(loose), others_guaranteed: true, ..pod(100) },
            35,
            "new pods",
        ),
        ("another container keeps it Burstable", rec(200), ResizeFacts { spec: loose, status: Some(loose), ..pod(100) }, 35, "up 200"),
        (
            "Guaranteed with CPU that should change: memory alone",
            Recommendation { cpu_request_m: Some(50), ..rec(200) },
            guaranteed(100),
            35,
            "up 200",
        ),
    ]);
}

#[test]
fn pods_that_leave_or_do_not_run_are_left_alone() {
    check(&[
        ("held", after_oom(200), ResizeFacts { held: true, ..pod(100) }, 35, "none"),
        ("terminating", after_oom(200), ResizeFacts { terminating: true, ..pod(100) }, 35, "none"),
        ("pending", rec(200), ResizeFacts { phase: PodPhase::Pending, ..pod(100) }, 35, "none"),
        ("finished", rec(200), ResizeFacts { phase: PodPhase::Succeeded, ..pod(100) }, 35, "none"),
        ("held with a resize that will never be done", rec(200), ResizeFacts { held: true, spec: size(150), ..pod(100) }, 35, "none"),
        ("a VPA sizes it", rec(200), ResizeFacts { other_writer: Some("vpa/orders".to_owned()), ..pod(100) }, 35, "conflict vpa/orders"),
        ("a resize would restart it", rec(200), ResizeFacts { memory_resize_restarts: true, ..pod(100) }, 35, "new pods"),
    ]);
}

#[test]
fn conditions_are_states_with_an_age() {
    let asked = |mib: u64, p: Option<Pending>| ResizeFacts { spec: size(mib), pending: p, ..pod(100) };
    let stale = Some(Pending { current: false, ..pending(PendingReason::Infeasible, 5.0).unwrap() });
    let progress = |error: bool, age_s: f64| Some(InProgress { error, since_s: NOW - age_s, message: String::new() });
    check(&[
        ("infeasible: the spec is put back", rec(200), asked(200, pending(PendingReason::Infeasible, 0.0)), 33, "back 100 infeasible"),
        ("infeasible and already put back", rec(200), asked(100, pending(PendingReason::Infeasible, 0.0)), 33, "new pods"),
        (
            "put back: not asked for again",
            rec(200),
            ResizeFacts { refusal: refused(RefusalCause::NodeCapacity, 200, 9e9), ..pod(100) },
            33,
            "new pods",
        ),
        ("a condition about an older spec", rec(200), asked(200, stale), 33, "wait InProgress"),
        ("deferred", rec(200), asked(200, pending(PendingReason::Deferred, 10.0)), 35, "wait Deferred"),
        ("deferred for long: still no eviction", rec(200), asked(200, pending(PendingReason::Deferred, 301.0)), 35, "wait Deferred overdue"),
        ("deferred for a day", rec(200), asked(200, pending(PendingReason::Deferred, 86400.0)), 35, "wait Deferred overdue"),
        ("deferred and needed no longer", rec(90), asked(200, pending(PendingReason::Deferred, 10.0)), 35, "back 100"),
        ("in progress", rec(200), ResizeFacts { in_progress: progress(false, 5.0), ..asked(200, None) }, 35, "wait InProgress"),
        ("in progress for long", rec(200), ResizeFacts { in_progress: progress(false, 90.0), ..asked(200, None) }, 35, "wait InProgress overdue"),
        (
            "an increase with an error is tried by the kubelet",
            rec(200),
            ResizeFacts { in_progress: progress(true, 5.0), ..asked(200, None) },
            35,
            "wait InProgress",
        ),
        ("a status without a limit says nothing", rec(200), ResizeFacts { status: Some(ContainerResources::default()), ..pod(100) }, 35, "up 200"),
        (
            "infeasible, and nothing known to go back to",
            rec(200),
            ResizeFacts { status: Some(ContainerResources::default()), ..asked(200, pending(PendingReason::Infeasible, 0.0)) },
            33,
            "new pods",
        ),
        ("no word yet", rec(200), ResizeFacts { last_resize_s: Some(NOW - 1.0), ..asked(200, None) }, 35, "wait InProgress"),
        (
            "another kill while growing",
            after_oom(300),
            ResizeFacts { in_progress: progress(false, 5.0), last_resize_s: Some(NOW - 5.0), ..asked(200, None) },
            35,
            "up 300 urgent",
        ),
        ("a decrease that failed is taken back", rec(80), ResizeFacts { in_progress: progress(true, 5.0), ..asked(80, None) }, 35, "back 100"),
        ("a decrease on a pod that became busy is taken back", rec(80), ResizeFacts { idle: false, ..asked(80, None) }, 35, "back 100"),
        (
            "a decrease on a pod that uses more now is taken back",
            rec(80),
            ResizeFacts { usage_bytes: Some(70 * MIB), ..asked(80, None) },
            35,
            "back 100",
        ),
        ("a decrease on its way", rec(80), asked(80, None), 35, "wait InProgress"),
    ]);
}

#[test]
fn down_is_for_idle_pods_with_room() {
    check(&[
        ("busy", rec(80), ResizeFacts { idle: false, ..pod(100) }, 35, "none"),
        ("use unknown", rec(80), ResizeFacts { usage_bytes: None, ..pod(100) }, 35, "none"),
        ("use at 80 %", rec(80), ResizeFacts { usage_bytes: Some(64 * MIB), ..pod(100) }, 35, "none"),
        ("use below 80 %", rec(80), ResizeFacts { usage_bytes: Some(63 * MIB), ..pod(100) }, 35, "down 80"),
        ("just started", rec(80), ResizeFacts { age_s: 5.0, ..pod(100) }, 35, "none"),
        ("less than a tenth", rec(91), pod(100), 35, "none"),
        ("a tenth", rec(90), pod(100), 35, "down 90"),
        (
            "a first limit is a decrease too",
            rec(80),
            ResizeFacts { idle: false, spec: ContainerResources { memory_limit: None, ..size(50) }, status: None, ..pod(50) },
            35,
            "none",
        ),
        (
            "a first limit on an idle pod",
            rec(80),
            ResizeFacts { spec: ContainerResources { memory_limit: None, ..size(50) }, status: None, ..pod(50) },
            35,
            "down 80",
        ),
        ("up does not mind a task", rec(200), ResizeFacts { idle: false, usage_bytes: Some(99 * MIB), ..pod(100) }, 35, "up 200"),
        ("up within the margin is not worth a write", Recommendation { memory_min_bytes: Some(95 * MIB), ..rec(105) }, pod(100), 35, "none"),
    ]);
}

#[test]
fn one_pod_is_not_resized_again_and_again() {
    let fresh = |age: f64| ResizeFacts { last_resize_s: Some(NOW - age), ..pod(100) };
    check(&[
        ("a moment ago", rec(200), fresh(10.0), 35, "wait RateCapped"),
        ("down, a moment ago", rec(80), fresh(10.0), 35, "wait RateCapped"),
        ("a minute ago", rec(200), fresh(60.0), 35, "up 200"),
        ("a kill does not wait", after_oom(200), fresh(1.0), 35, "up 200 urgent"),
        ("quota refused", after_oom(200), ResizeFacts { refusal: refused(RefusalCause::Quota, 200, 10.0), ..pod(100) }, 35, "wait Refused overdue"),
        ("quota refused a while ago", rec(200), ResizeFacts { refusal: refused(RefusalCause::Quota, 200, 301.0), ..pod(100) }, 35, "up 200"),
        (
            "refused an increase, wants a decrease",
            rec(80),
            ResizeFacts { refusal: refused(RefusalCause::Quota, 200, 10.0), ..pod(100) },
            35,
            "down 80",
        ),
    ]);
    let mut cap = RateCap::new(0.5, 2.0, NOW);
    let granted = |cap: &mut RateCap, at: f64| cap.take(NOW + at);
    assert_eq!(
        [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 100.0, 100.0, 100.0].map(|at| granted(&mut cap, at)),
        [true, true, false, false, true, false, true, true, false]
    );
    assert!(!RateCap::new(f64::NAN, -1.0, NOW).take(NOW));
}

#[test]
fn cpu_requests_move_alone_and_never_hold_memory_up() {
    let cpu = |m: u64, r: Recommendation| Recommendation { cpu_request_m: Some(m), ..r };
    let plan = |r: &Recommendation, p: &ResizeFacts| plan_resize(r, p, v(33), NOW);
    let ResizePlan::Up { patch, .. } = plan(&cpu(400, rec(200)), &pod(100)) else { panic!() };
    assert_eq!((patch.memory_bytes, patch.cpu_request_m), (Some(200 * MIB), None), "more CPU may be deferred, and both are one patch");
    let ResizePlan::Up { patch, .. } = plan(&cpu(100, rec(200)), &pod(100)) else { panic!() };
    assert_eq!(patch.cpu_request_m, Some(100));
    let ResizePlan::Up { patch, urgent, .. } = plan(&cpu(400, after_oom(100)), &pod(100)) else { panic!() };
    assert_eq!((patch.memory_bytes, patch.cpu_request_m, urgent), (None, Some(400), false));
    let ResizePlan::Down { patch, .. } = plan(&cpu(100, rec(80)), &pod(100)) else { panic!() };
    assert_eq!((patch.memory_bytes, patch.cpu_request_m), (None, Some(100)), "1.33 lowers CPU requests, not memory limits");
    assert_eq!(word(&plan(&cpu(190, rec(100)), &pod(100))), "none");
    let limited = ResizeFacts { spec: ContainerResources { cpu_limit_m: Some(250), ..size(100) }, ..pod(100) };
    let ResizePlan::Up { patch, .. } = plan(&cpu(400, rec(100)), &limited) else { panic!() };
    assert_eq!(patch.cpu_request_m, Some(250));
}

#[test]
fn versions_parse_with_the_suffixes_of_clouds() {
    assert_eq!(ClusterVersion::parse("1", "33+"), Some(v(33)));
    assert_eq!(ClusterVersion::parse("1", "36"), Some(v(36)));
    assert_eq!(ClusterVersion::parse("1", ""), None);
    assert_eq!(ClusterVersion::parse("v1", "33"), None);
}
