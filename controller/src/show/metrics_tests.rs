//! What is exported, and that it goes with its workload.

use super::*;
use crate::observe::brokers::Opener;
use crate::observe::cluster::Cluster;
use crate::testing::look::ROOM;
use crate::testing::{T0_MS, deployment, orders, pod, replicaset, view};
use qscaler_api::QWorkerStatus;
use qscaler_broker::signing::Signer;
use qscaler_core::scale::QueueSample;

/// Metrics with at least one sample of each, and the series of one workload.
fn example() -> (Metrics, WorkloadMetrics) {
    let metrics = Metrics::default();
    let mut workload = Workload::restore(orders(), "dep".into(), QWorkerStatus::default(), T0_MS);
    let view = view(&[deployment(1, &[("max-replicas", "1")]), replicaset("orders-1", 1), pod("a")]);
    workload.sampled(vec![QueueSample { ready: Some(500), unacked: Some(0), oldest_s: Some(12.5), ..QueueSample::default() }], T0_MS);
    workload.unfetched("the control queue is gone".into());
    let plan = workload.look(&view, &Cluster::default(), ROOM, T0_MS);
    metrics.decided(plan.decided.expect("there are figures"));
    let mut series = metrics.workload("shop/orders");
    series.seen(&workload, 1);
    series.tallied(&Tally { arrived: 500.0, late: f64::NAN, rejected: [0, 0, 1, 3, 0], ..Tally::default() });
    series.counted(Totals::default(), Totals { oom_kills: 2, cuts: [1, 0, 0, 0, 0, 0, 0, 0], ..Totals::default() });
    metrics.calls.example();
    (metrics, series)
}

#[test]
fn the_reference_page_has_these_metrics() {
    let (metrics, _series) = example();
    let about = "# Metrics of the controller\n\nPort `admin`, path `/metrics`. `workload` is `NAMESPACE/NAME` of the Deployment; a workload that is not managed any more, or not by \
        this replica, has no series. Names of pods are no labels. What is not known is `NaN`, never 0.";
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/metrics-controller.md");
    metrics.registry.check_reference(about, &page).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn figures_caps_and_problems_of_a_workload_are_exported_and_go_with_it() {
    let (metrics, series) = example();
    let text = metrics.text();
    for line in [
        "qscaler_backlog_messages{workload=\"shop/orders\"} 500.0\n",
        "qscaler_oldest_message_age_seconds{workload=\"shop/orders\"} 12.5\n",
        "qscaler_max_replicas{workload=\"shop/orders\"} 1.0\n",
        "qscaler_capped{workload=\"shop/orders\",cap=\"max-replicas\"} 1.0\n",
        "qscaler_problem{workload=\"shop/orders\",condition=\"BrokerReachable\",reason=\"Failing\"} 1.0\n",
        "qscaler_messages_arrived_total{workload=\"shop/orders\"} 500.0\n",
        "qscaler_messages_late_total{workload=\"shop/orders\"} 0.0\n",
        "qscaler_tasks_cut_total{workload=\"shop/orders\",cause=\"deadline\"} 1\n",
        "qscaler_rejected_reports_total{workload=\"shop/orders\",reason=\"future\"} 3\n",
        "qscaler_drains_total{workload=\"shop/orders\",end=\"wrong-victim\"} 0\n",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    let other = metrics.workload("shop/others");
    drop(series);
    let text = metrics.text();
    assert!(!text.contains("shop/orders"), "{text}");
    assert!(text.contains("qscaler_tasks_cut_total{workload=\"shop/others\",cause=\"deadline\"} 0\n"), "{text}");
    drop(other);
    assert!(!metrics.text().contains("workload=\""), "{}", metrics.text());
}

#[test]
fn a_bound_and_a_problem_that_are_over_are_exported_no_more() {
    let (metrics, mut series) = example();
    let mut workload = Workload::restore(orders(), "dep".into(), QWorkerStatus::default(), T0_MS);
    let view = view(&[deployment(1, &[("max-replicas", "50")]), replicaset("orders-1", 1), pod("a")]);
    workload.sampled(vec![QueueSample { ready: Some(0), unacked: Some(0), ..QueueSample::default() }], T0_MS);
    workload.look(&view, &Cluster::default(), ROOM, T0_MS);
    series.seen(&workload, 1);
    let text = metrics.text();
    assert!(!text.contains("qscaler_capped{workload=\"shop/orders\",cap=\"max-replicas\"}"), "{text}");
    assert!(!text.contains("BrokerReachable"), "{text}");
    assert!(!text.contains("qscaler_oldest_message_age_seconds{"), "{text}");
}

#[test]
fn the_brokers_that_are_counted_refuse_the_same_urls() {
    let metrics = Metrics::default();
    let opener = metrics.calls.of_brokers(Opener::new(Signer::default()));
    assert!((opener.stats)("redis://127.0.0.1:1/0").is_ok());
    assert!((opener.stats)("nonsense").is_err() && (opener.control)("nonsense").is_err());
}
