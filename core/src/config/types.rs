//! What a workload's annotations say, once they are checked. In: nothing. Out: the types. Left to others: reading them (`parse`).

use crate::framework::{BusySource, CUSTOM, Framework, KeyNames, Signal, framework};
use crate::units::{Bytes, Millicores};
use serde::{Deserialize, Serialize};

/// Most queues that one workload may name: each costs a round trip's share every second.
pub const QUEUES_MAX: usize = 32;
/// Most replicas that may be asked for: far above any real fleet, far below what would overflow anything.
pub const REPLICAS_MAX: u32 = 100_000;
/// Longest name of a Secret, and longest key in one, in bytes.
const NAME_MAX: usize = 253;
/// Default of `max-wait`.
pub const MAX_WAIT_DEFAULT_MS: u64 = 60_000;
/// Default of `max-task-duration`.
pub const MAX_TASK_DURATION_DEFAULT_MS: u64 = 3_600_000;

/// Where a broker's URL is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BrokerRef {
    /// The environment variable of the worker's container.
    Env(String),
    /// A key of a Secret in the workload's namespace.
    Secret {
        /// The Secret.
        name: String,
        /// Its key.
        key: String,
    },
}

impl BrokerRef {
    /// Reads `env:NAME` or `secret:NAME/KEY`; None: it is neither, or a key that an API server takes in no Secret, and in no pod that refers to it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("env", name) if !name.is_empty() && !name.contains(['=', ' ', '/']) => Some(Self::Env(name.to_owned())),
            ("secret", path) => {
                let (name, key) = path.split_once('/')?;
                (is_secret_name(name) && is_secret_key(key)).then(|| Self::Secret { name: name.to_owned(), key: key.to_owned() })
            }
            _ => None,
        }
    }
}

/// Whether an API server takes a Secret of this name (a DNS subdomain, RFC 1123).
pub(crate) fn is_secret_name(name: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let all = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
    all && ends(bytes.first()) && ends(bytes.last()) && name.len() <= NAME_MAX
}

/// Whether an API server takes such a key of a Secret, and a pod that refers to it (`IsConfigMapKey`, k8s.io/apimachinery/pkg/util/validation).
fn is_secret_key(key: &str) -> bool {
    let all = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    all && !key.is_empty() && key != "." && !key.starts_with("..") && key.len() <= NAME_MAX
}

/// Where the address of RabbitMQ's management API is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ManagementRef {
    /// In the annotation itself; has no user.
    Url(String),
    /// Where a broker's URL could be.
    At(BrokerRef),
}

/// Whether sizes are only recommended, set on new pods, or changed on running ones too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vertical {
    /// Recommend only.
    #[default]
    Off,
    /// Set on new pods.
    Initial,
    /// Set on new pods and changed on running ones.
    InPlace,
}

/// Who owns the replica count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// We do.
    #[default]
    Managed,
    /// Another scaler or a person does; we keep tasks whole.
    Protect,
}

/// What is paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Paused {
    /// Nothing.
    #[default]
    No,
    /// Everything.
    All,
    /// Lowering replicas.
    ScaleDown,
    /// Raising replicas.
    ScaleUp,
}

impl Paused {
    /// No pod is added, to reach the minimum neither.
    #[must_use]
    pub fn stops_raising(self) -> bool {
        matches!(self, Self::All | Self::ScaleUp)
    }

    /// No pod is let go.
    #[must_use]
    pub fn stops_lowering(self) -> bool {
        matches!(self, Self::All | Self::ScaleDown)
    }
}

/// What the scaling law weighs more where it has the choice: messages that wait, or pods that idle. The field's words: AWS Auto Scaling's scaling strategies
/// (optimize for availability, balance, optimize for cost), GKE's autoscaling profiles (balanced, optimize-utilization).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizeFor {
    /// Short waits: more pods stand ready, and longer.
    Latency,
    /// Both: one percent of late messages weighs as much as ten percent of pods.
    #[default]
    Balanced,
    /// Few pods: what is late now and then is not worth pods that idle.
    Cost,
}

impl OptimizeFor {
    /// All of them, from short waits to few pods.
    pub const ALL: [Self; 3] = [Self::Latency, Self::Balanced, Self::Cost];

