//! Flow 2, the drain protocol "park, mark, echo, lower", as two machines: facts and events in, effects out, time given. Drivers decide nothing.
//!
//! `worker` is the sidecar's half: one per pod. It parks a free worker on a `SIGKILL_QUEUE` token, and holds the end of **any** pod, whoever
//! ended it, until the worker has finished its task and left. That hold is the safety; everything else is efficiency.
//! `plan` says which processes of the worker's container hear that hold's signals.
//! `fleet` is the controller's half: one per workload. It asks for parked pods by tokens, marks them as the ReplicaSet's first choice, waits for
//! the ReplicaSet's echo and lowers the count by no more than those.
//!
//! `contest` notices that somebody else writes the count against us.
//!
//! Left to others: performing effects (`sidecar`, `controller`), carrying messages (`broker`), how many pods are wanted (`scale`).

pub mod contest;
pub mod fleet;
pub mod plan;
pub mod worker;
