//! The dashboard and the alerts of the chart, beside what they are made from: the metrics that the code exports (the reference pages, generated from it), the runbook, and
//! Prometheus' own judgement. Needs promtool, as `cargo xtask test` unpacks it. What they show of a real cluster is in `e2e/pictures.rs`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use qscaler_tests::prometheus::{self, Prometheus, bin, dashboard};
use qscaler_tests::wait::wait_for;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Name and rule of each alert.
fn alerts() -> Vec<(String, Value)> {
    let file: Value = serde_yaml::from_str(&read("charts/qscaler/alerts/qscaler.yaml")).unwrap();
    let rules = file["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule)).collect()
}

/// The words of a query that name one of our metrics, without the suffixes of a histogram's series.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("qscaler_"));
    words.map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word))
}

fn exported() -> BTreeSet<String> {
    let pages = ["controller", "webhook", "sidecar", "certs"].map(|part| read(&format!("docs/reference/metrics-{part}.md")));
    let rows = pages.iter().flat_map(|page| page.lines()).filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.map(str::to_owned).collect()
}

fn promtool(words: &[&str], file: &Path) {
    let output = Command::new(bin().join("promtool"))
        .args(words)
        .arg(file)
        .output()
        .unwrap_or_else(|e| panic!("promtool: {e}: `cargo xtask test` unpacks it"));
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let exported = exported();
    assert!(exported.len() > 50, "the reference pages are not read: {exported:?}");
    let queries = dashboard().unwrap();
    let alerts = alerts();
    let asked = queries
        .iter()
        .map(|q| (q.panel.as_str(), q.text.as_str()))
        .chain(alerts.iter().map(|(name, rule)| (name.as_str(), rule["expr"].as_str().unwrap())));
    for (who, query) in asked {
        let mut named = metrics(query).peekable();
        assert!(named.peek().is_some(), "{who} asks for none of our metrics: {query}");
        for metric in named {
            assert!(exported.contains(metric), "{who} asks for {metric}, which nobody exports: {query}");
        }
    }
}

#[test]
fn every_alert_says_what_is_wrong_links_to_its_part_of_the_runbook_and_is_tested() {
    let (runbook, tested) = (read("docs/runbook.md"), read("tests/tests/pictures/alerts.test.yaml"));
    let headings: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    for (name, rule) in &alerts {
        let link = rule["annotations"]["runbook_url"].as_str().unwrap_or_default();
        assert!(link.ends_with(&format!("/docs/runbook.md#{}", name.to_lowercase())), "{name}: {link}");
        assert!(headings.contains(name.as_str()), "{name} has no heading in docs/runbook.md");
        assert!(rule["annotations"]["summary"].is_string() && rule["labels"]["severity"].is_string(), "{name}");
        assert!(tested.contains(&format!("alertname=\"{name}\"")), "{name} fires in no world of alerts.test.yaml");
    }
    assert_eq!(headings.len(), alerts.len(), "the runbook has headings of alerts that are gone: {headings:?}");
}

#[test]
fn prometheus_takes_the_alerts_each_fires_where_it_should_and_none_where_all_is_well() {
    promtool(&["check", "rules"], &prometheus::alerts());
    promtool(&["test", "rules"], &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/alerts.test.yaml"));
}

#[tokio::test]
async fn a_real_prometheus_takes_every_query_of_the_dashboard() {
    let prometheus = Prometheus::start(&[], &read("charts/qscaler/alerts/qscaler.yaml")).unwrap();
    let answers = || async { prometheus.query("vector(1)").await.map_err(|e| e.to_string()) };
    wait_for("Prometheus answers", Duration::from_secs(120), answers).await.unwrap();
    for query in dashboard().unwrap() {
        if let Err(error) = prometheus.query(&query.text).await {
            panic!("{}: {error}", query.panel);
        }
    }
}