    /// As it is written in the annotation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Balanced => "balanced",
            Self::Cost => "cost",
        }
    }
}

/// What happens to a task that outlives `max-task-duration` in a hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadlinePolicy {
    /// It may go on to the end of the pod's grace.
    #[default]
    Wait,
    /// It is cut, and counted.
    Cut,
}

/// A checked configuration of one workload. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerConfig {
    /// At least one queue, no doubles.
    pub queues: Vec<String>,
    /// Where tasks come from.
    pub broker: BrokerRef,
    /// Where control messages go; None: the same broker.
    pub control_broker: Option<BrokerRef>,
    /// Name of the Secret with certificates for both; None: those of the machine.
    pub broker_tls: Option<String>,
    /// Where the management API of the broker is; None: where its URL says, or beside it.
    pub management: Option<ManagementRef>,
    /// Name of the framework; always one of [`crate::framework::FRAMEWORKS`].
    pub worker: String,
    /// What the user has chosen of the names of its keys in Redis.
    #[serde(default, skip_serializing_if = "KeyNames::is_default")]
    pub key_names: KeyNames,
    /// Name of the working container; None: the first.
    pub container: Option<String>,
    /// `min_replicas <= max_replicas`.
    pub min_replicas: u32,
    /// At least 1.
    pub max_replicas: u32,
    /// The goal.
    pub max_wait_ms: u64,
    /// Waits or cost.
    #[serde(default)]
    pub optimize_for: OptimizeFor,
    /// Fixed length target.
    pub messages_per_worker: Option<u32>,
    /// Tasks that a pod runs at once.
    pub concurrency: u32,
    /// How long a task may run.
    pub max_task_duration_ms: u64,
    /// Afterwards.
    pub drain_deadline_policy: DeadlinePolicy,
    /// Empty: leave the signal to the kubelet.
    pub signals: Vec<Signal>,
    /// Where busy is read.
    pub busy: BusySource,
    /// Sizes.
    pub vertical: Vertical,
    /// Bounds of the memory recommendation.
    pub min_memory: Option<Bytes>,
    /// See `min_memory`.
    pub max_memory: Option<Bytes>,
    /// Bounds of the CPU recommendation.
    pub min_cpu: Option<Millicores>,
    /// See `min_cpu`.
    pub max_cpu: Option<Millicores>,
    /// Who owns the replica count.
    pub scaling: Scaling,
    /// What is paused.
    pub paused: Paused,
    /// Decide and explain only.
    pub dry_run: bool,
    /// Replace the user's own preStop hook of the worker's container.
    pub replace_pre_stop: bool,
    /// Pods that are not as a new one would be stay, also while they are idle.
    #[serde(default)]
    pub keep_pods: bool,
    /// Share the pod's process namespace, so that the sidecar may signal and measure; None: not said, so it is shared unless the pod shows that this breaks it.
    pub share_processes: Option<bool>,
}

impl WorkerConfig {
    /// What is known of its framework.
    #[must_use]
    pub fn framework(&self) -> &'static Framework {
        framework(&self.worker).unwrap_or(&CUSTOM)
    }

    /// Whether pods may be added.
    #[must_use]
    pub fn raises(&self) -> bool {
        !self.paused.stops_raising()
    }

    /// Whether workers say what they do.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.busy != BusySource::Unknown
    }

    /// Whether the replica count is ours to write.
    #[must_use]
    pub fn owns_replicas(&self) -> bool {
        self.scaling == Scaling::Managed
    }

    /// Whether pods get the recommended sizes at all.
    #[must_use]
    pub fn sizes_pods(&self) -> bool {
        self.vertical != Vertical::Off
    }

    /// Whether running pods do.
    #[must_use]
    pub fn sizes_running_pods(&self) -> bool {
        self.vertical == Vertical::InPlace
    }

    /// Whether what is decided is only said.
    #[must_use]
    pub fn only_explains(&self) -> bool {
        self.dry_run
    }

    /// The user wants nothing changed: all is paused, or decided and explained only.
    #[must_use]
    pub fn changes_nothing(&self) -> bool {
        self.dry_run || self.paused == Paused::All
    }
}
