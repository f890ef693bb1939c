//! Cases about depths and counters. In: tasks put by a raw client. Out: whether the samples follow.

use super::{Outcome, UnderTest, address, check, sample, sample_until};
use crate::QueueQuery;

pub(super) async fn a_queue_that_does_not_exist_is_empty(broker: &dyn UnderTest) -> Outcome {
    let ends = broker.ends(&address("missing"), "p")?;
    for _ in 0..3 {
        let seen = sample(&*ends.stats, broker, "contract-missing").await?;
        check(seen.ready == Some(0), || format!("{seen:?}"))?;
    }
    Ok(())
}

pub(super) async fn the_depth_follows_what_a_client_publishes(broker: &dyn UnderTest) -> Outcome {
    let ends = broker.ends(&address("depth"), "p")?;
    broker.put_tasks("contract-depth", 3).await?;
    sample_until(&*ends.stats, broker, "contract-depth", |s| s.ready == Some(3)).await?;
    broker.put_tasks("contract-depth", 4).await?;
    sample_until(&*ends.stats, broker, "contract-depth", |s| s.ready == Some(7)).await.map(drop)
}

pub(super) async fn tasks_in_work_are_told_apart_from_waiting_ones(broker: &dyn UnderTest) -> Outcome {
    let ends = broker.ends(&address("in-work"), "p")?;
    broker.put_tasks("contract-in-work", 3).await?;
    broker.hold_task("contract-in-work").await?;
    sample_until(&*ends.stats, broker, "contract-in-work", |s| s.ready == Some(2) && s.unacked == Some(1)).await?;
    broker.put_tasks("contract-beside", 1).await?;
    sample_until(&*ends.stats, broker, "contract-beside", |s| s.ready == Some(1) && s.unacked == Some(0)).await.map(drop)
}

pub(super) async fn counters_follow_what_a_client_publishes(broker: &dyn UnderTest) -> Outcome {
    let ends = broker.ends(&address("counters"), "p")?;
    broker.put_tasks("contract-counters", 2).await?;
    let seen = sample_until(&*ends.stats, broker, "contract-counters", |s| s.ready == Some(2) && s.unacked.is_some()).await?;
    // A list in Redis has no counters: unknown, and it stays unknown.
    if broker.framework().waiting.is_empty() || seen.published_total.is_some() {
        let seen = sample_until(&*ends.stats, broker, "contract-counters", |s| s.published_total == Some(2)).await?;
        check(seen.completed_total == Some(0), || format!("{seen:?}"))?;
    }
    Ok(())
}

pub(super) async fn many_queues_are_measured_in_the_order_asked(broker: &dyn UnderTest) -> Outcome {
    let ends = broker.ends(&address("many"), "p")?;
    let query = |i: u64| QueueQuery::new(&format!("contract-many-{i}"), broker.framework());
    for i in 1..20 {
        broker.put_tasks(&query(i).queue, i).await?;
    }
    let order: Vec<u64> = (0..20).rev().chain([7, 0]).collect();
    let queries: Vec<QueueQuery> = order.iter().map(|i| query(*i)).collect();
    let seen: Vec<Option<u64>> = ends.stats.sample(&queries).await?.iter().map(|s| s.ready).collect();
    let wanted: Vec<Option<u64>> = order.iter().copied().map(Some).collect();
    check(seen == wanted, || format!("{seen:?}"))
}
