//! Every word that a user, a chart or another tool may see: labels, annotations, environment variables, event reasons, condition types,
//! resource names. In: nothing. Out: constants. Left to others: what the values mean (`config`), who writes them (`controller`, `webhook`).

/// Prefix of every label and annotation of this project.
pub const DOMAIN: &str = "qscaler.dev";
/// Namespace label, value `enabled`: pods of annotated workloads in this namespace are injected and managed.
pub const LABEL_INJECTION: &str = "qscaler.dev/injection";
/// The value of [`LABEL_INJECTION`] that opts in.
pub const INJECTION_ENABLED: &str = "enabled";
/// Label on injected pods: the name of the workload that they belong to.
pub const LABEL_WORKLOAD: &str = "qscaler.dev/workload";

/// Annotations that the user writes. The order is that of the reference page.
pub mod annotation {
    /// One queue, or several, comma-separated.
    pub const QUEUE: &str = "qscaler.dev/queue";
    /// Where the broker's URL is: `env:NAME` or `secret:NAME/KEY`.
    pub const BROKER: &str = "qscaler.dev/broker";
    /// Another URL for control messages, same forms.
    pub const CONTROL_BROKER: &str = "qscaler.dev/control-broker";
    /// `secret:NAME`: a Secret of the workload's namespace with an authority (`ca.crt`) and a client's certificate and key (`tls.crt`, `tls.key`) for the
    /// broker and the control broker; each key may be missing.
    pub const BROKER_TLS: &str = "qscaler.dev/broker-tls";
    /// Where RabbitMQ's management API is: `http(s)://HOST[:PORT][/PREFIX]`, or `env:NAME` or `secret:NAME/KEY` with such an address.
    pub const MANAGEMENT: &str = "qscaler.dev/management";
    /// Preset of the worker framework.
    pub const WORKER: &str = "qscaler.dev/worker";
    /// What the framework itself is told to put before its keys in Redis.
    pub const KEY_PREFIX: &str = "qscaler.dev/key-prefix";
    /// Celery on Redis: kombu's `priority_steps`.
    pub const PRIORITY_STEPS: &str = "qscaler.dev/priority-steps";
    /// Celery on Redis: kombu's `sep`.
    pub const PRIORITY_SEPARATOR: &str = "qscaler.dev/priority-separator";
    /// The container that works; default: the first.
    pub const CONTAINER: &str = "qscaler.dev/container";
    /// Fewest replicas, 0 allowed.
    pub const MIN_REPLICAS: &str = "qscaler.dev/min-replicas";
    /// Most replicas.
    pub const MAX_REPLICAS: &str = "qscaler.dev/max-replicas";
    /// The goal: no message should wait longer than this.
    pub const MAX_WAIT: &str = "qscaler.dev/max-wait";
    /// `latency`, `balanced` (default) or `cost`: what a late message weighs against idle pods.
    pub const OPTIMIZE_FOR: &str = "qscaler.dev/optimize-for";
    /// Fixed length target per worker instead of the learned service time.
    pub const MESSAGES_PER_WORKER: &str = "qscaler.dev/messages-per-worker";
    /// Tasks that one pod runs at once; default 1.
    pub const CONCURRENCY: &str = "qscaler.dev/concurrency";
    /// How long one task may run: becomes the pod's grace.
    pub const MAX_TASK_DURATION: &str = "qscaler.dev/max-task-duration";
    /// `wait` or `cut`, once `max-task-duration` is over in a hold.
    pub const DRAIN_DEADLINE_POLICY: &str = "qscaler.dev/drain-deadline-policy";
    /// Signals that end the worker, or `none`.
    pub const SIGNAL: &str = "qscaler.dev/signal";
    /// Where busy or idle is read.
    pub const BUSY: &str = "qscaler.dev/busy";
    /// `off`, `initial` or `in-place`.
    pub const VERTICAL: &str = "qscaler.dev/vertical";
    /// Lower bound of the memory recommendation.
    pub const MIN_MEMORY: &str = "qscaler.dev/min-memory";
    /// Upper bound of the memory recommendation.
    pub const MAX_MEMORY: &str = "qscaler.dev/max-memory";
    /// Lower bound of the CPU recommendation.
    pub const MIN_CPU: &str = "qscaler.dev/min-cpu";
    /// Upper bound of the CPU recommendation.
    pub const MAX_CPU: &str = "qscaler.dev/max-cpu";
    /// `managed` or `protect`.
    pub const SCALING: &str = "qscaler.dev/scaling";
    /// `false`, `true`, `scale-down` or `scale-up`.
    pub const PAUSED: &str = "qscaler.dev/paused";
    /// Decide and explain, change nothing.
    pub const DRY_RUN: &str = "qscaler.dev/dry-run";
    /// `keep` (default: injection is refused when the worker has a preStop hook of its own) or `replace`.
    pub const PRE_STOP: &str = "qscaler.dev/pre-stop";
    /// `idle` (default) or `never`: whether pods that are not as a new one would be are replaced, each while it is idle.
    pub const REPLACE_PODS: &str = "qscaler.dev/replace-pods";
    /// `true` (default) or `false`: let the sidecar see and signal the worker's processes.
    pub const SHARE_PROCESSES: &str = "qscaler.dev/share-processes";

