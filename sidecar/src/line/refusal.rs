//! Control messages that were not signed by whom they should be. In: such messages. Out: a word in the log and in the reports, for a while; and whether this pod
//! leaves shared messages to others meanwhile. Left to others: verifying (`broker::signing`), dropping or giving back (`control`), the condition (`controller`).

use crate::gaps::Gaps;
use qscaler_broker::Delivery;
use qscaler_broker::signing::Seal;
use qscaler_core::message::GapReason;
use std::time::Duration;
use tokio::time::Instant;

/// A refusal is said for so long after the last one: long enough to be read, and an end to what was mended.
const SAID: Duration = Duration::from_secs(600);
/// After a shared message by a key that this pod was not given, it leaves those to others for so long: it would get the same one again at once.
const ASIDE: Duration = Duration::from_secs(20);

/// What was refused, and when.
#[derive(Debug)]
pub(super) struct Refusals {
    gaps: Gaps,
    last: Option<Instant>,
    aside_until: Option<Instant>,
}

impl Refusals {
    /// None yet.
    pub(super) fn new(gaps: Gaps) -> Self {
        Self { gaps, last: None, aside_until: None }
    }

    /// This message was refused.
    pub(super) fn refused(&mut self, delivery: &Delivery) {
        let (now, message) = (Instant::now(), &delivery.message);
        tracing::warn!(kind = ?message.kind, epoch = message.epoch.0, seal = ?delivery.seal, "a control message is refused");
        self.last = Some(now);
        if delivery.seal == Seal::UnknownKey && message.target.is_none() {
            self.aside_until = Some(now + ASIDE);
        }
        self.gaps.set(GapReason::MessagesRefused, words(delivery.seal));
    }

    /// Says no more what is long over.
    pub(super) fn look(&mut self) {
        if self.last.take_if(|at| at.elapsed() >= SAID).is_some() {
            self.gaps.clear(GapReason::MessagesRefused);
        }
    }

    /// Whether shared messages are left to others now.
    pub(super) fn stands_aside(&self) -> bool {
        self.aside_until.is_some_and(|until| Instant::now() < until)
    }
}

fn words(seal: Seal) -> &'static str {
    match seal {
        Seal::UnknownKey => {
            "control messages are signed by a key that this pod was not given: it goes on working and is held, but is not asked to leave while it is idle; a new pod gets the key that holds now"
        }
        Seal::Forged => {
            "a control message was changed on its way, or signed by somebody who has not got the controller's key: see who may write to the workload's control queue"
        }
        Seal::Missing | Seal::Unchecked | Seal::Good => {
            "a control message came without a signature: from somebody else who may write to the workload's control queue, from an older sidecar that gave it back, or from a controller that cannot read the Secret qscaler-control-key (its log says so)"
        }
    }
}
