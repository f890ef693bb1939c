//! Cases about reports. In: reports sent by a sidecar's end. Out: whether the controller's end gets all of them, in order.

use super::{DEADLINE, Outcome, UnderTest, address, check, report};
use crate::{ControlSender, Reports};
use qscaler_core::workload::ControlAddress;
use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Reads until so many good reports are there.
pub(super) async fn read(
    control: &dyn ControlSender,
    address: &ControlAddress,
    count: usize,
    max: usize,
) -> Result<Reports, Box<dyn Error + Send + Sync>> {
    let begin = Instant::now();
    let mut all = Reports::default();
    while all.reports.len() < count {
        let some = control.reports(address, max).await?;
        check(some.reports.len() <= max, || format!("{} reports where {max} were asked for", some.reports.len()))?;
        all.malformed += some.malformed;
        all.reports.extend(some.reports);
        if begin.elapsed() > DEADLINE {
            return Err(format!("only {} of {count} reports came", all.reports.len()).into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(all)
}

pub(super) async fn reports_come_in_order_and_no_more_than_asked_for(broker: &dyn UnderTest) -> Outcome {
    let address = address("reports");
    let mut ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    for sequence in 1..=10 {
        ends.receiver.report(&report(&address, "a", sequence)).await?;
    }
    let sent: Vec<u64> = read(&*ends.control, &address, 10, 3).await?.reports.iter().map(|r| r.sequence).collect();
    check(sent == (1..=10).collect::<Vec<_>>(), || format!("{sent:?}"))?;
    ends.receiver.report(&report(&address, "a", 11)).await?;
    let next: Vec<u64> = read(&*ends.control, &address, 1, 100).await?.reports.iter().map(|r| r.sequence).collect();
    check(next == [11], || format!("{next:?}"))
}

pub(super) async fn a_malformed_report_is_dropped_and_counted(broker: &dyn UnderTest) -> Outcome {
    let address = address("malformed-reports");
    let mut ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    for body in [&b"{"[..], b"[]", br#"{"version":99}"#] {
        broker.put_report(&address, body).await?;
    }
    ends.receiver.report(&report(&address, "a", 1)).await?;
    let all = read(&*ends.control, &address, 1, 100).await?;
    check(all.malformed == 3 && all.reports[0].sequence == 1, || format!("{all:?}"))
}

pub(super) async fn a_reading_of_reports_that_is_cut_off_loses_nothing(broker: &dyn UnderTest) -> Outcome {
    const REPORTS: u64 = 40;
    let address = address("cut-off-reports");
    let mut ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    for sequence in 1..=REPORTS {
        ends.receiver.report(&report(&address, "a", sequence)).await?;
    }
    let mut seen = BTreeSet::new();
    let begin = Instant::now();
    let mut round = 0;
    while seen.len() < REPORTS as usize && begin.elapsed() < DEADLINE {
        round += 1;
        let patience = Duration::from_micros(50 * (round % 60));
        if let Ok(some) = timeout(patience, ends.control.reports(&address, 7)).await {
            seen.extend(some?.reports.iter().map(|r| r.sequence));
        }
    }
    check(seen.len() == REPORTS as usize, || format!("after {round} rounds only {seen:?}"))
}

pub(super) async fn a_report_that_is_too_long_is_dropped_and_hides_no_other(broker: &dyn UnderTest) -> Outcome {
    let address = address("too-long-reports");
    let mut ends = broker.ends(&address, "a")?;
    ends.control.declare(&address).await?;
    broker.put_report(&address, &vec![b' '; 4 << 20]).await?;
    ends.receiver.report(&report(&address, "a", 1)).await?;
    let all = read(&*ends.control, &address, 1, 100).await?;
    check(all.malformed == 1 && all.reports[0].sequence == 1, || format!("{} malformed, {:?}", all.malformed, all.reports))
}