    /// Every annotation above: what is not here and starts with the domain is a typing mistake.
    pub const ALL: &[&str] = &[
        QUEUE,
        BROKER,
        CONTROL_BROKER,
        BROKER_TLS,
        MANAGEMENT,
        WORKER,
        KEY_PREFIX,
        PRIORITY_STEPS,
        PRIORITY_SEPARATOR,
        CONTAINER,
        MIN_REPLICAS,
        MAX_REPLICAS,
        MAX_WAIT,
        OPTIMIZE_FOR,
        MESSAGES_PER_WORKER,
        CONCURRENCY,
        MAX_TASK_DURATION,
        DRAIN_DEADLINE_POLICY,
        SIGNAL,
        BUSY,
        VERTICAL,
        MIN_MEMORY,
        MAX_MEMORY,
        MIN_CPU,
        MAX_CPU,
        SCALING,
        PAUSED,
        DRY_RUN,
        PRE_STOP,
        REPLACE_PODS,
        SHARE_PROCESSES,
    ];

    /// On a pod: JSON with what we set of others' annotations and what was there before, see `core::mark`.
    pub const MARKS: &str = "qscaler.dev/marks";
    /// Annotations that the system itself writes on pods; never read as the user's.
    pub const SYSTEM: &[&str] = &[INJECTED, MARKS, RELEASE, UNINJECT];
    /// On an injected pod: JSON with the sidecar's version, the worker's container and the configuration's hash.
    pub const INJECTED: &str = "qscaler.dev/injected";
    /// On an object that `kubectl qscaler inject` wrote: a JSON patch that leads back to what it was.
    pub const UNINJECT: &str = "qscaler.dev/uninject";
    /// On a pod, value `now`: end its hold at once.
    pub const RELEASE: &str = "qscaler.dev/release";
    /// Kubernetes' own: which pod a ReplicaSet removes first.
    pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    /// Karpenter's own: do not disrupt this pod's node.
    pub const KARPENTER_DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
    /// The cluster autoscaler's own.
    pub const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
}

/// The injected container.
pub mod sidecar {
    /// Name of the injected init container.
    pub const CONTAINER: &str = "qscaler-sidecar";
    /// Port of hooks and probes, on all addresses: they come from the node. Not 4191, which is the admin port of Linkerd's proxy.
    pub const PORT: u16 = 14191;
    /// Probe path: 200 while not parked and started, else 503.
    pub const PATH_READY: &str = "/ready";
    /// `GET /hold/<token>?container=NAME`: main's preStop; answered when the worker has left.
    pub const PATH_HOLD: &str = "/hold";
    /// `GET /own/<token>`: the sidecar's own preStop: the pod ends; answered at once.
    pub const PATH_OWN: &str = "/own";
    /// Metrics in Prometheus text.
    pub const PATH_METRICS: &str = "/metrics";
    /// JSON of `core::injection::SidecarConfig`.
    pub const ENV_CONFIG: &str = "QSCALER_CONFIG";
    /// The broker's URL, as the worker gets it.
    pub const ENV_BROKER_URL: &str = "QSCALER_BROKER_URL";
    /// The control broker's URL; absent: the broker's.
    pub const ENV_CONTROL_BROKER_URL: &str = "QSCALER_CONTROL_BROKER_URL";
    /// Authorities that the broker's certificate may be signed by, as PEM: `ca.crt` of the Secret that [`super::annotation::BROKER_TLS`] names
    /// (`secretKeyRef` with `optional: true`), else the installation's own ([`super::BROKER_CA_FILE`]) as a value. Absent: the image's alone.
    pub const ENV_BROKER_CA: &str = "QSCALER_BROKER_CA";
    /// The client's certificate as PEM: `tls.crt` of the same Secret (optional).
    pub const ENV_BROKER_CERT: &str = "QSCALER_BROKER_CERT";
    /// Its key as PEM: `tls.key` of the same Secret (optional).
    pub const ENV_BROKER_KEY: &str = "QSCALER_BROKER_KEY";
    /// Where RabbitMQ's management API is, as [`super::annotation::MANAGEMENT`] says.
    pub const ENV_MANAGEMENT_URL: &str = "QSCALER_MANAGEMENT_URL";
    /// Public keys of the controller (Ed25519 in base64), comma-separated: control messages must be signed by one of them. Absent: none is asked for.
    pub const ENV_CONTROL_KEYS: &str = "QSCALER_CONTROL_KEYS";
    /// Downward API: `metadata.uid`.
    pub const ENV_POD_UID: &str = "QSCALER_POD_UID";
    /// Downward API: `metadata.name`.
    pub const ENV_POD_NAME: &str = "QSCALER_POD_NAME";
    /// Downward API: `metadata.namespace`.
    pub const ENV_POD_NAMESPACE: &str = "QSCALER_POD_NAMESPACE";
    /// Downward API: `status.podIP`.
    pub const ENV_POD_IP: &str = "QSCALER_POD_IP";
}

