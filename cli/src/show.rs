//! QWorkers as text. In: objects. Out: a table, or one workload's explanation. Left to others: fetching them (`main`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use qscaler_api::{QWorker, QWorkerStatus, Resources, Saving};
use qscaler_core::names::condition;
use qscaler_core::units::{Bytes, Millicores};
use std::fmt::Write;

/// A table with one line per workload; `wide`: with the decision's sentence.
pub(crate) fn status(workers: &[QWorker], wide: bool) -> String {
    let mut header =
        vec!["WORKLOAD", "QUEUE", "BACKLOG", "IN-FLIGHT", "IN/S", "OUT/S", "READY", "DESIRED", "PARKED", "UNHELD", "ENDING", "MEMORY", "STATE"];
    header.extend(wide.then_some("REASON"));
    let mut rows = vec![header.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()];
    for worker in workers {
        let status = worker.status.clone().unwrap_or_default();
        let count = |n: Option<i64>| n.map_or("?".to_owned(), |n| n.to_string());
        let rate = |text: &str| if text.is_empty() { "?".to_owned() } else { text.to_owned() };
        let mut row = vec![
            format!("{}/{}", worker.metadata.namespace.clone().unwrap_or_default(), worker.metadata.name.clone().unwrap_or_default()),
            status.queue.clone(),
            count(status.backlog),
            count(status.in_flight),
            rate(&status.rate_in),
            rate(&status.rate_out),
            format!("{}/{}", status.ready, status.replicas),
            status.desired.to_string(),
            status.parked.to_string(),
            status.unheld.to_string(),
            status.terminating.to_string(),
            status.memory.clone(),
            state(&status),
        ];
        row.extend(wide.then(|| status.reason.clone()));
        rows.push(row);
    }
    if workers.is_empty() {
        return "No managed workloads here.\n".to_owned();
    }
    let widths: Vec<usize> = (0..header.len()).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

/// Whether a condition is not as it should be.
pub(crate) fn needs_someone(of: &Condition) -> bool {
    condition::is_trouble(&of.type_, &of.status, &of.reason)
}

/// The first thing that needs a person with its reason, or `ok`.
fn state(status: &QWorkerStatus) -> String {
    match status.conditions.iter().find(|c| needs_someone(c)) {
        Some(condition) => format!("{}={} ({})", condition.type_, condition.status, condition.reason),
        None => "ok".to_owned(),
    }
}

/// Everything that is known of one workload.
pub(crate) fn explain(worker: &QWorker) -> String {
    let status = worker.status.clone().unwrap_or_default();
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}/{}, queue {}",
        worker.metadata.namespace.clone().unwrap_or_default(),
        worker.metadata.name.clone().unwrap_or_default(),
        status.queue
    );
    if let Some(bad) = status.conditions.iter().find(|c| c.type_ == condition::READY && c.status == "False") {
        let _ = writeln!(out, "\nIt is left alone until this is mended:\n  {}", bad.message.replace('\n', "\n  "));
    }
    let _ = writeln!(
        out,
        "\nReplicas: {} wanted, {} set, {} ready, {} busy, {} parked, {} ending",
        status.desired, status.replicas, status.ready, status.busy, status.parked, status.terminating
    );
    let _ = writeln!(out, "  {} (rule {}, at {})", status.reason, status.rule, status.decided_at);
    if let Some(would) = &status.would_do {
        let _ = writeln!(out, "  dry run, would do: {would}");
    }
    for (container, size) in &status.sizes {
        let _ =
            writeln!(out, "\nSize of {container}: {} now, {} recommended", resources(size.current.as_ref()), resources(size.recommended.as_ref()));
        if let Some(text) = size.saving.as_ref().and_then(|s| saving(s, status.replicas)) {
            let _ = writeln!(out, "  {text}");
        }
        let _ = writeln!(out, "  {}", size.reason);
        if !size.measured.is_empty() {
            let _ = writeln!(out, "  measured: {}", size.measured);
        }
    }
    if !status.conditions.is_empty() {
        let _ = writeln!(out, "\nConditions:");
    }
    for condition in &status.conditions {
        let _ = writeln!(out, "  {:<18} {:<7} {}: {}", condition.type_, condition.status, condition.reason, condition.message);
    }
    if !status.unheld_pods.is_empty() {
        let _ = writeln!(out, "\nPods not held whole ({}):", status.unheld);
    }
    for pod in &status.unheld_pods {
        let _ = writeln!(out, "  {}: {}", pod.name, pod.reasons.join(", "));
    }
    let c = &status.counters;
    let causes: Vec<String> = c.cut_by.iter().filter(|(_, n)| **n > 0).map(|(cause, n)| format!("{n} {cause}")).collect();
    let causes = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) };
    let _ = writeln!(
        out,
        "\nSo far: {} replicas added, {} removed, {} workers drained, {} tasks cut{causes}, {} OOM kills, {} pods resized",
        c.scaled_up, c.scaled_down, c.drained, c.cut, c.oom_kills, c.resized
    );
    out
}

