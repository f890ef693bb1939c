//! A namespace's LimitRanges, as far as they bind one container or a whole pod: a pod that we make break them is refused by the API server. In: the tightest
//! bounds. Out: a request and a limit within them. Left to others: reading LimitRanges (`world`).
//!
//! The order of things: the API server fills a LimitRange's defaults in before the webhook is called and again after it, and checks at the end.

/// Bounds on one resource of one container; the unit is the resource's (bytes, millicores).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Least request.
    pub min: Option<u64>,
    /// Most limit.
    pub max: Option<u64>,
    /// Most that the limit may be, as a multiple of the request.
    pub ratio: Option<f64>,
}

/// Bounds on all resources.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// In bytes.
    pub memory: Bounds,
    /// In millicores.
    pub cpu: Bounds,
    /// Ephemeral storage, in bytes.
    pub storage: Bounds,
    /// Most memory that all limits of a pod may add up to, in bytes.
    pub pod_memory_max: Option<u64>,
    /// Most CPU that all limits of a pod may add up to, in millicores.
    pub pod_cpu_max: Option<u64>,
    /// Most ephemeral storage that all limits of a pod may add up to, in bytes.
    pub pod_storage_max: Option<u64>,
}

impl Limits {
    /// Both at once: the tighter of each bound.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Self {
            memory: self.memory.and(other.memory),
            cpu: self.cpu.and(other.cpu),
            storage: self.storage.and(other.storage),
            pod_memory_max: least(self.pod_memory_max, other.pod_memory_max),
            pod_cpu_max: least(self.pod_cpu_max, other.pod_cpu_max),
            pod_storage_max: least(self.pod_storage_max, other.pod_storage_max),
        }
    }
}

impl Bounds {
    fn and(self, other: Self) -> Self {
        let both = |a: Option<u64>, b: Option<u64>, tighter: fn(u64, u64) -> u64| match (a, b) {
            (Some(a), Some(b)) => Some(tighter(a, b)),
            (a, b) => a.or(b),
        };
        let ratio = match (self.ratio, other.ratio) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { min: both(self.min, other.min, u64::max), max: both(self.max, other.max, u64::min), ratio }
    }

    /// The nearest request and limit that are within the bounds; `max` wins where the bounds contradict each other.
    #[must_use]
    pub fn fit(self, request: u64, limit: Option<u64>) -> (u64, Option<u64>) {
        let mut request = self.min.map_or(request, |min| request.max(min));
        // A maximum or a ratio asks for a limit to be there.
        let wanted = limit.or(self.max).or(self.ratio.map(|_| request));
        let limit = wanted.map(|limit| limit.max(request)).map(|limit| self.max.map_or(limit, |max| limit.min(max)));
        if let (Some(limit), Some(ratio)) = (limit, self.ratio.filter(|r| *r >= 1.0)) {
            // Rounding up keeps limit / request at or below the ratio. Quantities are far below 2^52.
            request = request.max((limit as f64 / ratio).ceil() as u64);
        }
        (limit.map_or(request, |limit| request.min(limit)), limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_nearest_values_within_the_bounds_are_taken() {
        let bounds = |min, max, ratio| Bounds { min, max, ratio };
        for (bounds, request, limit, fits) in [
            (bounds(None, None, None), 5, None, (5, None)),
            (bounds(None, None, None), 16, Some(64), (16, Some(64))),
            (bounds(Some(10), None, None), 5, None, (10, None)),
            (bounds(Some(100), None, None), 16, Some(64), (100, Some(100))),
            (bounds(None, Some(500), None), 5, None, (5, Some(500))),
            (bounds(None, Some(32), None), 16, Some(64), (16, Some(32))),
            (bounds(None, Some(8), None), 16, Some(64), (8, Some(8))),
            (bounds(None, None, Some(2.0)), 16, Some(64), (32, Some(64))),
            (bounds(None, None, Some(1.0)), 5, None, (5, Some(5))),
            (bounds(Some(10), Some(40), Some(3.0)), 5, Some(64), (14, Some(40))),
        ] {
            assert_eq!(bounds.fit(request, limit), fits, "{bounds:?} {request} {limit:?}");
        }
    }

    proptest! {
        #[test]
        fn what_fits_is_within_every_bound(min in 0_u64..1000, extra in 0_u64..1000, ratio in 1.0_f64..9.0, which in 0_u8..8, request in 1_u64..2000, limit in prop::option::of(1_u64..2000)) {
            let bounds = Bounds { min: (which & 1 > 0).then_some(min), max: (which & 2 > 0).then_some(min + extra + 1), ratio: (which & 4 > 0).then_some(ratio) };
            let (request, limit) = bounds.fit(request, limit);
            prop_assert!(bounds.min.is_none_or(|min| request >= min));
            prop_assert!(limit.is_none_or(|limit| limit >= request));
            if let Some(max) = bounds.max { prop_assert!(limit.is_some_and(|limit| limit <= max)); }
            if let Some(ratio) = bounds.ratio { prop_assert!(limit.is_some_and(|limit| limit as f64 <= ratio * request as f64 + 1e-9)); }
            prop_assert_eq!(bounds.fit(request, limit), (request, limit), "a second time changes nothing");
        }
    }
}
