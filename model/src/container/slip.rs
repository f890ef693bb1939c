//! Mistakes that a hold of several processes invites, made around the plan and the machine. In: a name. Out: the container in which it does harm, and the
//! rule that must notice. Left to others: making it (`container`).

use super::shape::Shape;

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// The script above the worker is told as well.
    TopToo,
    /// The worker's pool is told as well.
    PoolToo,
    /// A process without a handler is told.
    DeafToo,
    /// Who was told is forgotten.
    ToldAgain,
    /// What starts the worker again goes on in the hold.
    NeverSuspended,
    /// What was suspended never goes on, and nobody says that no worker is left.
    NeverResumed,
    /// The supervisor is told with its worker.
    SupervisorFirst,
    /// The hold is answered when the first of two workers has left.
    FirstLeaves,
    /// A worker that may not be signalled is left to the kubelet, wherever its TERM goes.
    RefusedAnswered,
    /// The hook of another container counts as the worker's.
    HelperHolds,
    /// An order to release is believed whomever it names.
    ReleaseUnchecked,
    /// The freeze gate says that it is closed without a proof.
    GateUnproved,
}

impl Slip {
    /// Every one, with the container in which it does harm and the rule that must notice.
    pub const ALL: &[(Self, Shape, &str)] = &[
        (Self::TopToo, Shape::Script, "H-cut"),
        (Self::PoolToo, Shape::Plain, "H-cut"),
        (Self::DeafToo, Shape::Deaf, "H-cut"),
        (Self::ToldAgain, Shape::Plain, "H-cut"),
        (Self::NeverSuspended, Shape::Loop, "H-more"),
        (Self::NeverResumed, Shape::Script, "H-ends"),
        (Self::SupervisorFirst, Shape::Supervised, "H-cut"),
        (Self::FirstLeaves, Shape::Two, "H-cut"),
        (Self::RefusedAnswered, Shape::RefusedScript, "H-cut"),
        (Self::HelperHolds, Shape::Script, "H-helper"),
        (Self::ReleaseUnchecked, Shape::Script, "H-cut"),
        (Self::GateUnproved, Shape::Frozen, "H-cut"),
    ];
}
