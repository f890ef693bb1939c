//! Cases about control messages. In: messages published by the controller's end. Out: whether the right sidecars get them, once.

use super::{Outcome, QUIET, UnderTest, address, check, order, report, take, take_nothing};
use crate::{ControlReceiver, Delivery, now_ms};
use futures::future::join_all;
use qscaler_core::message::{ControlMessage, Epoch};
use qscaler_core::workload::ControlAddress;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

type Receivers = Vec<Box<dyn ControlReceiver>>;

/// Receivers of this workload that are known to listen: each has taken once.
async fn receivers(broker: &dyn UnderTest, address: &ControlAddress, pods: &[&str]) -> Result<Receivers, Box<dyn std::error::Error + Send + Sync>> {
    let mut receivers = Receivers::new();
    for pod in pods {
        let mut receiver = broker.ends(address, pod)?.receiver;
        if let Some(early) = receiver.take(false, Duration::from_millis(1)).await? {
            return Err(format!("a message came before any was sent: {early:?}").into());
        }
        receivers.push(receiver);
    }
    Ok(receivers)
}

async fn all_take(
    receivers: &mut Receivers,
    shared: impl Fn(usize) -> bool,
) -> Result<Vec<(usize, Delivery)>, Box<dyn std::error::Error + Send + Sync>> {
    let takes = receivers.iter_mut().enumerate().map(|(i, receiver)| receiver.take(shared(i), QUIET));
    let mut taken = Vec::new();
    for (i, result) in join_all(takes).await.into_iter().enumerate() {
        if let Some(delivery) = result? {
            taken.push((i, delivery));
        }
    }
    Ok(taken)
}

/// Lets all take until exactly one has a message, and returns whose it is.
async fn one_takes(
    receivers: &mut Receivers,
    shared: impl Fn(usize) -> bool + Copy,
) -> Result<(usize, Delivery), Box<dyn std::error::Error + Send + Sync>> {
    let begin = Instant::now();
    while begin.elapsed() < super::DEADLINE {
        let mut taken = all_take(receivers, shared).await?;
        if taken.len() > 1 {
            return Err(format!("{} receivers have the message: {taken:?}", taken.len()).into());
        }
        if let Some(one) = taken.pop() {
            return Ok(one);
        }
    }
    Err("nobody got the message".into())
}

pub(super) async fn a_shared_message_reaches_exactly_one_of_several(broker: &dyn UnderTest) -> Outcome {
    let address = address("exactly-one");
    let control = broker.ends(&address, "controller")?.control;
    control.declare(&address).await?;
    control.declare(&address).await?;
    let mut receivers = receivers(broker, &address, &["a", "b", "c"]).await?;
    let mut epochs = BTreeSet::new();
    for epoch in 1..=3 {
        control.publish(&address, &order(epoch)).await?;
        let (who, delivery) = one_takes(&mut receivers, |_| true).await?;
        epochs.insert(delivery.message.epoch.0);
        receivers[who].ack(delivery).await?;
    }
    check(epochs == BTreeSet::from([1, 2, 3]), || format!("{epochs:?}"))?;
    let more = all_take(&mut receivers, |_| true).await?;
    check(more.is_empty(), || format!("acknowledged and here again: {more:?}"))
}

pub(super) async fn only_a_receiver_that_listens_gets_a_shared_message(broker: &dyn UnderTest) -> Outcome {
    let address = address("only-listeners");
    let control = broker.ends(&address, "controller")?.control;
    control.declare(&address).await?;
    let mut receivers = receivers(broker, &address, &["busy", "idle"]).await?;
    control.publish(&address, &order(1)).await?;
    take_nothing(&mut *receivers[0], false).await?;
    let (who, delivery) = one_takes(&mut receivers, |i| i == 1).await?;
    check(who == 1, || "the busy one got it".to_owned())?;
    Ok(receivers[1].ack(delivery).await?)
}

pub(super) async fn a_receiver_that_stopped_listening_hands_on_what_came_late(broker: &dyn UnderTest) -> Outcome {
    let address = address("late");
    let control = broker.ends(&address, "controller")?.control;
    control.declare(&address).await?;
    let mut receivers = receivers(broker, &address, &["was-idle", "idle"]).await?;
    // It listens, gets nothing, and becomes busy: what the server hands it in that moment is not its own.
    check(receivers[0].take(true, Duration::from_millis(50)).await?.is_none(), || "a message before any was sent".to_owned())?;
    control.publish(&address, &order(1)).await?;
    let (who, delivery) = one_takes(&mut receivers, |i| i == 1).await?;
    check(who == 1, || "the busy one got it".to_owned())?;
    Ok(receivers[1].ack(delivery).await?)
}

