//! Which Deployments take from the same queues. In: the queues of each, by the identity of their broker. Out: the pool of each that is not alone. Left to others: what a
//! pool decides (`core::scale::pool`), connecting (`brokers`).

use crate::observe::resolve::SecretUrl;
use qscaler_broker::QueueQuery;
use qscaler_core::scale::pool::Pool;
use qscaler_core::workload::WorkloadId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The pool of some workloads; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct SharedPool(Arc<Mutex<Pool<WorkloadId>>>);

impl SharedPool {
    /// The pool, for this moment.
    pub fn lock(&self) -> MutexGuard<'_, Pool<WorkloadId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All pools of the cluster.
#[derive(Debug, Default)]
pub struct Pools {
    queues: BTreeMap<WorkloadId, Vec<String>>,
    takers: BTreeMap<String, BTreeSet<WorkloadId>>,
    pools: BTreeMap<WorkloadId, SharedPool>,
}

impl Pools {
    /// From now on the workload takes from these queues.
    pub fn join(&mut self, id: &WorkloadId, queues: Vec<String>) {
        if self.queues.get(id) == Some(&queues) {
            return;
        }
        self.leave(id);
        for queue in &queues {
            self.takers.entry(queue.clone()).or_default().insert(id.clone());
        }
        self.queues.insert(id.clone(), queues);
        self.gather(id);
    }

    /// It takes from none any more.
    pub fn leave(&mut self, id: &WorkloadId) {
        let Some(queues) = self.queues.remove(id) else { return };
        let mut left = BTreeSet::new();
        for queue in &queues {
            if let Some(takers) = self.takers.get_mut(queue) {
                takers.remove(id);
                left.extend(takers.iter().cloned());
                if takers.is_empty() {
                    self.takers.remove(queue);
                }
            }
        }
        self.pools.remove(id);
        // They may have been together by it alone.
        for other in left {
            self.gather(&other);
        }
    }

    /// Nobody takes from any.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The pool that the workload is in; `None`: it is alone with its queues.
    #[must_use]
    pub fn of(&self, id: &WorkloadId) -> Option<SharedPool> {
        self.pools.get(id).cloned()
    }

