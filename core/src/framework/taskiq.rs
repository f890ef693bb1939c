//! taskiq with a list in Redis (`taskiq_redis.ListQueueBroker`).

use super::{Framework, list};

/// See the module.
pub(super) static TASKIQ: Framework =
    Framework { name: "taskiq", waiting: &[list("{queue}")], note: "All messages taken are run before the worker leaves.", ..Framework::PLAIN };