/// Condition types on a QWorker.
pub mod condition {
    /// The annotations are valid and the workload is managed.
    pub const READY: &str = "Ready";
    /// Decisions are being made and applied.
    pub const SCALING: &str = "Scaling";
    /// Reason of [`SCALING`]: the API server refuses new pods.
    pub const REASON_FAILED_CREATE: &str = "FailedCreate";
    /// A wished scale-down is not carried out, and why.
    pub const SCALE_DOWN_BLOCKED: &str = "ScaleDownBlocked";
    /// Reason of [`SCALE_DOWN_BLOCKED`]: every pod that could go has a task.
    pub const REASON_BUSY: &str = "Busy";
    /// The broker answers.
    pub const BROKER_REACHABLE: &str = "BrokerReachable";
    /// Every active pod has the sidecar.
    pub const INJECTED: &str = "Injected";
    /// Reason of [`INJECTED`]: containers of injected pods alone end again and again soon after their start. The webhook makes the next pods without a shared process
    /// namespace for it.
    pub const REASON_WORKER_CRASHES: &str = "WorkerCrashes";
    /// A deletion of any injected pod lets its running task finish; False names the pods of which that is not so, and the mend.
    pub const HOLD_EFFECTIVE: &str = "HoldEffective";
    /// Every pod is as a new one would be: with the sidecar that new ones get, told the annotations that stand now. False says how many are not, and what is done.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// Reason of [`UP_TO_DATE`]: they are replaced one by one as they fall idle.
    pub const REASON_REPLACING: &str = "Replacing";
    /// Reason of [`UP_TO_DATE`]: none is replaced by the user's will.
    pub const REASON_PAUSED: &str = "Paused";
    /// A resize waits or cannot be done.
    pub const RESIZE_DEFERRED: &str = "ResizeDeferred";
    /// Memory cannot grow further although tasks are OOM-killed.
    pub const MEMORY_CAPPED: &str = "MemoryCapped";
    /// Another scaler or sizer writes the same object.
    pub const CONFLICT: &str = "Conflict";
    /// Reason of [`CONFLICT`]: another sizer owns the workload's pods, new ones too.
    pub const REASON_OTHER_SIZER: &str = "OtherSizer";
    /// Reason of [`CONFLICT`]: another writer has set the resources of some running pods, which are left alone.
    pub const REASON_PODS_RESIZED: &str = "PodsResized";
    /// Other managed Deployments take from the same queues. The backlog is counted once, and what it needs is divided among them.
    pub const QUEUE_SHARED: &str = "QueueShared";
    /// Reason of [`QUEUE_SHARED`]: all of them take from the same queues, so any pod can do any task.
    pub const REASON_DIVIDED: &str = "Divided";
    /// Reason of [`QUEUE_SHARED`]: some take from queues that others do not take from.
    pub const REASON_OVERLAPS: &str = "Overlaps";
    /// A scheduler runs in the worker's pods, and is scaled along.
    pub const SCHEDULER_INSIDE: &str = "SchedulerInside";
    /// More workers do not raise the throughput.
    pub const DOWNSTREAM_LIMITED: &str = "DownstreamLimited";

    /// Conditions that are as they should be while they are False.
    pub const GOOD_WHEN_FALSE: &[&str] =
        &[SCALE_DOWN_BLOCKED, RESIZE_DEFERRED, MEMORY_CAPPED, CONFLICT, DOWNSTREAM_LIMITED, QUEUE_SHARED, SCHEDULER_INSIDE];

    /// Whether a condition is not as it should be; pods that are busy, a queue that is divided, what is under way or by the user's will are no trouble, and what is not known yet is none
    /// either.
    #[must_use]
    pub fn is_trouble(kind: &str, status: &str, reason: &str) -> bool {
        let good = if GOOD_WHEN_FALSE.contains(&kind) { "False" } else { "True" };
        let going = kind == UP_TO_DATE && [REASON_REPLACING, REASON_PAUSED].contains(&reason);
        let fine = [(SCALE_DOWN_BLOCKED, REASON_BUSY), (QUEUE_SHARED, REASON_DIVIDED)].contains(&(kind, reason));
        status != good && status != "Unknown" && !fine && !going
    }
}

