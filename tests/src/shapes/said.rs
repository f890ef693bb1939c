//! What the user can read about a fleet. In: the QWorker's conditions and the namespace's Events. Out: the first word about a hold or a scale-down that is less than
//! whole. Left to others: when there must be one (`arm`).

use crate::stand::fleet::Fleet;
use crate::wait::wait_for;
use anyhow::Result;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use qscaler_core::names::condition;
use serde_json::Value;
use std::time::Duration;

/// What must be said is said within this.
const SAID_WITHIN: Duration = Duration::from_secs(60);
/// Who writes our Events.
const REPORTER: &str = "qscaler-controller";
/// Conditions that can say it, each with the status in which it does.
const CONDITIONS: [(&str, &str); 5] = [
    (condition::HOLD_EFFECTIVE, "False"),
    (condition::SCALE_DOWN_BLOCKED, "True"),
    (condition::INJECTED, "False"),
    (condition::BROKER_REACHABLE, "False"),
    (condition::READY, "False"),
];

/// Waits at most a minute for a condition that says it, or a warning of ours since then; gives its words.
pub async fn within_a_minute(fleet: &Fleet, since: f64) -> Option<String> {
    let look = || async {
        let said = now_said(fleet, since).await.map_err(|e| e.to_string())?;
        said.ok_or_else(|| "nothing".to_owned())
    };
    wait_for(&format!("{}: a word of what is wrong", fleet.name), SAID_WITHIN, look).await.ok()
}

async fn now_said(fleet: &Fleet, since: f64) -> Result<Option<String>> {
    let worker = fleet.qworker().await?.unwrap_or_default();
    if let Some(words) = condition_says(&worker["status"]["conditions"]) {
        return Ok(Some(words));
    }
    let events = Api::<Event>::namespaced(fleet.client(), &fleet.name).list(&ListParams::default()).await?.items;
    let warning = events.into_iter().find(|event| {
        let at = event.event_time.as_ref().map_or(0.0, |time| time.0.as_second() as f64);
        event.type_.as_deref() == Some("Warning") && event.reporting_controller.as_deref() == Some(REPORTER) && at + 1.0 >= since
    });
    Ok(warning.map(|event| format!("{}: {}", event.reason.unwrap_or_default(), event.note.unwrap_or_default())))
}

/// The first of the [`CONDITIONS`] that says something is wrong: type, reason and message.
fn condition_says(conditions: &Value) -> Option<String> {
    let all = conditions.as_array()?;
    CONDITIONS.iter().find_map(|(kind, status)| {
        let found = all.iter().find(|c| c["type"] == *kind && c["status"] == *status)?;
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        Some(format!("{kind}={status} ({}): {}", text("reason"), text("message")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_condition_says_something_only_in_its_bad_status() {
        let condition = |kind: &str, status: &str| json!([{"type": kind, "status": status, "reason": "R", "message": "m"}]);
        assert_eq!(condition_says(&condition("HoldEffective", "True")), None);
        assert_eq!(condition_says(&condition("HoldEffective", "False")).as_deref(), Some("HoldEffective=False (R): m"));
        assert_eq!(condition_says(&condition("ScaleDownBlocked", "False")), None);
        assert!(condition_says(&condition("ScaleDownBlocked", "True")).is_some());
        assert_eq!(condition_says(&Value::Null), None);
    }
}
