//! What one exploration looks at. In: nothing. Out: the settings that are explored, small enough to be explored whole.

use crate::mutation::Mutation;

/// How the worker behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerKind {
    /// Finishes its task on the first signal and leaves; drops it on the second.
    OneSignal,
    /// Takes no more tasks some time after the first signal; drops its task on any other.
    QuietThenTerm,
}

/// Two ways to look at the same pods, each small enough to be explored whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    /// Every delay inside the pod is free, and anybody does anything to it: tokens and resumes of any wave at any moment, deletion at any moment.
    /// What holds here holds for every controller and every victim.
    Anybody,
    /// The fleet machine, its old views and the ReplicaSet. Inside a pod what needs no decision is done at once; readiness, reports, tasks,
    /// timers, messages and starts keep their free delays.
    Fleet,
}

/// What may go wrong. Each time costs one of [`Setting::misfortunes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Misfortune {
    SidecarCrash,
    WorkerCrash,
    LivenessKill,
    Evict,
    HooksAgain,
    GraceSpent,
    NodeDies,
    TokenDoubled,
    ControllerCrash,
    Rollout,
    BarePod,
    Person,
}

impl Misfortune {
    /// Every one.
    pub const ALL: &[Self] = &[
        Self::SidecarCrash,
        Self::WorkerCrash,
        Self::LivenessKill,
        Self::Evict,
        Self::HooksAgain,
        Self::GraceSpent,
        Self::NodeDies,
        Self::TokenDoubled,
        Self::ControllerCrash,
        Self::Rollout,
        Self::BarePod,
        Self::Person,
    ];
}

/// One exploration.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Named in the output.
    pub name: &'static str,
    /// Pods at the start.
    pub replicas: u8,
    /// Pods that may exist at once, terminating ones included.
    pub slots: u8,
    /// Wishes, in any order, each at most once per [`Self::wishes`].
    pub wanted: &'static [u8],
    /// How often the wish changes.
    pub wishes: u8,
    /// Never fewer replicas.
    pub min: u8,
    /// Of the rollout strategy.
    pub max_unavailable: u8,
    /// Workers take tasks, and finish them, whenever they like; else none.
    pub tasks: bool,
    /// The worker can be kept from taking tasks.
    pub gate: bool,
    /// How it behaves.
    pub worker: WorkerKind,
    /// Evidence tells busy from idle.
    pub evidence: bool,
    /// A task that is too long is cut.
    pub cut: bool,
    /// The sidecar may not signal the worker.
    pub eperm: bool,
    /// What may go wrong.
    pub may: &'static [Misfortune],
    /// How often.
    pub misfortunes: u8,
    /// States with a higher wave number are not followed.
    pub epochs: u8,
    /// One state in this many is run to its end in a calm world.
    pub calm_every: u64,
    /// Who acts on the pods.
    pub around: Around,
    /// What is broken on purpose.
    pub mutation: Option<Mutation>,
}

impl Setting {
    /// Two pods, a gate, one misfortune of any kind: the base of the others.
    #[must_use]
    pub const fn base() -> Self {
        Self {
            name: "two pods with gates",
            replicas: 2,
            slots: 3,
            wanted: &[1],
            wishes: 1,
            min: 0,
            max_unavailable: 1,
            tasks: true,
            gate: true,
            worker: WorkerKind::OneSignal,
            evidence: true,
            cut: false,
            eperm: false,
            may: Misfortune::ALL,
            misfortunes: 1,
            epochs: 3,
            calm_every: 512,
            around: Around::Fleet,
            mutation: None,
        }
    }

    /// One pod, to which anybody does anything.
    #[must_use]
    pub const fn one() -> Self {
        Self {
            name: "one pod",
            replicas: 1,
            slots: 1,
            wanted: &[],
            wishes: 0,
            may: &[Misfortune::SidecarCrash, Misfortune::WorkerCrash, Misfortune::LivenessKill, Misfortune::HooksAgain, Misfortune::GraceSpent],
            epochs: 2,
            calm_every: 64,
            around: Around::Anybody,
            ..Self::base()
        }
    }

    /// Explored whole in seconds.
    #[must_use]
    pub fn quick() -> Vec<Self> {
        let one = Self { epochs: 1, ..Self::one() };
        let two = Self { misfortunes: 0, tasks: false, ..Self::base() };
        vec![
            Self { name: "one pod without a gate", gate: false, ..one.clone() },
            Self { name: "one pod, no gate, nothing tells busy from idle", gate: false, evidence: false, ..one },
            Self { name: "two pods, all goes well", ..two.clone() },
            Self { name: "two pods, a rollout", misfortunes: 1, epochs: 2, may: &[Misfortune::Rollout], ..two.clone() },
            Self { name: "two pods, a controller crash", misfortunes: 1, epochs: 2, may: &[Misfortune::ControllerCrash], ..two },
        ]
    }

