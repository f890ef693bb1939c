//! Cases about servers that are away, refuse, or restart. In: ends at bad places. Out: whether each call says the right thing, soon, without secrets.

use super::{DEADLINE, Ends, Outcome, UnderTest, address, check, order, report, sample, take};
use crate::{BrokerError, Retry};
use std::error::Error;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A call at a place where no server is ends within this; the machine may be busy.
const SOON: Duration = Duration::from_secs(20);

/// One error of every operation.
async fn errors(ends: &mut Ends, broker: &dyn UnderTest) -> Result<Vec<BrokerError>, Box<dyn Error + Send + Sync>> {
    let address = address("faults");
    let results = [
        sample(&*ends.stats, broker, "contract-faults").await.err(),
        ends.control.declare(&address).await.err(),
        ends.control.publish(&address, &order(1)).await.err(),
        ends.control.purge(&address).await.err(),
        ends.control.reports(&address, 1).await.err(),
        ends.control.remove(&address).await.err(),
        ends.receiver.take(true, Duration::from_secs(1)).await.err(),
        ends.receiver.report(&report(&address, "a", 1)).await.err(),
    ];
    let place = results.iter().position(Option::is_none);
    if let Some(place) = place {
        return Err(format!("operation {place} did not fail").into());
    }
    Ok(results.into_iter().flatten().collect())
}

fn no_secrets(errors: &[BrokerError], broker: &dyn UnderTest) -> Outcome {
    for error in errors {
        let shown = format!("{error} {error:?} {:?}", error.source());
        for secret in broker.secrets() {
            check(!shown.contains(&secret), || format!("a secret is in {}", shown.replace(&secret, "<secret>")))?;
        }
    }
    Ok(())
}

pub(super) async fn an_unreachable_server_is_an_error_to_retry_later(broker: &dyn UnderTest) -> Outcome {
    let begin = Instant::now();
    let mut ends = broker.ends_nowhere(&address("faults"))?;
    let errors = errors(&mut ends, broker).await?;
    check(errors.iter().all(|e| e.retry == Retry::Later), || format!("{errors:?}"))?;
    check(begin.elapsed() < SOON, || format!("it took {:?}", begin.elapsed()))?;
    no_secrets(&errors, broker)
}

pub(super) async fn a_wrong_password_is_an_error_until_changed(broker: &dyn UnderTest) -> Outcome {
    let mut ends = broker.ends_refused(&address("faults"))?;
    let errors = errors(&mut ends, broker).await?;
    check(errors.iter().all(|e| e.retry == Retry::AfterChange), || format!("{errors:?}"))?;
    no_secrets(&errors, broker)
}

/// Calls until it succeeds. Every error on the way is transient: nobody has changed anything.
macro_rules! until_ok {
    ($call:expr) => {{
        let begin = Instant::now();
        loop {
            match $call.await {
                Ok(value) => break value,
                Err(error) if error.retry == Retry::Later && begin.elapsed() < DEADLINE => sleep(Duration::from_millis(200)).await,
                Err(error) => return Err(format!("after {:?}: {error:?}", begin.elapsed()).into()),
            }
        }
    }};
}

pub(super) async fn everything_goes_on_after_the_server_restarts(broker: &dyn UnderTest) -> Outcome {
    let address = address("restart");
    let mut ends = broker.ends(&address, "a")?;
    // All three ends have a live connection, and the receiver waits on it when the server goes.
    ends.control.declare(&address).await?;
    ends.receiver.report(&report(&address, "a", 1)).await?;
    ends.control.reports(&address, 10).await?;
    sample(&*ends.stats, broker, "contract-restart").await?;
    check(ends.receiver.take(true, Duration::from_millis(10)).await?.is_none(), || "a message before any was sent".to_owned())?;
    broker.restart().await?;
    until_ok!(sample(&*ends.stats, broker, "contract-restart"));
    until_ok!(ends.control.declare(&address));
    until_ok!(ends.receiver.take(true, Duration::from_millis(10)));
    until_ok!(ends.control.publish(&address, &order(9)));
    let mut directed = order(10);
    directed.target = Some("a".to_owned());
    until_ok!(ends.control.publish(&address, &directed));
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let delivery = take(&mut *ends.receiver, true).await?;
        epochs.push(delivery.message.epoch.0);
        ends.receiver.ack(delivery).await?;
    }
    epochs.sort_unstable();
    check(epochs == [9, 10], || format!("{epochs:?}"))?;
    until_ok!(ends.receiver.report(&report(&address, "a", 2)));
    let begin = Instant::now();
    while begin.elapsed() < DEADLINE {
        if until_ok!(ends.control.reports(&address, 10)).reports.iter().any(|r| r.sequence == 2) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err("the report after the restart did not come".into())
}
