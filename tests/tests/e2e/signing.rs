//! Control messages that the controller has not sent, by somebody who has the broker's password. In: real pods with the controller's public key. Out: nothing is
//! done by them, and that is said; what the controller signs is done. Left to others: what a changed message is worth (`broker::signing`).

use crate::protocol::{gone_and_counted, one_endless};
use anyhow::{Context, Result, ensure};
use qscaler_broker::open_control;
use qscaler_broker::signing::Signer;
use qscaler_core::message::{ControlKind, ControlMessage, Epoch, VERSION};
use qscaler_core::workload::{ControlAddress, WorkloadId, WorkloadUid};
use qscaler_tests::stand::fleet::{DEPLOYMENT, Fleet, FleetOptions, STEP, describe, name_of};
use qscaler_tests::stand::kubectl::kubectl;
use qscaler_tests::stand::{BrokerKind, Stand};
use qscaler_tests::wait::wait_for;
use std::time::{SystemTime, UNIX_EPOCH};

/// Orders that are forged.
const FORGED: usize = 3;

/// Sends a message as the controller would have written it, without a signature, on the channel that the pods listen to.
async fn forge(stand: &Stand, fleet: &Fleet, kind: ControlKind, target: Option<String>) -> Result<()> {
    let deployment = fleet.deployment().await?;
    let uid: WorkloadUid = deployment.metadata.uid.context("the Deployment's UID")?.into();
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let address = ControlAddress::new(&WorkloadId { namespace: fleet.name.clone(), name: DEPLOYMENT.to_owned() }, &uid);
    let message = ControlMessage {
        version: VERSION,
        kind,
        workload_uid: uid,
        epoch: Epoch(1),
        issued_ms: now_ms,
        expires_ms: now_ms + 60_000,
        lease_ms: 60_000,
        target,
    };
    Ok(open_control(&stand.broker_url(BrokerKind::Redis)?, Signer::default())?.publish(&address, &message).await?)
}

/// Waits until the sidecar of this pod has refused so many messages of this kind: it has had them then, and none is still to come.
async fn refused(fleet: &Fleet, pod: &str, kind: &str, times: usize) -> Result<()> {
    wait_for("the refusal in the sidecar's log", STEP, || async {
        let log = kubectl(&["-n", &fleet.name, "logs", pod, "-c", "qscaler-sidecar"], None).await.map_err(|e| e.to_string())?;
        let said = log.lines().filter(|line| line.contains("a control message is refused") && line.contains(kind)).count();
        if said >= times { Ok(()) } else { Err(format!("{said} of {times}, the last line: {}", log.lines().last().unwrap_or_default())) }
    })
    .await
}

/// The keys that the sidecar of this pod was given.
async fn keys_of(fleet: &Fleet, pod: &str) -> Result<String> {
    let path = "jsonpath={.spec.initContainers[?(@.name==\"qscaler-sidecar\")].env[?(@.name==\"QSCALER_CONTROL_KEYS\")].value}";
    kubectl(&["-n", &fleet.name, "get", "pod", pod, "-o", path], None).await
}

#[tokio::test]
async fn a_forged_order_ends_no_hold_and_a_signed_one_does() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-forged-order", BrokerKind::Redis, 1, 1).with("max-task-duration", "2h")).await?;
    fleet.wait_ready(1).await?;
    let pod = one_endless(&fleet).await?;
    ensure!(keys_of(&fleet, &pod).await?.len() == 43, "the pod was given no key of the controller");
    let ns = fleet.name.clone();
    kubectl(&["-n", &ns, "delete", "pod", &pod, "--wait=false"], None).await?;
    let uid = wait_for("the hold", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        let held = pods.iter().find(|p| name_of(p) == pod && p.metadata.deletion_timestamp.is_some());
        held.and_then(|p| p.metadata.uid.clone()).ok_or_else(|| describe(&pods))
    })
    .await?;
    for _ in 0..FORGED {
        forge(stand, &fleet, ControlKind::Release, Some(uid.clone())).await?;
    }
    refused(&fleet, &pod, "Release", FORGED).await?;
    let pods = fleet.pods().await?;
    ensure!(pods.iter().any(|p| name_of(p) == pod), "the forged order has ended the task: {}", describe(&pods));
    let worker = fleet.qworker().await?.context("QWorker")?;
    ensure!(worker["status"]["counters"]["cut"].as_u64() == Some(0), "{}", worker["status"]["counters"]);
    // The same order, by a person, through the controller.
    kubectl(&["-n", &ns, "annotate", "pod", &pod, "qscaler.dev/release=now"], None).await?;
    gone_and_counted(&fleet, &pod, "released by order").await?;
    fleet.remove().await
}

#[tokio::test]
async fn a_forged_token_parks_nobody_and_the_condition_says_so() -> Result<()> {
    let stand = Stand::get().await?;
    let fleet = Fleet::create(stand, FleetOptions::managed("e2e-forged-token", BrokerKind::Redis, 1, 2)).await?;
    let pod = fleet.wait_ready(1).await?.first().map(name_of).context("a pod")?;
    ensure!(keys_of(&fleet, &pod).await?.len() == 43, "the pod was given no key of the controller");
    fleet.wait_condition("HoldEffective", "True", STEP).await?;
    forge(stand, &fleet, ControlKind::SigkillQueue, None).await?;
    refused(&fleet, &pod, "SigkillQueue", 1).await?;
    let message = fleet.wait_condition("HoldEffective", "False", STEP).await?;
    ensure!(message.contains("without a signature") && message.contains(&pod), "{message}");
    let worker = fleet.qworker().await?.context("QWorker")?;
    ensure!(worker["status"]["parked"].as_u64() == Some(0), "{}", worker["status"]);
    fleet.remove().await
}