pub(super) async fn a_directed_message_reaches_its_pod_alone(broker: &dyn UnderTest) -> Outcome {
    let address = address("directed");
    let control = broker.ends(&address, "controller")?.control;
    control.declare(&address).await?;
    let mut receivers = receivers(broker, &address, &["a", "b", "c"]).await?;
    let mut message = order(7);
    message.target = Some("b".to_owned());
    control.publish(&address, &message).await?;
    // The target is busy, the others are idle.
    let (who, delivery) = one_takes(&mut receivers, |i| i != 1).await?;
    check(who == 1 && delivery.message == message, || format!("{who} got {delivery:?}"))?;
    receivers[1].ack(delivery).await?;
    let more = all_take(&mut receivers, |_| true).await?;
    check(more.is_empty(), || format!("{more:?}"))
}

/// Two clusters on one broker have Deployments of one namespace and name; and some sidecars were not told the UID.
pub(super) async fn namesakes_with_other_uids_take_nothing_of_one_another(broker: &dyn UnderTest) -> Outcome {
    let here = address("namesakes");
    let addresses = [here.clone(), ControlAddress::new(&here.workload, &"of-another-cluster".into()), here.without_uid()];
    let control = broker.ends(&here, "controller")?.control;
    let mut all = Vec::new();
    for address in &addresses {
        control.declare(address).await?;
        all.extend(receivers(broker, address, &["a"]).await?);
    }
    for (i, address) in addresses.iter().enumerate() {
        let shared = order(i as u64);
        let directed = ControlMessage { target: Some("a".to_owned()), ..order(i as u64) };
        for message in [shared, directed] {
            control.publish(address, &message).await?;
            let (who, delivery) = one_takes(&mut all, |_| true).await?;
            check(who == i && delivery.message == message, || format!("sent to {address}, taken by {who}: {delivery:?}"))?;
            all[who].ack(delivery).await?;
        }
        all[i].report(&report(address, "a", i as u64)).await?;
    }
    for (i, address) in addresses.iter().enumerate() {
        let taken = super::reports::read(&*control, address, 1, 100).await?;
        check(taken.reports[0].sequence == i as u64 && taken.reports.len() == 1, || format!("{address}: {taken:?}"))?;
        // Removing one leaves the others their messages.
        control.publish(address, &order(9)).await?;
        for later in &addresses[i + 1..] {
            control.publish(later, &order(10)).await?;
        }
        control.remove(address).await?;
        for later in &mut all[i + 1..] {
            let delivery = take(&mut **later, true).await?;
            check(delivery.message.epoch == Epoch(10), || format!("{delivery:?}"))?;
            later.ack(delivery).await?;
        }
    }
    Ok(())
}

pub(super) async fn an_acknowledged_message_never_comes_again(broker: &dyn UnderTest) -> Outcome {
    let address = address("acknowledged");
    let ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    ends.control.publish(&address, &order(1)).await?;
    let mut receiver = ends.receiver;
    let delivery = take(&mut *receiver, true).await?;
    receiver.ack(delivery).await?;
    drop(receiver);
    for pod in ["a", "b"] {
        take_nothing(&mut *broker.ends(&address, pod)?.receiver, true).await?;
    }
    Ok(())
}

pub(super) async fn a_message_given_back_reaches_another(broker: &dyn UnderTest) -> Outcome {
    let address = address("given-back");
    let ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    ends.control.publish(&address, &order(4)).await?;
    let mut first = ends.receiver;
    let delivery = take(&mut *first, true).await?;
    first.give_back(delivery).await?;
    let mut second = broker.ends(&address, "b")?.receiver;
    let delivery = take(&mut *second, true).await?;
    check(delivery.message.epoch == Epoch(4), || format!("{delivery:?}"))?;
    second.ack(delivery).await?;
    take_nothing(&mut *first, true).await
}

pub(super) async fn a_message_of_a_dead_receiver_reaches_another(broker: &dyn UnderTest) -> Outcome {
    let address = address("dead");
    let ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    ends.control.publish(&address, &order(5)).await?;
    let mut first = ends.receiver;
    let delivery = take(&mut *first, true).await?;
    drop((first, delivery));
    let mut second = broker.ends(&address, "b")?.receiver;
    let delivery = take(&mut *second, true).await?;
    check(delivery.message.epoch == Epoch(5), || format!("{delivery:?}"))?;
    Ok(second.ack(delivery).await?)
}

pub(super) async fn a_restarted_sidecar_gets_its_message_again(broker: &dyn UnderTest) -> Outcome {
    let address = address("restarted");
    let ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    ends.control.publish(&address, &order(6)).await?;
    let mut first = ends.receiver;
    let delivery = take(&mut *first, true).await?;
    drop((first, delivery));
    let mut again = broker.ends(&address, "a")?.receiver;
    let delivery = take(&mut *again, true).await?;
    check(delivery.message.epoch == Epoch(6), || format!("{delivery:?}"))?;
    Ok(again.ack(delivery).await?)
}

