//! What people see: a real Prometheus scrapes every part and a sidecar, every panel of the dashboard has data, an alert fires when its cause is there.

use crate::tasks;
use anyhow::{Result, ensure};
use qscaler_tests::prometheus::{Prometheus, alerts, dashboard};
use qscaler_tests::stand::fleet::{DEPLOYMENT, Fleet, FleetOptions, STEP};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, SYSTEM_NAMESPACE, Stand};
use qscaler_tests::wait::wait_for;
use std::time::Duration;

/// Queries that may have no answer here, and why.
const UNKNOWN: &[(&str, &str)] = &[("qscaler_oldest_message_age_seconds{workload=~\".*\"}", "a Celery message does not say when it was sent")];
/// How long a query may have no answer: rates need two scrapes, and the fleet its drains.
const SHOWN: Duration = Duration::from_secs(240);

/// Where the parts of QScaler export their metrics.
async fn parts() -> Result<Vec<String>> {
    let addresses = "jsonpath={range .items[*]}{.status.podIP}{\"\\n\"}{end}";
    let text = kubectl(&["-n", SYSTEM_NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=qscaler", "-o", addresses], None).await?;
    Ok(text.lines().filter(|ip| !ip.is_empty()).map(|ip| format!("{ip}:8080")).collect())
}

#[tokio::test]
async fn every_panel_of_the_dashboard_shows_data_and_an_alert_fires_when_its_cause_is_there() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-pictures", BrokerKind::Redis, 0, 3)).await?;
    fleet.wait_condition("Ready", "True", STEP).await?;
    let targets = parts().await?;
    ensure!(targets.len() >= 4, "two controllers, a webhook and certs: {targets:?}");
    // At once, where people wait for minutes: what is tested is the cause, not patience.
    let rules = std::fs::read_to_string(alerts())?;
    let rules: Vec<&str> = rules.lines().filter(|line| !line.trim_start().starts_with("for:")).collect();
    let prometheus = Prometheus::start(&targets, &rules.join("\n"))?;
    wait_for("every part is scraped", STEP, || async {
        let up = prometheus.query("up == 1").await.map_err(|e| e.to_string())?;
        if up.len() == targets.len() { Ok(()) } else { Err(format!("{up:?} of {targets:?}")) }
    })
    .await?;

    fleet.send(&tasks(12, 2.0)).await?;
    fleet.wait_done(12, STEP).await?;
    for query in dashboard()?.iter().filter(|q| !UNKNOWN.iter().any(|(text, _)| *text == q.text)) {
        wait_for(&format!("{:?} has data", query.panel), SHOWN, || async {
            let series = prometheus.query(&query.text).await.map_err(|e| e.to_string())?;
            if series.iter().any(|(_, value)| !value.is_nan()) { Ok(()) } else { Err(format!("{}: {series:?}", query.text)) }
        })
        .await?;
    }
    let workload = format!("{}/{DEPLOYMENT}", fleet.name);
    ensure!(prometheus.query("ALERTS{alertname=\"QScalerInvalidConfig\"}").await?.is_empty(), "nothing is wrong yet");
    fleet.annotate("worker", "celeri").await?;
    let alert = format!("ALERTS{{alertname=\"QScalerInvalidConfig\",alertstate=\"firing\",workload=\"{workload}\"}} == 1");
    wait_for("the alert of a mistake fires", STEP, || async {
        let firing = prometheus.query(&alert).await.map_err(|e| e.to_string())?;
        if firing.is_empty() { Err("it does not".to_owned()) } else { Ok(()) }
    })
    .await?;
    let name = fleet.name.clone();
    fleet.remove().await?;
    // Alerts look back over minutes, so that one may stand for as long.
    let series = format!("{{workload=~\"{name}/.*\",__name__!~\"ALERTS.*\"}}");
    wait_for("the series of a workload that is gone are gone", STEP, || async {
        let left = prometheus.query(&series).await.map_err(|e| e.to_string())?;
        if left.is_empty() { Ok(()) } else { Err(format!("{} left: {:?}", left.len(), left.first())) }
    })
    .await
}