    /// All that are together with `id`, directly or by others, are one pool; it is the one that the first of them was in, so that nothing learned is lost.
    fn gather(&mut self, id: &WorkloadId) {
        let (mut together, mut next) = (BTreeSet::from([id.clone()]), vec![id.clone()]);
        while let Some(one) = next.pop() {
            let others = self.queues.get(&one).into_iter().flatten().filter_map(|queue| self.takers.get(queue)).flatten();
            let new: Vec<WorkloadId> = others.filter(|other| !together.contains(*other)).cloned().collect();
            together.extend(new.iter().cloned());
            next.extend(new);
        }
        if together.len() < 2 {
            self.pools.remove(id);
            return;
        }
        let in_use = |pool: &SharedPool| self.pools.iter().any(|(id, other)| !together.contains(id) && Arc::ptr_eq(&pool.0, &other.0));
        let known = together.iter().filter_map(|id| self.pools.get(id)).find(|pool| !in_use(pool)).cloned();
        let pool = known.unwrap_or_default();
        pool.lock().set_members(together.iter().filter_map(|id| Some((id.clone(), self.queues.get(id)?.clone()))).collect());
        for id in together {
            self.pools.insert(id, pool.clone());
        }
    }
}

/// What tells queues apart: broker, and where the messages wait in it. Equal for two workloads whose credentials differ, and for two frameworks that keep their
/// messages under the same key.
#[must_use]
pub fn identities(id: &WorkloadId, url: &SecretUrl, queries: &[QueueQuery]) -> Vec<String> {
    let Ok(broker) = qscaler_broker_url::parse(url.expose()) else { return Vec::new() };
    let at = broker.identity(&id.namespace);
    let is_redis = matches!(broker, qscaler_broker_url::BrokerUrl::Redis(_));
    let place = |query: &QueueQuery| {
        let key = query.framework.waiting_keys(&query.queue, &query.names).into_iter().next().filter(|_| is_redis);
        key.map_or_else(|| query.queue.clone(), |key| key.name)
    };
    queries.iter().map(|query| format!("{at} {}", place(query))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_core::framework::framework;

    fn id(name: &str) -> WorkloadId {
        WorkloadId { namespace: "shop".into(), name: name.into() }
    }

    fn queues(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn same(pools: &Pools, one: &str, other: &str) -> bool {
        pools.of(&id(one)).zip(pools.of(&id(other))).is_some_and(|(one, other)| Arc::ptr_eq(&one.0, &other.0))
    }

    fn others(pools: &Pools, one: &str) -> Vec<String> {
        pools.of(&id(one)).and_then(|pool| pool.lock().shared(&id(one))).map(|shared| shared.others).unwrap_or_default()
    }

    #[test]
    fn those_who_take_from_one_queue_are_a_pool_and_whoever_is_alone_is_in_none() {
        let mut pools = Pools::default();
        pools.join(&id("a"), queues(&["x"]));
        pools.join(&id("b"), queues(&["y"]));
        assert!(pools.of(&id("a")).is_none() && pools.of(&id("b")).is_none());
        pools.join(&id("c"), queues(&["x", "y"]));
        assert!(same(&pools, "a", "b") && same(&pools, "b", "c"), "by c they are together");
        assert_eq!(others(&pools, "b"), ["shop/a", "shop/c"]);
        pools.leave(&id("c"));
        assert!(["a", "b", "c"].iter().all(|name| pools.of(&id(name)).is_none()));
    }

    #[test]
    fn a_member_that_comes_goes_or_moves_leaves_the_others_in_their_pool() {
        let mut pools = Pools::default();
        ["a", "b"].iter().for_each(|name| pools.join(&id(name), queues(&["x"])));
        let before = pools.of(&id("a")).unwrap();
        pools.join(&id("c"), queues(&["x"]));
        assert!(Arc::ptr_eq(&pools.of(&id("c")).unwrap().0, &before.0));
        pools.join(&id("b"), queues(&["y"]));
        assert!(pools.of(&id("b")).is_none() && same(&pools, "a", "c"));
        assert!(Arc::ptr_eq(&pools.of(&id("a")).unwrap().0, &before.0));
        pools.clear();
        assert!(pools.of(&id("a")).is_none());
    }

    #[test]
    fn a_pool_that_falls_apart_becomes_two() {
        let mut pools = Pools::default();
        for (name, of) in [("a", &["x"][..]), ("b", &["x"]), ("c", &["y"]), ("d", &["y"]), ("e", &["x", "y"])] {
            pools.join(&id(name), queues(of));
        }
        assert!(same(&pools, "a", "d"));
        pools.leave(&id("e"));
        assert!(same(&pools, "a", "b") && same(&pools, "c", "d") && !same(&pools, "a", "c"));
        assert_eq!((others(&pools, "a"), others(&pools, "d")), (vec!["shop/b".to_owned()], vec!["shop/c".to_owned()]));
    }

    #[test]
    fn a_queue_is_known_by_its_broker_and_key_and_not_by_who_logs_in() {
        let of = |namespace: &str, url: &str, worker: &str| {
            let id = WorkloadId { namespace: namespace.into(), name: "n".into() };
            identities(&id, &SecretUrl::from(url.to_owned()), &[QueueQuery::new("orders", framework(worker).unwrap())])
        };
        let celery = of("shop", "redis://r/0", "celery");
        assert_eq!(celery.len(), 1);
        assert_eq!(celery, of("shop", "redis://green:secret@r.shop.svc:6379", "celery"));
        assert_eq!(celery, of("other", "redis://r.shop", "celery"));
        assert_ne!(celery, of("shop", "redis://r/0", "rq"), "another key");
        assert_ne!(celery, of("other", "redis://r/0", "celery"), "another namespace's r");
        assert_eq!(of("shop", "amqp://r", "celery"), of("shop", "amqps://u:p@r", "amqp-consumer"));
    }
}
