//! The QoS class of a pod is fixed when it is made: a resize that would change it is refused by the API. In: the class, the container's
//! resources after the resize. Out: allowed, or the reason why not. Left to others: what to do instead (`resize`).

use super::{ContainerResources, QosClass, ResizeFacts};

/// Requests and limits are set and equal, for both resources.
fn all_equal(r: &ContainerResources) -> bool {
    r.cpu_limit_m.is_some() && r.cpu_limit_m == r.cpu_request_m && r.memory_limit.is_some() && r.memory_limit == r.memory_request
}

/// Whether the pod keeps its class when the container has `after`; if not, why.
pub(super) fn keeps_class(pod: &ResizeFacts, after: &ContainerResources) -> Result<(), &'static str> {
    match pod.qos {
        QosClass::BestEffort => Err("a BestEffort pod cannot gain resources"),
        QosClass::Guaranteed if !all_equal(after) => Err("a Guaranteed pod must keep requests equal to limits"),
        QosClass::Burstable if pod.others_guaranteed && all_equal(after) => Err("a Burstable pod may not become Guaranteed"),
        QosClass::Guaranteed | QosClass::Burstable => Ok(()),
    }
}
