//! The invariants. In: what a step did. Out: a bit in the state, so that the path to it is kept. Names are those of ARCHITECTURE.md's list.

use crate::state::State;
use crate::world::World;
use stateright::Property;

/// One bit per invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Broken {
    Cut = 1,
    Quiesced = 1 << 1,
    HeldOpens = 1 << 2,
    WrongOpening = 1 << 3,
    EarlyAnswer = 1 << 4,
    Decrement = 1 << 5,
    BlockedDecrement = 1 << 6,
    Unsettled = 1 << 7,
    Churn = 1 << 8,
    Stuck = 1 << 9,
    Uncounted = 1 << 10,
    Claim = 1 << 11,
    Intent = 1 << 12,
    Echo = 1 << 13,
    OldWriter = 1 << 14,
}

/// Each invariant's name and what it says. I5 and I7 are the world's making: a closed gate lets no process take a task, and every victim and
/// every crash is a choice at every step. I13 is I11 with lost and doubled tokens. I15 is the kubelet's own promise; a cluster test
/// shows it (`a_liveness_kill_does_not_wait_for_the_hold`).
pub const INVARIANTS: &[(&str, &str)] = &[
    ("I1", "no task is cut, except by a counted cut or by force from outside"),
    ("I2", "a parked worker behind a gate has no task, and gets none"),
    ("I3", "the gate of a pod that ends never opens"),
    ("I4", "the gate opens only by a start, a resume not older than what was seen, a lease or give-back that ran out, or a new worker after a hold"),
    ("I6", "a hold is answered only once the worker has left or is let go"),
    ("I8", "the count falls by no more than the parked and starting pods of the version written, each counted once, not below wish and minimum"),
    ("I9", "the count never falls during a rollout or beside a pod without sidecar"),
    ("I10", "a write by an old leader fails once the scale was written since"),
    ("I11", "from anywhere, in a calm world, the fleet gets the wished size; no pod stays parked or marked, no wave open"),
    ("I12", "with fresh caches a wave creates no pod"),
    ("I14", "from anywhere, in a calm world, every pod that ends is gone"),
    ("I16", "every cut is counted"),
    ("E3-claim", "a token is acked only after its claim is published, or when it is dropped"),
    ("E4-intent", "no token goes out before its wave is saved"),
    ("E4-echo", "the count falls only by parked pods that the API shows as not ready"),
];

fn holds(state: &State, bit: Broken) -> bool {
    state.broken & bit as u16 == 0
}

pub(crate) fn properties() -> Vec<Property<World>> {
    vec![
        Property::always("I1", |_, s| holds(s, Broken::Cut)),
        Property::always("I2", |_, s| holds(s, Broken::Quiesced)),
        Property::always("I3", |_, s| holds(s, Broken::HeldOpens)),
        Property::always("I4", |_, s| holds(s, Broken::WrongOpening)),
        Property::always("I6", |_, s| holds(s, Broken::EarlyAnswer)),
        Property::always("I8", |_, s| holds(s, Broken::Decrement)),
        Property::always("I9", |_, s| holds(s, Broken::BlockedDecrement)),
        Property::always("I10", |_, s| holds(s, Broken::OldWriter)),
        Property::always("I11", |_, s| holds(s, Broken::Unsettled)),
        Property::always("I12", |_, s| holds(s, Broken::Churn)),
        Property::always("I14", |_, s| holds(s, Broken::Stuck)),
        Property::always("I16", |_, s| holds(s, Broken::Uncounted)),
        Property::always("E3-claim", |_, s| holds(s, Broken::Claim)),
        Property::always("E4-intent", |_, s| holds(s, Broken::Intent)),
        Property::always("E4-echo", |_, s| holds(s, Broken::Echo)),
    ]
}
