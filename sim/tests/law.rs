//! The law in the simulated world: fixed seeds, small sizes, loose bounds. The full comparison is `cargo xtask bench law`.

use qscaler_core::config::OptimizeFor;
use qscaler_sim::bench::{Effort, bench, law_config};
use qscaler_sim::csv;
use qscaler_sim::optimum::optimum;
use qscaler_sim::policy::keda::{Keda, KedaConfig};
use qscaler_sim::policy::law::Law;
use qscaler_sim::policy::pooled::Pooled;
use qscaler_sim::score::Score;
use qscaler_sim::simulate::{Options, simulate};
use qscaler_sim::workload::{Task, Workload, bursts, generate};
use qscaler_sim::world::{Conditions, Outcome, Watch, run};

fn conditions(start_s: f64, seed: u64) -> Conditions {
    Conditions { start_s, start_cv: 0.25, start_at_full_speed: f64::INFINITY, outage: None, seed }
}

fn law(workload: &Workload, conditions: Conditions) -> Outcome {
    run(workload, conditions, &mut Law::new(law_config(workload), false, conditions.seed), Watch::default())
}

fn workload(tasks: Vec<Task>, horizon_s: f64) -> Workload {
    Workload { name: "test".to_owned(), tasks, max_wait_s: 30.0, min_replicas: 0, max_replicas: 100, horizon_s, shared_capacity: None }
}

#[test]
fn a_few_workloads_cost_less_than_under_keda() {
    let report = bench(4, Effort { seeds: 1, grid_step: 1009 }, None, &["flash", "batch", "long", "sparse"], None).unwrap();
    let law = report.geo(|case| &case.law);
    assert!(law < 1.15, "{}", report.table());
    assert!(report.geo(|case| &case.rival.keda_v1) / law > 2.3, "{}", report.table());
    assert_eq!(report.interruptions, 0);
}

