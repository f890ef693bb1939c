//! Whatever the figures say, the scaling law answers: no panic, a target within bounds, a memory that can be written and read. In: numbers that no
//! broker and no worker should ever give. Left to others: what the answer should be (`scale.rs`).

use proptest::prelude::*;
use qscaler_core::scale::{Completion, FleetSample, Learned, QueueSample, ScaleConfig, decide};

fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..50, 2 => 0u64..1_000_000, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn any_pods() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0u32..50, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..100.0f64,
        2 => Just(0.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(f64::MAX),
        1 => Just(f64::MIN_POSITIVE),
        1 => any::<f64>(),
    ]
}

fn any_queue() -> impl Strategy<Value = QueueSample> {
    let figure = || proptest::option::weighted(0.8, any_count());
    (figure(), figure(), figure(), figure(), prop_oneof![3 => Just(0.0), 1 => any_number()]).prop_map(
        |(ready, unacked, published_total, completed_total, age_s)| QueueSample {
            ready,
            unacked,
            published_total,
            completed_total,
            age_s,
            ..QueueSample::default()
        },
    )
}

fn any_fleet() -> impl Strategy<Value = FleetSample> {
    let numbers = || proptest::collection::vec(any_number(), 0..6);
    let completions = prop_oneof![2 => numbers(), 1 => (any_number(), 0usize..300).prop_map(|(value, times)| vec![value; times])];
    (
        (any_pods(), any_pods(), any_pods(), any_pods(), any_pods(), any_pods()),
        proptest::option::weighted(0.8, any_pods()),
        numbers(),
        numbers(),
        completions,
        numbers(),
        (any_pods(), any_pods(), proptest::option::of(any_pods())),
    )
        .prop_map(
            |(
                (spec_replicas, ready, pending_unschedulable, parked, terminating, untold),
                busy,
                starting,
                busy_ages_s,
                services,
                started,
                (found, restarting, begun),
            )| {
                FleetSample {
                    spec_replicas,
                    ready,
                    starting,
                    pending_unschedulable,
                    parked,
                    terminating,
                    busy,
                    untold,
                    settling: vec![9.0; untold.min(9) as usize],
                    busy_ages_s,
                    completions: services.into_iter().map(|service_s| Completion { service_s }).collect(),
                    started_latencies_s: started,
                    begun,
                    broker_down: found % 2 == 1,
                    found,
                    restarting,
                }
            },
        )
}

fn any_config() -> impl Strategy<Value = ScaleConfig> {
    (
        (any_pods(), any_pods(), any_number(), any_pods()),
        proptest::option::of(any_pods()),
        proptest::option::of(any_pods()),
        any_number(),
        any_number(),
        any::<bool>(),
    )
        .prop_map(|((min, max, wait, concurrency), messages_per_worker, max_parallel, service_time_hint_s, start_latency_hint_s, early)| {
            ScaleConfig {
                messages_per_worker,
                concurrency,
                max_parallel,
                service_time_hint_s,
                start_latency_hint_s,
                acknowledges_early: early,
                ..ScaleConfig::new(min, max, wait)
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_figures_get_an_answer_within_bounds(
        cfg in any_config(),
        history in proptest::collection::vec((proptest::collection::vec(any_queue(), 0..3), any_fleet(), prop_oneof![6 => Just(1.0), 1 => 0.0..1e6f64, 1 => Just(-7.0)]), 1..40),
    ) {
        let (mut learned, mut now) = (Learned::default(), 0.0);
        for (queues, fleet, dt) in &history {
            now += dt;
            let decision = decide(&cfg, &mut learned, queues, fleet, now);
            prop_assert!(decision.target <= cfg.max_replicas && decision.target >= cfg.min_replicas.min(cfg.max_replicas), "{}", decision.reason);
            let inputs = &decision.inputs;
            for value in [inputs.rate_in, inputs.rate_out, inputs.service_s, inputs.start_latency_s, inputs.offered_load, inputs.standing_wait_s] {
                prop_assert!(value.is_finite() && value >= 0.0, "{:?}", inputs);
            }
        }
        // A number that is none becomes null in JSON, and the whole memory is lost with it.
        let text = serde_json::to_string(&learned).unwrap();
        prop_assert!(serde_json::from_str::<Learned>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn one_figure_repeated_for_long_gets_an_answer(cfg in any_config(), queue in any_queue(), fleet in any_fleet(), ticks in 100u32..400) {
        let mut learned = Learned::default();
        for tick in 0..ticks {
            let decision = decide(&cfg, &mut learned, std::slice::from_ref(&queue), &fleet, f64::from(tick));
            prop_assert!(decision.target <= cfg.max_replicas && decision.target >= cfg.min_replicas.min(cfg.max_replicas), "{}", decision.reason);
        }
    }
}
