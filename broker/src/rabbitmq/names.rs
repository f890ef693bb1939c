//! Names, arguments and bounds of QScaler's own queues in RabbitMQ. In: a workload's address, a pod. Out: queue names, routing keys, and queues that exist.
//! Left to others: publishing and consuming.

use super::{AmqpLink, is_missing, is_refused};
use crate::{BrokerError, Retry};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use qscaler_core::workload::ControlAddress;

/// The one exchange: direct, durable.
pub(crate) const EXCHANGE: &str = "qscaler";
/// Milliseconds. A queue that nobody has declared or consumed for a week belongs to a workload that is gone.
const QUEUE_EXPIRES_MS: i32 = 7 * 24 * 3600 * 1000;
/// A wave has at most as many messages as there are pods to park; this bounds what nobody takes.
const CONTROL_LENGTH_MAX: i32 = 10_000;
/// One report per pod and a few seconds; the oldest go first when no controller reads.
const REPORT_LENGTH_MAX: i32 = 10_000;

/// Bytes of a queue's messages together, and so of each: a longer one is dropped by the server as it comes, before anybody reads it. Ten thousand messages of
/// a usual size have less than half of it.
const BYTES_MAX: i32 = 16 * 1024 * 1024;
/// The same for a pod's own queue: some messages of the longest kind.
const POD_BYTES_MAX: i32 = 512 * 1024;

/// A durable queue of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnQueue {
    pub(crate) name: String,
    pub(crate) routing_key: String,
    length_max: i32,
}

/// A namespace has no dot, so these names are distinct though a workload's may have some.
fn dotted(address: &ControlAddress) -> String {
    format!("{}.{}{}", address.workload.namespace, address.workload.name, address.suffix())
}

pub(crate) fn control(address: &ControlAddress) -> OwnQueue {
    let dotted = dotted(address);
    OwnQueue { name: format!("qscaler.ctl.{dotted}"), routing_key: format!("ctl.{dotted}"), length_max: CONTROL_LENGTH_MAX }
}

pub(crate) fn reports(address: &ControlAddress) -> OwnQueue {
    let dotted = dotted(address);
    OwnQueue { name: format!("qscaler.reports.{dotted}"), routing_key: format!("reports.{dotted}"), length_max: REPORT_LENGTH_MAX }
}

/// A pod's own queue. A new name for each connection: the queue of a connection that the server believes alive is locked.
pub(crate) fn pod_queue(address: &ControlAddress, pod_uid: &str, distinct: u64) -> String {
    format!("{}:{pod_uid}:{distinct}", control(address).name)
}

/// Arguments of a pod's own queue.
pub(crate) fn pod_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongInt(POD_BYTES_MAX));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    arguments
}

/// The workload is part of it, so that a message for a pod of one workload reaches no other's, whatever UID it names.
pub(crate) fn pod_routing_key(address: &ControlAddress, pod_uid: &str) -> String {
    format!("pod.{}.{pod_uid}", dotted(address))
}

/// A name as the protocol has it: at most 255 bytes.
pub(crate) fn short(link: &AmqpLink, operation: &'static str, name: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(name).map_err(|_| {
        let start: String = name.chars().take(60).collect();
        link.failed(
            operation,
            &format!("the name {start}… has {} bytes, RabbitMQ takes at most 255: shorten the workload's name or the queue's", name.len()),
            Retry::AfterChange,
        )
    })
}

impl OwnQueue {
    fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert("x-expires".into(), AMQPValue::LongInt(QUEUE_EXPIRES_MS));
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(self.length_max));
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongInt(BYTES_MAX));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
        arguments
    }

    /// Makes the queue exist and bound. One that is there is taken as it is: another release may have given it other arguments.
    pub(crate) async fn ensure(&self, link: &AmqpLink, operation: &'static str, connection: &Connection) -> Result<(), BrokerError> {
        let name = short(link, operation, &self.name)?;
        let channel = link.channel(operation, connection).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match link.raw(channel.queue_declare(name.clone(), passive, FieldTable::default())).await {
            Ok(_) => return self.bind(link, operation, &channel).await,
            Err(Some(error)) if is_missing(&error) || is_refused(&error) => {}
            Err(error) => return Err(link.either(operation, error.as_ref())),
        }
        ensure_exchange(link, operation, connection).await?;
        let channel = link.channel(operation, connection).await?;
        link.call(operation, channel.queue_declare(name, QueueDeclareOptions::durable(), self.arguments())).await?;
        self.bind(link, operation, &channel).await
    }

    async fn bind(&self, link: &AmqpLink, operation: &'static str, channel: &Channel) -> Result<(), BrokerError> {
        let (name, key) = (short(link, operation, &self.name)?, short(link, operation, &self.routing_key)?);
        link.call(operation, channel.queue_bind(name, EXCHANGE.into(), key, QueueBindOptions::default(), FieldTable::default())).await?;
        // Closing is politeness: the channel goes with the connection at the latest.
        let _ = channel.close(200, "".into()).await;
        Ok(())
    }
}

/// Makes the exchange exist. A user without that right finds it made by the controller.
pub(crate) async fn ensure_exchange(link: &AmqpLink, operation: &'static str, connection: &Connection) -> Result<(), BrokerError> {
    let channel = link.channel(operation, connection).await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    match link.raw(channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Direct, options, FieldTable::default())).await {
        Ok(()) => {
            let _ = channel.close(200, "".into()).await;
            Ok(())
        }
        Err(Some(error)) if is_refused(&error) => Ok(()),
        Err(error) => Err(link.either(operation, error.as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_core::workload::WorkloadId;

    #[test]
    fn names_are_those_of_the_wire_contract() {
        let orders = WorkloadId { namespace: "shop".into(), name: "orders.v2".into() };
        let address = ControlAddress::new(&orders, &"d-9".into());
        assert_eq!(control(&address).name, "qscaler.ctl.shop.orders.v2:d-9");
        assert_eq!(reports(&address).name, "qscaler.reports.shop.orders.v2:d-9");
        assert_eq!(pod_queue(&address, "u-1", 7), "qscaler.ctl.shop.orders.v2:d-9:u-1:7");
        // Of a sidecar that was not told its workload's UID.
        let address = address.without_uid();
        assert_eq!(control(&address).name, "qscaler.ctl.shop.orders.v2");
        assert_eq!(reports(&address).name, "qscaler.reports.shop.orders.v2");
        assert_eq!(pod_queue(&address, "u-1", 7), "qscaler.ctl.shop.orders.v2:u-1:7");
    }
}