/// Reasons of Events.
pub mod event {
    /// The annotations have mistakes; the workload is left alone.
    pub const INVALID_CONFIG: &str = "InvalidConfig";
    /// The broker cannot be reached, or refuses.
    pub const BROKER_UNREACHABLE: &str = "BrokerUnreachable";
    /// The broker answers again.
    pub const BROKER_REACHABLE: &str = "BrokerReachable";
    /// Replicas were raised.
    pub const SCALED_UP: &str = "ScaledUp";
    /// Replicas were lowered.
    pub const SCALED_DOWN: &str = "ScaledDown";
    /// A scale-down is blocked.
    pub const SCALE_DOWN_BLOCKED: &str = "ScaleDownBlocked";
    /// The API server refuses new pods.
    pub const FAILED_CREATE: &str = "FailedCreate";
    /// Pods are without the sidecar, or cannot start with it.
    pub const NOT_INJECTED: &str = "NotInjected";
    /// The hold of some pods is less than whole.
    pub const HOLD_NOT_EFFECTIVE: &str = "HoldNotEffective";
    /// A pod is replaced by a new one while it is idle.
    pub const REPLACED: &str = "Replaced";
    /// Pods that should be replaced cannot be, and why.
    pub const NOT_REPLACED: &str = "NotReplaced";
    /// A container was OOM-killed.
    pub const OOM_KILLED: &str = "OOMKilled";
    /// A pod's resources were changed in place.
    pub const RESIZED: &str = "Resized";
    /// A resize was refused or waits.
    pub const RESIZE_DEFERRED: &str = "ResizeDeferred";
    /// Memory is at its cap.
    pub const MEMORY_CAPPED: &str = "MemoryCapped";
    /// A running task was cut, with its cause.
    pub const TASK_CUT: &str = "TaskCut";
    /// Another managed Deployment takes from the same queues.
    pub const QUEUE_SHARED: &str = "QueueShared";
    /// A scheduler runs in the worker's pods: periodic tasks are sent several times, or not at all.
    pub const SCHEDULER_INSIDE: &str = "SchedulerInside";
    /// Another writer was seen.
    pub const CONFLICT: &str = "Conflict";
}

/// Field manager of server-side applies and the user agent.
pub const MANAGER: &str = "qscaler";
/// Name of the leader election Lease, in the controller's namespace.
pub const LEASE: &str = "qscaler-controller";
/// Name of the webhook's Deployment, in the release's namespace.
pub const WEBHOOK_DEPLOYMENT: &str = "qscaler-webhook";
/// Name of the Secret with the webhook's certificate, in the release's namespace.
pub const TLS_SECRET: &str = "qscaler-webhook-tls";
/// Name of the Secret with the key of the authority that signs it, in the same namespace.
pub const CA_SECRET: &str = "qscaler-webhook-ca";
/// Name of the Secret with the private key by which control messages are signed, in the same namespace.
pub const CONTROL_KEY_SECRET: &str = "qscaler-control-key";
/// In [`CONTROL_KEY_SECRET`]: the private key (Ed25519) as PEM.
pub const CONTROL_KEY_PRIVATE: &str = "private.pem";
/// In [`TLS_SECRET`]: the public key of it, in base64. It stands there because the webhook reads that Secret and no other.
pub const CONTROL_KEY_PUBLIC: &str = "control.pub";
/// Keys of the Secret that [`annotation::BROKER_TLS`] names: those of a Secret of type `kubernetes.io/tls` as cert-manager fills it.
pub const TLS_KEY_CA: &str = "ca.crt";
/// See [`TLS_KEY_CA`].
pub const TLS_KEY_CERT: &str = "tls.crt";
/// See [`TLS_KEY_CA`].
pub const TLS_KEY_KEY: &str = "tls.key";
/// Environment variable of controller and webhook: the path of a file (PEM) with authorities that all brokers' certificates may be signed by, from a
/// ConfigMap or a Secret of the release. A workload's own annotation wins over it.
pub const BROKER_CA_FILE: &str = "QSCALER_BROKER_CA_FILE";
/// Label of objects that programs of ours have made and no manifest names, with the value [`PART_OF`].
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
/// See [`LABEL_PART_OF`].
pub const PART_OF: &str = "qscaler";
/// Name of the MutatingWebhookConfiguration.
pub const WEBHOOK_CONFIGURATION: &str = "qscaler";
