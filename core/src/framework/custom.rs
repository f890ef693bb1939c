//! Any other worker, with a list in Redis or a queue in RabbitMQ.

use super::{Framework, Promise, list};

/// See the module.
pub static CUSTOM: Framework = Framework {
    name: "custom",
    promise: Promise::NeedsHandler,
    waiting: &[list("{queue}")],
    note: "The worker must finish its task and leave on the signal; say how busy is seen with the annotation busy.",
    ..Framework::PLAIN
};
