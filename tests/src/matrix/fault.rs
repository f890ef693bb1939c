//! The faults, which are the matrix' columns. In: nothing. Out: names, titles, and what a round of each needs. Left to others: doing it (`strike`).

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// No QScaler: a plain `/scale` call, and a grace that is shorter than the tasks.
    Control,
    /// The load falls and QScaler lowers the count.
    Wave,
    /// `scaling: protect`, and plain `/scale` calls while every pod is busy.
    Protect,
    /// `kubectl rollout restart`.
    Rollout,
    /// `kubectl drain` of the node.
    Drain,
    /// `kubectl delete pod`.
    Delete,
    /// The Eviction API.
    Eviction,
    /// The leading controller's process is killed in the middle of a wave.
    ControllerKilled,
    /// A sidecar is killed while its worker is parked.
    SidecarKilledParked,
    /// A sidecar is killed while it holds the end of a pod whose worker has a task.
    SidecarKilledHeld,
    /// The broker is killed in the middle of a wave and started again with its data.
    BrokerRestarted,
    /// The webhook is away while a pod is replaced and a wave is due.
    WebhookDown,
    /// The leading controller leaves in the middle of a wave and another takes the lease.
    LeaderChange,
}

impl Fault {
    /// Every column, in the table's order.
    pub const ALL: [Self; 13] = [
        Self::Control,
        Self::Wave,
        Self::Protect,
        Self::Rollout,
        Self::Drain,
        Self::Delete,
        Self::Eviction,
        Self::ControllerKilled,
        Self::SidecarKilledParked,
        Self::SidecarKilledHeld,
        Self::BrokerRestarted,
        Self::WebhookDown,
        Self::LeaderChange,
    ];

    /// As `--fault` and cells name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Wave => "wave",
            Self::Protect => "protect",
            Self::Rollout => "rollout",
            Self::Drain => "drain",
            Self::Delete => "delete",
            Self::Eviction => "eviction",
            Self::ControllerKilled => "controller-killed",
            Self::SidecarKilledParked => "sidecar-killed-parked",
            Self::SidecarKilledHeld => "sidecar-killed-held",
            Self::BrokerRestarted => "broker-restarted",
            Self::WebhookDown => "webhook-down",
            Self::LeaderChange => "leader-change",
        }
    }

    /// The column's head.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Control => "no QScaler",
            Self::Wave => "scale-down wave",
            Self::Protect => "protect, plain /scale",
            Self::Rollout => "rollout restart",
            Self::Drain => "kubectl drain",
            Self::Delete => "kubectl delete",
            Self::Eviction => "eviction",
            Self::ControllerKilled => "controller killed mid-wave",
            Self::SidecarKilledParked => "sidecar killed, parked",
            Self::SidecarKilledHeld => "sidecar killed, held",
            Self::BrokerRestarted => "broker restarted mid-wave",
            Self::WebhookDown => "webhook down",
            Self::LeaderChange => "leader change",
        }
    }

    /// The count is being lowered when the fault comes.
    #[must_use]
    pub fn is_in_a_wave(self) -> bool {
        matches!(self, Self::Wave | Self::ControllerKilled | Self::SidecarKilledParked | Self::BrokerRestarted | Self::LeaderChange)
    }

    /// It meets every fleet of the cluster at once, so it has a round of its own.
    #[must_use]
    pub fn is_global(self) -> bool {
        matches!(self, Self::Drain | Self::ControllerKilled | Self::BrokerRestarted | Self::WebhookDown | Self::LeaderChange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        let mut names: Vec<&str> = Fault::ALL.iter().map(|f| f.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Fault::ALL.len());
    }
}