pub(super) async fn an_expired_message_reaches_nobody(broker: &dyn UnderTest) -> Outcome {
    let address = address("expired");
    let ends = broker.ends(&address, "a")?;
    let mut receiver = ends.receiver;
    ends.control.declare(&address).await?;
    take_nothing(&mut *receiver, false).await?;
    let dies_ms = now_ms() + 1000;
    for target in [None, Some("a".to_owned())] {
        let mut message = order(1);
        (message.expires_ms, message.target) = (dies_ms, target);
        ends.control.publish(&address, &message).await?;
        message.expires_ms = now_ms().saturating_sub(1);
        ends.control.publish(&address, &message).await?;
    }
    while now_ms() <= dies_ms {
        sleep(Duration::from_millis(50)).await;
    }
    take_nothing(&mut *receiver, true).await?;
    // The way is free for one that lives.
    ends.control.publish(&address, &order(2)).await?;
    let delivery = take(&mut *receiver, true).await?;
    check(delivery.message.epoch == Epoch(2), || format!("{delivery:?}"))?;
    Ok(receiver.ack(delivery).await?)
}

pub(super) async fn purged_messages_reach_nobody(broker: &dyn UnderTest) -> Outcome {
    let address = address("purged");
    let mut ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    for epoch in 1..=3 {
        ends.control.publish(&address, &order(epoch)).await?;
    }
    ends.control.purge(&address).await?;
    take_nothing(&mut *ends.receiver, true).await
}

pub(super) async fn a_workload_removed_and_declared_again_is_empty(broker: &dyn UnderTest) -> Outcome {
    let address = address("removed");
    let mut ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    ends.control.publish(&address, &order(1)).await?;
    ends.control.remove(&address).await?;
    ends.control.remove(&address).await?;
    ends.control.purge(&address).await?;
    ends.control.declare(&address).await?;
    take_nothing(&mut *ends.receiver, true).await?;
    ends.control.publish(&address, &order(2)).await?;
    let delivery = take(&mut *ends.receiver, true).await?;
    check(delivery.message.epoch == Epoch(2), || format!("{delivery:?}"))
}

pub(super) async fn a_take_that_is_cut_off_loses_nothing(broker: &dyn UnderTest) -> Outcome {
    const MESSAGES: u64 = 30;
    let address = address("cut-off");
    let mut ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    take_nothing(&mut *ends.receiver, false).await?;
    for epoch in 1..=MESSAGES {
        let mut message = order(epoch);
        message.target = epoch.is_multiple_of(3).then(|| "a".to_owned());
        ends.control.publish(&address, &message).await?;
    }
    let mut epochs = BTreeSet::new();
    let begin = Instant::now();
    let mut round = 0u64;
    while epochs.len() < MESSAGES as usize && begin.elapsed() < super::DEADLINE {
        round += 1;
        // From cut off at once to long enough; now and then not listening.
        let patience = Duration::from_micros(100 * (round % 40) + round % 7);
        if let Ok(taken) = timeout(patience, ends.receiver.take(!round.is_multiple_of(5), Duration::from_secs(5))).await
            && let Some(delivery) = taken?
        {
            epochs.insert(delivery.message.epoch.0);
            ends.receiver.ack(delivery).await?;
        }
    }
    check(epochs.len() == MESSAGES as usize, || format!("after {round} rounds only {epochs:?}"))
}

pub(super) async fn a_malformed_message_is_dropped_and_counted(broker: &dyn UnderTest) -> Outcome {
    let address = address("malformed");
    let mut ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    for body in [&b"{"[..], b"", b"\xff\xfe", br#"{"version":99}"#] {
        broker.put_control(&address, body).await?;
    }
    ends.control.publish(&address, &order(3)).await?;
    let delivery = take(&mut *ends.receiver, true).await?;
    check(delivery.message.epoch == Epoch(3), || format!("{delivery:?}"))?;
    ends.receiver.ack(delivery).await?;
    check(ends.receiver.malformed() == 4, || format!("{} counted", ends.receiver.malformed()))?;
    take_nothing(&mut *broker.ends(&address, "b")?.receiver, true).await
}

pub(super) async fn a_message_that_is_too_long_is_dropped_by_whoever_meets_it_and_hides_no_other(broker: &dyn UnderTest) -> Outcome {
    let address = address("too-long");
    let ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    broker.put_control(&address, &vec![b' '; 4 << 20]).await?;
    ends.control.publish(&address, &order(3)).await?;
    let mut receiver = ends.receiver;
    let begin = Instant::now();
    let delivery = loop {
        if let Some(delivery) = receiver.take(true, QUIET).await? {
            break delivery;
        }
        check(begin.elapsed() < super::DEADLINE, || "the short one never came".to_owned())?;
    };
    check(delivery.message.epoch == Epoch(3), || format!("{delivery:?}"))?;
    receiver.ack(delivery).await?;
    check(receiver.malformed() == 1, || format!("{} counted", receiver.malformed()))?;
    // A restart meets it no more.
    let mut again = broker.ends(&address, "a")?.receiver;
    take_nothing(&mut *again, true).await?;
    check(again.malformed() == 0, || format!("{} counted after a restart", again.malformed()))
}
