//! One moment of the world. In: nothing. Out: plain small values that can be compared, sorted and hashed.

use qscaler_core::message::{Busy, WorkerState};

/// A machine's number.
pub(crate) type Id = u32;

/// How far the first of two signals has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Quiet {
    No,
    /// Sent; one more task may be taken.
    Asked,
    /// Nothing is taken any more.
    Settled,
}

/// The worker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Main {
    pub(crate) task: bool,
    pub(crate) leaving: bool,
    pub(crate) quiet: Quiet,
    /// TERMs had, ours and the kubelet's; at most 2 are told apart.
    pub(crate) terms: u8,
}

/// A pod as the API has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Api {
    pub(crate) ready: bool,
    pub(crate) sidecar_ready: bool,
    pub(crate) deleted: bool,
    pub(crate) marked: bool,
}

/// What the controller last heard of a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Heard {
    pub(crate) state: WorkerState,
    pub(crate) epoch: u8,
    pub(crate) busy: Busy,
}

/// One pod, hashed and sorted by [`Pod::packed`]. `bool`s in their dozens are the point here: each is one thing that is or is not under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Pod {
    pub(crate) injected: bool,
    /// The sidecar's machine; None: not running.
    pub(crate) sidecar: Option<Id>,
    pub(crate) main: Option<Main>,
    /// Number of the newest worker process; 0: none was started.
    pub(crate) incarnation: u8,
    /// The process that the sidecar believes to run; 0: none.
    pub(crate) known: u8,
    pub(crate) liveness_kill: bool,
    /// The kubelet is about to call the hold, or the sidecar's own hook.
    pub(crate) hold_call: bool,
    pub(crate) own_call: bool,
    /// The hold was called and not answered.
    pub(crate) hold_waits: bool,
    pub(crate) gate_closed: bool,
    pub(crate) gate_asked: bool,
    pub(crate) says_ready: bool,
    pub(crate) listening: bool,
    /// A token taken and not acked: its wave.
    pub(crate) hand: Option<u8>,
    /// A resume on its way: its wave.
    pub(crate) resume: Option<u8>,
    /// A cut from now on is counted, or outside our power.
    pub(crate) excused: bool,
    /// No pod any more; kept while an old view may show it.
    pub(crate) gone: bool,
    pub(crate) api: Api,
    /// As the controller sees it; None: it does not.
    pub(crate) view: Option<Api>,
    /// The view is the newest version.
    pub(crate) view_new: bool,
    pub(crate) heard: Option<Heard>,
    /// A decrement has counted on this pod and has not settled.
    pub(crate) spent: bool,
}

impl Api {
    fn packed(self) -> u128 {
        u128::from(self.ready) | u128::from(self.sidecar_ready) << 1 | u128::from(self.deleted) << 2 | u128::from(self.marked) << 3
    }
}

impl Heard {
    fn packed(self) -> u128 {
        self.state as u128 | (self.busy as u128) << 4 | u128::from(self.epoch) << 8
    }
}

impl Main {
    fn packed(self) -> u128 {
        u128::from(self.task) | u128::from(self.leaving) << 1 | (self.quiet as u128) << 2 | u128::from(self.terms) << 4
    }
}

impl std::hash::Hash for Pod {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        hasher.write_u128(self.packed());
    }
}

impl Pod {
    /// Every field in its own bits: equal pods and no others have equal numbers.
    fn packed(&self) -> u128 {
        let flags = [
            self.injected,
            self.liveness_kill,
            self.hold_call,
            self.own_call,
            self.hold_waits,
            self.gate_closed,
            self.gate_asked,
            self.says_ready,
            self.listening,
            self.excused,
            self.gone,
            self.view_new,
            self.spent,
            self.sidecar.is_some(),
            self.main.is_some(),
            self.hand.is_some(),
            self.resume.is_some(),
            self.view.is_some(),
            self.heard.is_some(),
        ];
        let mut packed = 0;
        let mut put = |value: u128, bits: u32| packed = packed << bits | value;
        flags.iter().for_each(|flag| put(u128::from(*flag), 1));
        put(u128::from(self.sidecar.unwrap_or(0)), 24);
        put(self.main.map_or(0, Main::packed), 6);
        put(u128::from(self.incarnation), 4);
        put(u128::from(self.known), 4);
        put(u128::from(self.hand.unwrap_or(0)), 8);
        put(u128::from(self.resume.unwrap_or(0)), 8);
        put(self.api.packed(), 4);
        put(self.view.map_or(0, Api::packed), 4);
        put(self.heard.map_or(0, Heard::packed), 16);
        packed
    }

    /// The process that runs; 0: none.
    pub(crate) fn running(&self) -> u8 {
        if self.main.is_some() { self.incarnation } else { 0 }
    }

    pub(crate) fn is_active(&self) -> bool {
        !self.gone && !self.api.deleted
    }
}

/// The Deployment's scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scale {
    pub(crate) spec: u8,
    pub(crate) status: u8,
    pub(crate) ready: u8,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) pods: Vec<Pod>,
    pub(crate) scale: Scale,
    /// The spec that the ReplicaSet works towards.
    pub(crate) followed: u8,
    pub(crate) view: Scale,
    /// The view's resource version is the newest.
    pub(crate) view_new: bool,
    pub(crate) rollout: bool,
    /// Waves of the tokens in the queue, sorted.
    pub(crate) queue: Vec<u8>,
    pub(crate) fleet: Id,
    /// The saved intent: wave and count.
    pub(crate) saved: (u8, u8),
    /// A scale on its way from a controller that is no more: from, to, and whether its version is still the newest.
    pub(crate) late: Option<(u8, u8, bool)>,
    pub(crate) wish: u8,
    pub(crate) wishes_left: u8,
    pub(crate) misfortunes_left: u8,
    /// Bits of [`crate::property::Broken`].
    pub(crate) broken: u16,
}

impl State {
    pub(crate) fn active(&self) -> u8 {
        u8::try_from(self.pods.iter().filter(|pod| pod.is_active()).count()).unwrap_or(u8::MAX)
    }

    /// Names mean nothing: sorts the pods.
    pub(crate) fn canonical(mut self) -> Self {
        self.pods.sort_by_cached_key(Pod::packed);
        self.queue.sort_unstable();
        self
    }
}