/// What the size that is aimed at saves, in one pod and in all of them; None: nothing.
fn saving(saving: &Saving, replicas: i32) -> Option<String> {
    let amount = |per_pod: Option<i64>, what: &str, show: fn(u64) -> String| {
        let per_pod = per_pod.filter(|n| *n != 0)?;
        let all = per_pod.unsigned_abs().saturating_mul(u64::from(replicas.unsigned_abs()));
        let verb = if per_pod > 0 { "saves" } else { "needs another" };
        Some(format!("{verb} {what} {} in each pod, {} in {replicas}", show(per_pod.unsigned_abs()), show(all)))
    };
    let memory = amount(saving.memory_bytes, "memory", |b| Bytes(b).ceil_mib().to_string());
    let cpu = amount(saving.cpu_request_millicores, "CPU", |m| Millicores(m).to_string());
    let parts: Vec<String> = memory.into_iter().chain(cpu).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn resources(resources: Option<&Resources>) -> String {
    let Some(resources) = resources else { return "nothing known".to_owned() };
    let memory = resources.memory_bytes.map(|b| format!("memory {}", Bytes(b)));
    let cpu = resources.cpu_request_millicores.map(|m| format!("CPU {}", Millicores(m)));
    let parts: Vec<String> = memory.into_iter().chain(cpu).collect();
    if parts.is_empty() { "nothing set".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_api::{ContainerSize, QWorkerSpec};

    fn worker() -> QWorker {
        let mut worker = QWorker::new("orders", QWorkerSpec { target_kind: "Deployment".into(), target_name: "orders".into() });
        worker.metadata.namespace = Some("shop".into());
        let size = ContainerSize {
            recommended: Some(Resources { memory_bytes: Some(200 << 20), cpu_request_millicores: None }),
            saving: Some(Saving { memory_bytes: Some(-(104 << 20)), cpu_request_millicores: Some(50) }),
            measured: "cgroup and processes".into(),
            reason: "an OOM kill at 96Mi".into(),
            ..ContainerSize::default()
        };
        let condition = serde_json::from_value(
            serde_json::json!({"type": "BrokerReachable", "status": "False", "reason": "Refused", "message": "connection refused", "lastTransitionTime": "2026-01-01T00:00:00Z"}),
        );
        worker.status = Some(QWorkerStatus {
            queue: "orders".into(),
            backlog: Some(12),
            desired: 3,
            replicas: 2,
            sizes: [("worker".to_owned(), size)].into(),
            conditions: vec![condition.unwrap()],
            ..QWorkerStatus::default()
        });
        worker
    }

    #[test]
    fn status_shows_unknown_as_a_question_mark_and_names_what_is_wrong() {
        let text = status(&[worker()], false);
        let row = text.lines().nth(1).unwrap();
        assert!(row.starts_with("shop/orders  orders  12       ?"), "{text}");
        assert!(row.ends_with("BrokerReachable=False (Refused)"), "{text}");
        assert!(status(&[], false).contains("No managed workloads"));
    }

    #[test]
    fn a_wider_table_has_the_sentence_and_busy_pods_need_nobody() {
        let mut worker = worker();
        let status_of = worker.status.as_mut().unwrap();
        status_of.reason = "12 waiting".into();
        let busy = serde_json::json!({"type": "ScaleDownBlocked", "status": "True", "reason": "Busy", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        status_of.conditions = vec![serde_json::from_value(busy).unwrap()];
        let text = status(&[worker], true);
        assert!(text.lines().nth(1).unwrap().ends_with("ok     12 waiting"), "{text}");
    }

    #[test]
    fn explain_names_the_pods_that_are_not_held_the_causes_of_cuts_and_what_keeps_it_from_being_managed() {
        let mut worker = worker();
        let status = worker.status.as_mut().unwrap();
        status.unheld_pods = vec![qscaler_api::UnheldPod { name: "orders-1".into(), reasons: vec!["NotPermitted".into(), "NoHandler".into()] }];
        (status.unheld, status.counters.cut) = (1, 3);
        status.counters.cut_by = [("killed".to_owned(), 2), ("not-held".to_owned(), 1), ("other".to_owned(), 0)].into();
        let ready = serde_json::json!({"type": "Ready", "status": "False", "reason": "InvalidConfig", "message": "max-replicas: many\nworker: celeri", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        status.conditions.push(serde_json::from_value(ready).unwrap());
        let text = explain(&worker);
        for part in [
            "Pods not held whole (1):\n  orders-1: NotPermitted, NoHandler",
            "3 tasks cut (2 killed, 1 not-held)",
            "left alone until this is mended:\n  max-replicas: many\n  worker: celeri",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn explain_shows_the_sizes_what_they_save_and_every_condition() {
        let text = explain(&worker());
        for line in ["needs another memory 104Mi in each pod, 208Mi in 2; saves CPU 50m in each pod, 100m in 2", "measured: cgroup and processes"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.contains("memory 200Mi recommended") && text.contains("an OOM kill at 96Mi") && text.contains("connection refused"), "{text}");
    }
}
