//! What may be broken on purpose: each mistake that this protocol invites, made around the machines, so that the machines stay as they are.
//! In: a name. Out: what the world does differently, and which invariant must notice. An invariant that notices nothing proves nothing.

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $name:ident => $caught:literal),+ $(,)?) => {
        /// One mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutation {
            $($(#[doc = $doc])+ $name),+
        }

        impl Mutation {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The invariant that must notice.
            #[must_use]
            pub fn caught_by(self) -> &'static str {
                match self { $(Self::$name => $caught),+ }
            }

            /// What is done wrong, in words.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

mutations! {
    /// the token is acked before its claim is published
    AckBeforeClaim => "E3-claim",
    /// a second hold call sends the signal again
    SignalAgain => "I1",
    /// the hold is answered while the worker still runs
    AnswerAtOnce => "I6",
    /// the worker is killed on a hold call
    KillAtOnce => "I1",
    /// the last of two signals does not wait for idleness
    LastSignalAtOnce => "I1",
    /// a resume opens the gate of a pod that ends
    OpenWhenHeld => "I3",
    /// a resume of an older wave is obeyed
    StaleResume => "I4",
    /// the gate is said to be closed when it was only asked to close
    GateSaidClosed => "I2",
    /// the count is lowered to the wish without parking
    LowerUnparked => "I8",
    /// the count is lowered by a difference, without a resource version
    BlindScale => "I8",
    /// a write of a controller that is no more lands without a resource version
    OldLeaderWrites => "I10",
    /// nobody looks whether a rollout runs
    RolloutIgnored => "I9",
    /// nobody looks whether every pod has a sidecar
    BarePodIgnored => "I9",
    /// tokens go out before the intent is saved
    TokensFirst => "E4-intent",
    /// a report is enough, the pod's own readiness is not looked at
    EchoIgnored => "E4-echo",
    /// a cut is not counted
    SilentCut => "I16",
    /// the worker's exit does not answer the hold
    ExitUnnoticed => "I14",
    /// a parked pod has no lease
    NoLease => "I11",
    /// the mark stays on a pod that works again
    MarkStays => "I11",
}
