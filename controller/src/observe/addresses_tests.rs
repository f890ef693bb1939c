//! Old sidecars are heard and told, new ones as well, and nobody takes for its own what a namesake of another cluster says.

use super::*;
use crate::testing::{T0_MS, orders, report};
use qscaler_broker::ControlReceiver;
use qscaler_broker::memory::Memory;
use qscaler_core::message::{Busy, ControlKind, Epoch, VERSION, WorkerState};

/// A channel, the workload's address with its UID, and the name alone.
fn both() -> (Memory, BothAddresses, ControlAddress, ControlAddress) {
    let memory = Memory::with_clock(Arc::new(|| T0_MS));
    let address = ControlAddress::new(&orders(), &"dep".into());
    (memory.clone(), BothAddresses::new(Arc::new(memory)), address.clone(), address.without_uid())
}

fn token(target: Option<&str>) -> ControlMessage {
    ControlMessage {
        version: VERSION,
        kind: ControlKind::SigkillQueue,
        workload_uid: "dep".into(),
        epoch: Epoch(1),
        issued_ms: T0_MS,
        expires_ms: u64::MAX,
        lease_ms: 1,
        target: target.map(str::to_owned),
    }
}

fn said(pod: &str, workload_uid: &str, last: bool) -> Report {
    Report { workload_uid: workload_uid.into(), last, ..report(pod, 1, WorkerState::Open, Busy::Idle) }
}

/// Looks some times, as the controller does each second; whose reports came.
async fn look(both: &BothAddresses, address: &ControlAddress, times: u32) -> Vec<String> {
    let mut heard = Vec::new();
    for _ in 0..times {
        heard.extend(both.reports(address, 10).await.unwrap().reports.into_iter().map(|r| r.pod_name));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    heard.sort();
    heard
}

#[tokio::test(start_paused = true)]
async fn sidecars_at_the_name_alone_are_heard_told_and_forgotten() {
    let (memory, both, address, alone) = both();
    let (mut new, mut old) = (memory.receiver(&address, "uid-new"), memory.receiver(&alone, "uid-old"));
    new.report(&said("new", "dep", false)).await.unwrap();
    old.report(&said("old", "dep", false)).await.unwrap();
    assert_eq!(look(&both, &address, 2).await, ["new", "old"]);
    // Each is told at its own address, and shared messages go to both kinds, as many as each has of the pods.
    for (target, mine) in [("uid-old", &mut old), ("uid-new", &mut new)] {
        both.publish(&address, &token(Some(target))).await.unwrap();
        let taken = mine.take(false, Duration::ZERO).await.unwrap().expect(target);
        mine.ack(taken).await.unwrap();
    }
    for _ in 0..4 {
        both.publish(&address, &token(None)).await.unwrap();
    }
    for mine in [&mut old, &mut new] {
        for _ in 0..2 {
            let taken = mine.take(true, Duration::ZERO).await.unwrap().expect("half of the messages");
            mine.ack(taken).await.unwrap();
        }
        assert!(mine.take(true, Duration::ZERO).await.unwrap().is_none());
    }
    both.publish(&address, &token(None)).await.unwrap();
    both.publish(&address, &token(None)).await.unwrap();
    both.purge(&address).await.unwrap();
    assert!(old.take(true, Duration::ZERO).await.unwrap().is_none() && new.take(true, Duration::ZERO).await.unwrap().is_none());
    // The last of them ends: all messages are the others' again.
    old.report(&said("old", "dep", true)).await.unwrap();
    look(&both, &address, 2).await;
    for _ in 0..2 {
        both.publish(&address, &token(None)).await.unwrap();
    }
    assert!(old.take(true, Duration::ZERO).await.unwrap().is_none());
    assert!(new.take(true, Duration::ZERO).await.unwrap().is_some() && new.take(true, Duration::ZERO).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_later_is_heard_within_the_minute_after_which_it_would_be_called_silent() {
    let (memory, both, address, alone) = both();
    assert!(look(&both, &address, 5).await.is_empty());
    memory.receiver(&alone, "uid-old").report(&said("old", "", false)).await.unwrap();
    assert_eq!(look(&both, &address, 21).await, ["old"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_namesake_of_another_cluster_says_at_the_name_alone_is_not_ours() {
    let (memory, both, address, alone) = both();
    let mut theirs = memory.receiver(&alone, "uid-theirs");
    theirs.report(&said("theirs", "of-another-cluster", false)).await.unwrap();
    assert!(look(&both, &address, 3).await.is_empty());
    both.publish(&address, &token(None)).await.unwrap();
    assert!(theirs.take(true, Duration::ZERO).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn trouble_at_the_name_alone_is_no_trouble_of_the_channel() {
    let (memory, both, address, _) = both();
    memory.fail(Some(qscaler_broker::Retry::AfterChange));
    assert!(both.reports(&address, 10).await.is_ok(), "the first look is at the name alone");
    assert!(both.reports(&address, 10).await.is_err(), "the second is not");
}