#[test]
fn two_fleets_on_one_queue_cost_what_one_costs_and_count_no_message_twice() {
    for workload in [bursts("three", 3), bursts("trickle", 3), generate("flash", 3)].into_iter().flatten() {
        let (one, mut pool) = (law(&workload, conditions(30.0, 3)), Pooled::new(&law_config(&workload)));
        let two = run(&workload, conditions(30.0, 3), &mut pool, Watch::default());
        println!("{}: {:.0} and {:.0} pod-seconds, {} and {} late", workload.name, one.pod_seconds, two.pod_seconds, one.missed, two.missed);
        assert!(two.pod_seconds < 1.1 * one.pod_seconds && two.interrupted == 0, "{}: {} and {}", workload.name, one.pod_seconds, two.pod_seconds);
        assert!(two.miss() < one.miss() + 0.05, "{}: {} and {} late", workload.name, one.missed, two.missed);
        assert!(pool.counted() <= workload.tasks.len() as f64, "{}: {} counted of {}", workload.name, pool.counted(), workload.tasks.len());
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    let flash = generate("flash", 3).unwrap();
    assert_eq!(law(&flash, conditions(5.0, 3)), law(&flash, conditions(5.0, 3)));
}

#[test]
fn a_burst_on_an_idle_queue_keeps_the_promise() {
    let burst = |service_s| vec![Task { at_s: 100.5, service_s }; 100];
    let outcome = law(&workload(burst(12.0), 1200.0), conditions(5.0, 1));
    assert!(outcome.missed == 0 && outcome.starts < 100, "fewer pods than tasks do: {outcome:?}");
    // Far longer than the hint: the rest follows as soon as the first have been seen to run on.
    let outcome = law(&workload(burst(600.0), 1200.0), conditions(5.0, 1));
    assert!(outcome.waits_s.iter().all(|wait| *wait < 40.0) && outcome.starts <= 110, "{outcome:?}");
}

#[test]
fn an_outage_under_load_makes_no_message_late() {
    let steady = generate("steady", 8).unwrap();
    let blind = law(&steady, Conditions { outage: Some((3000.0, 3600.0)), ..conditions(5.0, 8) });
    assert!(blind.missed <= law(&steady, conditions(5.0, 8)).missed, "{}", blind.missed);
}

#[test]
fn stuck_tasks_do_not_stop_the_rest() {
    let mut steady = generate("diurnal", 2).unwrap();
    steady.tasks.retain(|task| task.at_s < 5400.0);
    steady.horizon_s = 5400.0;
    for task in steady.tasks.iter_mut().skip(2000).step_by(500).take(10) {
        task.service_s = 5000.0;
    }
    let outcome = law(&steady, conditions(5.0, 2));
    let score = Score::of(&outcome, &optimum(&steady, 5.0));
    assert!(score.miss < 0.01 && score.pods < 1.5, "{score:?}");
}

#[test]
fn nothing_to_do_costs_nothing() {
    let outcome = law(&workload(vec![Task { at_s: 3599.0, service_s: 1.0 }], 3600.0), conditions(5.0, 1));
    assert_eq!(outcome.starts, 1);
    assert!(outcome.pod_seconds < 60.0, "{outcome:?}");
}

#[test]
fn keda_with_a_short_grace_cuts_long_tasks_and_the_law_does_not() {
    let long = generate("long", 5).unwrap();
    let keda = run(&long, conditions(5.0, 5), &mut Keda::new(KedaConfig::default_with_value(1.0), 5), Watch::default());
    assert!(keda.interrupted > 20, "{}", keda.interrupted);
    assert_eq!(law(&long, conditions(5.0, 5)).interrupted, 0);
}

#[test]
fn a_users_trace_becomes_a_table_a_page_and_json() {
    let text: String = (0..300).map(|n| format!("{},{}\n", n * 2, 1 + n % 5)).collect();
    let options = Options { max_wait_s: 20.0, min_replicas: 0, max_replicas: 20, start_s: 5.0, optimize_for: OptimizeFor::Balanced, seed: 1 };
    let report = simulate(csv::parse(text.as_bytes()).unwrap(), &options);
    assert_eq!(report.keda_settings_tried, 1008);
    assert_eq!(report.rows.len(), 6);
    assert!(report.table().lines().any(|line| line.starts_with("QScaler ")));
    let page = qscaler_sim::page::html(&report);
    assert_eq!(page.matches("<svg").count(), 4);
    assert_eq!(page.matches("<circle").count(), 3 + 5, "three choices on a line, five rivals as points");
    assert_eq!(page.matches("<polyline").count(), 18);
    assert!(!page.contains("NaN") && !page.contains("http"), "the page loads nothing");
    assert_eq!(report.json()["rows"][0]["scaler"], "QScaler");
    assert_eq!(report.json()["tasks"], 300);
}

#[test]
fn a_step_up_that_lasts_is_answered_in_about_one_start_latency() {
    // Eight messages a second; from 2400 s on each takes three times as long: 36 pods are needed where 12 were.
    let mut after_s: Vec<f64> = (1..8)
        .map(|seed| {
            let mut shift = generate("shift", seed).expect("a workload");
            shift.tasks.retain(|task| task.at_s < 3000.0);
            shift.horizon_s = 3000.0;
            let mut points = Vec::new();
            let mut policy = Law::new(law_config(&shift), false, seed);
            run(&shift, conditions(30.0, seed), &mut policy, Watch { points: Some((1.0, &mut points)), budget_pod_s: None });
            points.iter().find(|point| point.at_s > 2400.0 && point.pods >= 36).map_or(f64::INFINITY, |point| point.at_s - 2400.0)
        })
        .collect();
    after_s.sort_by(f64::total_cmp);
    assert!(after_s[3] <= 36.0 && after_s[6] <= 90.0, "36 pods are asked for after so many seconds: {after_s:?}");
}

#[test]
fn what_the_user_chooses_moves_waits_against_pods() {
    let flash = generate("flash", 9).expect("a workload");
    let options = Options { max_wait_s: 30.0, min_replicas: 0, max_replicas: 100, start_s: 30.0, optimize_for: OptimizeFor::Latency, seed: 1 };
    let report = simulate(flash.tasks.into_iter().take(20_000).collect(), &options);
    let [latency, balanced, cost] = report.choices.as_slice() else { panic!("three choices: {:?}", report.choices) };
    assert!(latency.wait_p95_s < balanced.wait_p95_s && balanced.wait_p95_s <= cost.wait_p95_s, "{:?}", report.choices);
    assert!(latency.pod_hours > balanced.pod_hours && balanced.pod_hours >= cost.pod_hours, "{:?}", report.choices);
    assert_eq!(report.rows[0].wait_p95_s, latency.wait_p95_s, "the row is the choice");
}

#[test]
fn a_minimum_is_kept_by_all() {
    let options = Options { max_wait_s: 20.0, min_replicas: 3, max_replicas: 20, start_s: 5.0, optimize_for: OptimizeFor::Balanced, seed: 1 };
    let report = simulate(vec![Task { at_s: 0.0, service_s: 1.0 }, Task { at_s: 3000.0, service_s: 1.0 }], &options);
    for row in &report.rows {
        assert!(row.pod_hours * 3600.0 >= 3.0 * 3590.0, "{}: {}", row.scaler, row.pod_hours);
    }
}
