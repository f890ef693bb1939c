//! Signatures on their way. In: messages that the controller's end has signed, and bytes that it has not. Out: whether a sidecar's end tells them apart, also
//! when another had the message first.

use super::{Outcome, UnderTest, address, check, order, take};
use crate::signing::Seal;
use qscaler_core::message::ControlMessage;
use std::time::Duration;

pub(super) async fn a_signature_survives_the_way_and_being_given_back(broker: &dyn UnderTest) -> Outcome {
    let address = address("signed");
    let ends = broker.ends(&address, "a")?;
    let (mut first, mut second) = (ends.receiver, broker.ends(&address, "b")?.receiver);
    // Known to listen.
    check(first.take(false, Duration::from_millis(1)).await?.is_none(), || "a message before any was sent".to_owned())?;
    ends.control.declare(&address).await?;
    for message in [order(1), ControlMessage { target: Some("a".to_owned()), ..order(2) }] {
        ends.control.publish(&address, &message).await?;
        let delivery = take(&mut *first, true).await?;
        check(delivery.seal == Seal::Good && delivery.message == message, || format!("{delivery:?}"))?;
        first.give_back(delivery).await?;
        let again = if message.target.is_some() { &mut first } else { &mut second };
        let delivery = take(&mut **again, true).await?;
        check(delivery.seal == Seal::Good && delivery.message == message, || format!("given back: {delivery:?}"))?;
        again.ack(delivery).await?;
    }
    Ok(())
}

pub(super) async fn what_the_controller_did_not_sign_is_told_apart(broker: &dyn UnderTest) -> Outcome {
    let address = address("not-signed");
    let ends = broker.ends(&address, "a")?;
    let mut receiver = ends.receiver;
    ends.control.declare(&address).await?;
    let signed = String::from_utf8(super::signer().seal(&order(2)))?;
    for (body, seal) in [
        (order(1).encode(), Seal::Missing),
        (signed.replace("\"epoch\":2", "\"epoch\":9").into_bytes(), Seal::Forged),
        (signed.into_bytes(), Seal::Good),
    ] {
        broker.put_control(&address, &body).await?;
        let delivery = take(&mut *receiver, true).await?;
        check(delivery.seal == seal, || format!("{delivery:?} instead of {seal:?}"))?;
        receiver.ack(delivery).await?;
    }
    Ok(())
}
