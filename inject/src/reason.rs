//! Why a pod was not injected. In: nothing. Out: reasons, each with a label for metrics and a sentence for the user. Left to others: who is told.

use crate::CONTAINERS_MAX;
use qscaler_core::config::ConfigError;
use qscaler_core::names::{DOMAIN, annotation, sidecar};
use std::fmt;

/// The pod is none of our business, or needs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Not the creation of a pod.
    NotACreation,
    /// `kube-system`, or our own namespace.
    ExcludedNamespace,
    /// The static pod's mirror: a patch would change nothing on the node.
    MirrorPod,
    /// Neither the pod nor its Deployment has an annotation of ours.
    NotOurs,
    /// Annotated, but owned by something else.
    NotADeployment {
        /// What owns it, e.g. `StatefulSet db`; `nothing` for a pod that stands alone.
        owner: String,
    },
    /// `dry-run: true`.
    DryRun,
    /// Our container is there, and every hold too.
    AlreadyInjected,
}

/// The user asked for us, and it cannot be done safely: the pod goes on as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Mistakes in the annotations.
    InvalidConfig(Vec<ConfigError>),
    /// The Deployment was neither in the cache nor could it be read in time.
    OwnerUnknown {
        /// Why.
        problem: String,
    },
    /// No containers.
    NoContainers,
    /// More containers than any pod has.
    TooManyContainers {
        /// So many.
        count: usize,
    },
    /// The working container is not in the pod.
    ContainerNotFound {
        /// As annotated.
        name: String,
        /// Those that are.
        present: Vec<String>,
    },
    /// The user has a container of our name.
    NameTaken,
    /// Windows has no signals.
    Windows,
    /// Two pods on one node would share the hook's port.
    HostNetwork,
    /// A container of the pod listens on the hook's port.
    PortTaken {
        /// Which.
        container: String,
    },
    /// A LimitRange of type Pod leaves nothing for the sidecar.
    NoRoom {
        /// `memory` or `CPU`.
        what: &'static str,
        /// The bound.
        max: String,
        /// What the pod's containers take of it.
        taken: String,
    },
    /// A preStop hook of the user's is where the hold must be.
    OwnPreStop {
        /// The container.
        container: String,
    },
}

impl Skip {
    /// Label value of the outcome metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotACreation => "not-a-creation",
            Self::ExcludedNamespace => "excluded-namespace",
            Self::MirrorPod => "mirror-pod",
            Self::NotOurs => "not-ours",
            Self::NotADeployment { .. } => "not-a-deployment",
            Self::DryRun => "dry-run",
            Self::AlreadyInjected => "already-injected",
        }
    }

    /// Whether a user would be surprised, and so is warned.
    #[must_use]
    pub fn warns(&self) -> bool {
        matches!(self, Self::NotADeployment { .. } | Self::DryRun)
    }
}

impl Refusal {
    /// Label value of the outcome metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::InvalidConfig(_) => "invalid-config",
            Self::OwnerUnknown { .. } => "owner-unknown",
            Self::NoContainers => "no-containers",
            Self::TooManyContainers { .. } => "too-many-containers",
            Self::ContainerNotFound { .. } => "container-not-found",
            Self::NameTaken => "name-taken",
            Self::Windows => "windows",
            Self::NoRoom { .. } => "no-room",
            Self::HostNetwork => "host-network",
            Self::PortTaken { .. } => "port-taken",
            Self::OwnPreStop { .. } => "own-pre-stop",
        }
    }

    /// One sentence per mistake.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        match self {
            Self::InvalidConfig(errors) => errors.iter().map(ToString::to_string).collect(),
            other => vec![other.to_string()],
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotACreation => f.write_str("only the creation of pods is of interest"),
            Self::ExcludedNamespace => f.write_str("pods of this namespace are never touched"),
            Self::MirrorPod => f.write_str("this is the mirror of a static pod"),
            Self::NotOurs => write!(f, "there is no {DOMAIN} annotation"),
            Self::NotADeployment { owner } => {
                write!(f, "{DOMAIN} annotations work on Deployments only; this pod belongs to {owner} and is left as it is")
            }
            Self::DryRun => write!(f, "{} is true: pods are left as they are", annotation::DRY_RUN),
            Self::AlreadyInjected => f.write_str("the sidecar is there already"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidConfig(errors) => {
                let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&errors.join("; "))
            }
            Self::OwnerUnknown { problem } => {
                write!(f, "the pod's Deployment could not be read ({problem}); QScaler will replace the pod once it is idle")
            }
            Self::NoContainers => f.write_str("the pod has no containers"),
            Self::TooManyContainers { count } => write!(f, "the pod has {count} containers; valid: at most {CONTAINERS_MAX}"),
            Self::ContainerNotFound { name, present } => {
                write!(f, "{}: {name:?}: there is no such container; valid: one of {}", annotation::CONTAINER, present.join(", "))
            }
            Self::NameTaken => write!(f, "the pod has a container named {} already that is not QScaler's: rename it", sidecar::CONTAINER),
            Self::Windows => f.write_str("Windows pods are not supported: there is no signal that lets a task finish"),
            Self::NoRoom { what, max, taken } => write!(
                f,
                "a LimitRange allows a pod {max} of {what} in all, and its containers' limits take {taken}: the sidecar needs a little as well; raise that bound, or lower a limit"
            ),
            Self::HostNetwork => write!(f, "hostNetwork: two pods on one node would share port {}; remove hostNetwork", sidecar::PORT),
            Self::PortTaken { container } => {
                write!(f, "container {container} declares port {}, which the sidecar needs for the pod's hooks: use another", sidecar::PORT)
            }
            Self::OwnPreStop { container } => write!(
                f,
                "container {container} has a preStop hook of its own, where QScaler must hold the pod until the task is done; remove it, or set {}=replace if it may go",
                annotation::PRE_STOP
            ),
        }
    }
}
