//! Pods that are Ready and do not consume yet: on a busy machine a worker takes its first task half a minute to two minutes after its pod is Ready. Left to
//! others: pods that are not Ready (`scale.rs`), what is learned of starts (`scale::latency`).

use qscaler_core::scale::{FleetSample, Learned, QueueSample, ScaleConfig, decide};

/// One long task waits for `seconds` while `ready` pods are there of which nothing is heard; gives the most pods that were asked for.
fn most(cfg: &ScaleConfig, ready: u32, unacked: Option<u64>, seconds: u32) -> u32 {
    let mut learned = Learned::default();
    for latency_s in [8.0; 20] {
        learned.latency.started(latency_s);
    }
    let one = |second: u32| {
        let age_s = 8.0 + f64::from(second);
        let queue = QueueSample { ready: Some(1), unacked, ..QueueSample::default() };
        let settling = vec![age_s; ready as usize];
        let fleet = FleetSample { spec_replicas: ready, ready, untold: ready, settling, ..FleetSample::default() };
        decide(cfg, &mut learned, &[queue], &fleet, 1000.0 + f64::from(second)).target
    };
    (0..seconds).map(one).max().unwrap_or(0)
}

fn long_tasks() -> ScaleConfig {
    ScaleConfig { service_time_hint_s: 120.0, ..ScaleConfig::new(0, 20, 30.0) }
}

#[test]
fn for_one_message_no_second_pod_is_asked_for_while_the_first_is_about_to_take_it() {
    for (acknowledges_early, unacked) in [(true, Some(0)), (true, None), (false, Some(0)), (false, None)] {
        let cfg = ScaleConfig { acknowledges_early, ..long_tasks() };
        assert_eq!(most(&cfg, 1, unacked, 120), 1, "early: {acknowledges_early}, held: {unacked:?}");
    }
}

#[test]
fn a_pod_that_holds_a_message_has_begun_and_the_next_message_calls_for_another() {
    let cfg = ScaleConfig { acknowledges_early: false, ..long_tasks() };
    assert!(most(&cfg, 1, Some(1), 60) > 1);
}

#[test]
fn pods_that_are_about_to_consume_are_not_let_go_and_do_not_keep_others_from_coming() {
    let cfg = long_tasks();
    let mut learned = Learned::default();
    let mut at = |second: u32, waiting: u64| {
        let queue = QueueSample { ready: Some(waiting), unacked: None, ..QueueSample::default() };
        let fleet = FleetSample { spec_replicas: 2, ready: 2, untold: 2, settling: vec![9.0 + f64::from(second); 2], ..FleetSample::default() };
        decide(&cfg, &mut learned, &[queue], &fleet, 1000.0 + f64::from(second)).target
    };
    assert_eq!(at(0, 12), 12, "two take one each, ten more are wanted");
    // Both have taken one, and have not said so.
    assert!((1..30).all(|second| at(second, 0) == 2));
}
