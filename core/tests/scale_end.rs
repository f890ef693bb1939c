//! The end of a load, as clusters have shown it: what still runs keeps the pods that it occupies, nobody waits beside them for a rate that nothing bears out, and
//! after the last task no pod is left within a minute. Left to others: what comes while load is there (`scale.rs`), true inputs (`scale_truth.rs`).

use qscaler_core::scale::{Completion, FleetSample, Learned, QueueSample, ScaleConfig, ScaleDecision, decide};

/// Five Celery pods that have been there for two minutes, held by `min-replicas`, and two tasks of 90 s that two of them take at once; from 20 s on no pod is
/// held. `unacked` gives what the broker says that consumers hold while so many run. Each second's decision from then on, to a minute after the last task.
fn two_long_tasks(cfg: &ScaleConfig, unacked: impl Fn(u64) -> Option<u64>) -> Vec<ScaleDecision> {
    let (mut learned, mut pods, mut decisions) = (Learned::default(), 5, Vec::new());
    for second in -120..170 {
        let running: u32 = if (0..90).contains(&second) { 2 } else { 0 };
        let fleet = FleetSample {
            spec_replicas: pods,
            ready: pods,
            busy: Some(running),
            begun: Some(if second == 0 { 2 } else { 0 }),
            busy_ages_s: vec![f64::from(second); running as usize],
            completions: vec![Completion { service_s: 90.0 }; if second == 90 { 2 } else { 0 }],
            started_latencies_s: if second == -120 { vec![30.0; 5] } else { Vec::new() },
            ..FleetSample::default()
        };
        let queue = QueueSample { ready: Some(0), unacked: unacked(u64::from(running)), ..QueueSample::default() };
        let cfg = ScaleConfig { min_replicas: if second < 20 { 5 } else { 0 }, ..cfg.clone() };
        let decision = decide(&cfg, &mut learned, &[queue], &fleet, 10_000.0 + f64::from(second));
        pods = decision.target;
        if second >= 20 {
            decisions.push(decision);
        }
    }
    decisions
}

#[test]
fn what_runs_keeps_the_pods_that_it_occupies_and_no_more() {
    // Celery's preset says that messages are acknowledged early; with acks_late consumers hold them until the task is done.
    for early in [true, false] {
        let cfg = ScaleConfig { acknowledges_early: early, ..ScaleConfig::new(0, 5, 15.0) };
        for (name, decisions) in [
            ("acks_late", two_long_tasks(&cfg, Some)),
            ("acknowledged early", two_long_tasks(&cfg, |_| Some(0))),
            ("held by nobody knows whom", two_long_tasks(&cfg, |_| None)),
        ] {
            let targets: Vec<u32> = decisions.iter().map(|decision| decision.target).collect();
            assert!(decisions[..70].iter().all(|decision| decision.target >= 2), "{name}, preset early {early}: {targets:?}");
            let more = decisions.iter().enumerate().skip(40).find(|(_, decision)| decision.target > 2);
            assert!(more.is_none(), "{name}, preset early {early}: a minute after the last message {targets:?} {more:?}");
            assert_eq!(targets.last(), Some(&0), "{name}, preset early {early}: {targets:?}");
        }
    }
}