    /// Explored whole in about a minute of one core.
    #[must_use]
    pub fn full() -> Vec<Self> {
        use Misfortune as M;
        let one = Self::one();
        let twice = Self { misfortunes: 2, ..Self::one() };
        let two = Self { tasks: false, ..Self::base() };
        let calm = Self { misfortunes: 0, ..two.clone() };
        vec![
            Self { name: "one pod with a gate", ..one.clone() },
            Self { name: "one pod without a gate", gate: false, ..one.clone() },
            Self { name: "one pod, two signals", worker: WorkerKind::QuietThenTerm, ..one.clone() },
            Self { name: "one pod, no gate, nothing tells busy from idle", gate: false, evidence: false, ..one.clone() },
            Self { name: "one pod that may not be signalled", eperm: true, ..one.clone() },
            Self { name: "one pod, long tasks are cut", cut: true, ..one },
            Self { name: "one pod, sidecar crash and liveness kill", may: &[M::SidecarCrash, M::LivenessKill], ..twice.clone() },
            Self { name: "one pod, crash, hooks called again, grace spent", may: &[M::SidecarCrash, M::HooksAgain, M::GraceSpent], ..twice },
            Self { name: "two pods, all goes well", ..calm.clone() },
            Self { name: "two pods with tasks", epochs: 2, tasks: true, ..calm.clone() },
            Self { name: "two pods with tasks, without gates", epochs: 2, tasks: true, gate: false, ..calm.clone() },
            Self { name: "two pods, the wish falls and rises", wanted: &[1, 2], wishes: 2, ..calm.clone() },
            Self { name: "two pods to none in one wave", epochs: 2, wanted: &[0], max_unavailable: 2, ..calm.clone() },
            Self { name: "two pods, a controller crash", may: &[M::ControllerCrash], ..two.clone() },
            Self { name: "two pods, a sidecar crash", may: &[M::SidecarCrash], ..two.clone() },
            Self { name: "two pods, a worker crash or a liveness kill", may: &[M::WorkerCrash, M::LivenessKill], ..two.clone() },
            Self { name: "two pods, an eviction", epochs: 2, may: &[M::Evict], ..two.clone() },
            Self { name: "two pods, a node dies", epochs: 2, may: &[M::NodeDies], ..two.clone() },
            Self { name: "two pods, a rollout", may: &[M::Rollout], ..two.clone() },
            Self { name: "one pod, a bare one comes", replicas: 1, slots: 2, wanted: &[2, 1], wishes: 2, may: &[M::BarePod], ..two.clone() },
            Self { name: "two pods, a person changes the count", epochs: 2, slots: 2, may: &[M::Person], ..two.clone() },
            Self { name: "two pods, a token doubled", epochs: 2, may: &[M::TokenDoubled], ..two },
            Self { name: "three pods, all goes well", replicas: 3, slots: 4, ..calm },
        ]
    }

    /// Too large to be explored whole: walked through at random.
    #[must_use]
    pub fn large() -> Vec<Self> {
        let large = Self {
            replicas: 6,
            slots: 9,
            wanted: &[0, 2, 4, 7],
            wishes: 4,
            max_unavailable: 2,
            misfortunes: 5,
            epochs: 40,
            calm_every: 16,
            ..Self::base()
        };
        vec![
            Self { name: "six pods with gates", ..large.clone() },
            Self { name: "six pods without gates", gate: false, ..large.clone() },
            Self { name: "six pods, two signals", worker: WorkerKind::QuietThenTerm, ..large },
        ]
    }
}

impl Mutation {
    /// A setting in which it can do harm.
    #[must_use]
    pub fn setting(self) -> Setting {
        let one = Setting { calm_every: 8, mutation: Some(self), ..Setting::one() };
        let two = Setting { misfortunes: 0, tasks: false, mutation: Some(self), ..Setting::base() };
        match self {
            Self::LastSignalAtOnce => Setting { worker: WorkerKind::QuietThenTerm, ..one },
            Self::BlindScale => Setting { wanted: &[1], may: &[Misfortune::Person], misfortunes: 1, ..two },
            Self::OldLeaderWrites => Setting { may: &[Misfortune::ControllerCrash], misfortunes: 1, ..two },
            Self::RolloutIgnored | Self::NoLease => Setting { may: &[Misfortune::Rollout], misfortunes: 1, calm_every: 8, ..two },
            Self::BarePodIgnored => Setting { may: &[Misfortune::BarePod, Misfortune::NodeDies], misfortunes: 2, slots: 4, ..two },
            Self::MarkStays => Setting { wanted: &[1, 2], wishes: 2, calm_every: 8, ..two },
            Self::LowerUnparked | Self::EchoIgnored | Self::TokensFirst => two,
            _ => one,
        }
    }
}
