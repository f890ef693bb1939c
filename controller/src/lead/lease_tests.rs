//! The election by itself, and against an API server with one Lease.

use super::*;
use crate::testing::{Script, api_by, refusal};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

fn seen(holder: &str, renewed: &str) -> LeaseSeen {
    LeaseSeen { holder: holder.to_owned(), renewed: renewed.to_owned() }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_missing_or_free_lease_is_taken_and_ones_own_renewed() {
    let mut election = Election::new("a");
    assert_eq!(election.step(None, at(0)), LeaseStep::Create);
    assert_eq!(election.step(Some(&seen("", "1")), at(1)), LeaseStep::Take);
    assert_eq!(election.step(Some(&seen("a", "2")), at(2)), LeaseStep::Renew);
}

#[test]
fn a_foreign_lease_is_taken_only_after_it_stood_still_for_its_duration() {
    let mut election = Election::new("a");
    assert_eq!(election.step(Some(&seen("b", "1")), at(100)), LeaseStep::Wait);
    assert_eq!(election.step(Some(&seen("b", "1")), at(114)), LeaseStep::Wait);
    assert_eq!(election.step(Some(&seen("b", "2")), at(114)), LeaseStep::Wait);
    assert_eq!(election.step(Some(&seen("b", "2")), at(128)), LeaseStep::Wait);
    assert_eq!(election.step(Some(&seen("b", "2")), at(129)), LeaseStep::Take);
}

#[tokio::test(start_paused = true)]
async fn leadership_ends_by_itself_when_it_is_not_renewed() {
    let (grant, leadership) = Leadership::granted();
    assert!(!leadership.holds());
    grant.until(Some(Instant::now() + LEAD_FOR));
    assert!(leadership.holds());
    tokio::time::advance(LEAD_FOR).await;
    assert!(!leadership.holds());
    assert!(Leadership::always().holds());
}

#[test]
fn a_leader_stops_before_another_can_start() {
    assert!(LEAD_FOR < LEASE_DURATION && RENEW_EVERY + CALL_TIMEOUT < LEAD_FOR);
}

/// An API server with one Lease, which keeps versions as the real one does.
fn lease_server() -> (Api<Lease>, Script, Arc<Mutex<Option<Value>>>) {
    let stored: Arc<Mutex<Option<Value>>> = Arc::default();
    let shared = Arc::clone(&stored);
    let (client, script) = api_by(move |call| {
        let mut stored = shared.lock().unwrap();
        let version = |of: &Value| of["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        match (call.method.as_str(), stored.as_ref()) {
            ("GET", Some(lease)) => (200, lease.clone()),
            ("POST", Some(_)) => refusal(409, "AlreadyExists", "exists"),
            ("PUT", Some(lease)) if version(lease) != version(&call.body) => refusal(409, "Conflict", "changed"),
            ("POST" | "PUT", old) => {
                let mut new = call.body.clone();
                new["metadata"]["resourceVersion"] = json!((old.map_or(0, version) + 1).to_string());
                *stored = Some(new.clone());
                (200, new)
            }
            _ => refusal(404, "NotFound", "no Lease"),
        }
    });
    (Api::namespaced(client, "qscaler-system"), script, stored)
}

fn holder(stored: &Mutex<Option<Value>>) -> String {
    stored.lock().unwrap().as_ref().map(|l| l["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    // Time is paused: it moves on only when nothing else can.
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(start_paused = true)]
async fn of_two_controllers_one_leads_and_the_other_follows_a_clean_end_at_once() {
    let (api, script, stored) = lease_server();
    let stops = [CancellationToken::new(), CancellationToken::new()];
    let (first, first_task) = run(api.clone(), "one".into(), stops[0].clone());
    until("the first leads", || first.holds()).await;
    let (second, _task) = run(api, "two".into(), stops[1].clone());
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(first.holds() && !second.holds(), "a minute under one leader");
    }
    stops[0].cancel();
    first_task.await.unwrap();
    assert!(!first.holds() && holder(&stored).is_empty(), "given back");
    let begin = Instant::now();
    until("the second leads", || second.holds()).await;
    assert!(begin.elapsed() <= RETRY_EVERY + CALL_TIMEOUT, "not a whole duration: {:?}", begin.elapsed());
    assert_eq!(holder(&stored), "two");
    assert!(script.seen().iter().all(|c| c.contains("/apis/coordination.k8s.io/v1/namespaces/qscaler-system/leases")));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_can_start() {
    let (api, _, stored) = lease_server();
    let (leadership, _task) = run(api, "one".into(), CancellationToken::new());
    until("it leads", || leadership.holds()).await;
    // Somebody else writes the Lease, as after a partition.
    let mut foreign = stored.lock().unwrap().clone().unwrap();
    foreign["spec"]["holderIdentity"] = json!("two");
    foreign["metadata"]["resourceVersion"] = json!("99");
    *stored.lock().unwrap() = Some(foreign);
    let begin = Instant::now();
    until("it stops", || !leadership.holds()).await;
    assert!(begin.elapsed() < LEASE_DURATION);
}
