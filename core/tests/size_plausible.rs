//! Reports are believed within physics only.

use qscaler_core::size::{Implausible, PeakFacts, Peaks, plausible};

const MIB: u64 = 1 << 20;

fn facts() -> PeakFacts {
    PeakFacts {
        pod_exists: true,
        belongs: true,
        limit_bytes: Some(100 * MIB),
        node_memory_bytes: Some(4096 * MIB),
        node_cpu_m: Some(2000),
        age_s: 100.0,
        previous: None,
    }
}

fn report() -> Peaks {
    Peaks {
        cgroup_peak: Some(100 * MIB),
        working_set_max: Some(80 * MIB),
        vmhwm_sum_max: Some(250 * MIB),
        oom_kills: 1,
        cpu_usage_us: Some(50_000_000),
        limit: Some(100 * MIB),
        tasks_done: Some(7),
        ..Peaks::default()
    }
}

#[test]
fn a_true_report_is_believed() {
    assert_eq!(plausible(&report(), &facts()), Ok(()), "a VmHWM sum above the limit counts shared pages twice");
    assert_eq!(plausible(&Peaks::default(), &facts()), Ok(()));
    assert_eq!(plausible(&report(), &PeakFacts { limit_bytes: None, node_memory_bytes: None, node_cpu_m: None, ..facts() }), Ok(()));
}

#[test]
fn each_broken_law_is_named() {
    let before = |p: Peaks| PeakFacts { previous: Some(p), ..facts() };
    for (why, report, facts) in [
        ("no pod", report(), PeakFacts { pod_exists: false, ..facts() }),
        ("other workload", report(), PeakFacts { belongs: false, ..facts() }),
        ("above the limit", Peaks { cgroup_peak: Some(103 * MIB), ..report() }, facts()),
        ("working set above the limit", Peaks { cgroup_peak: None, working_set_max: Some(200 * MIB), ..report() }, facts()),
        ("a limit it never had", Peaks { limit: Some(9000 * MIB), ..report() }, facts()),
        (
            "above the node",
            Peaks { cgroup_peak: None, working_set_max: None, vmhwm_sum_max: Some(1 << 50), limit: None, ..report() },
            PeakFacts { limit_bytes: None, ..facts() },
        ),
        ("more CPU than time", Peaks { cpu_usage_us: Some(400_000_000), ..report() }, facts()),
        ("kills went back", report(), before(Peaks { oom_kills: 2, ..Peaks::default() })),
        ("CPU went back", report(), before(Peaks { cpu_usage_us: Some(60_000_000), ..Peaks::default() })),
        ("tasks went back", report(), before(Peaks { tasks_done: Some(8), ..Peaks::default() })),
    ] {
        let error = plausible(&report, &facts);
        assert!(error.is_err(), "{why}");
    }
    let error = plausible(&report(), &before(Peaks { tasks_done: Some(8), ..Peaks::default() })).unwrap_err();
    assert_eq!(error, Implausible::WentBack { counter: "tasksDone", before: 8, after: 7 });
    assert_eq!(error.to_string(), "tasksDone went back from 8 to 7 within one container");
}
