//! What is remembered of one workload's replacements. In: pods, annotations. Out: whether a sidecar was told other things than a new one would be. Left to
//! others: what follows from it (`replace`).

use crate::observe::index::View;
use crate::observe::record::PodRecord;
use qscaler_core::config::WorkerConfig;
use qscaler_core::replace::{Replacer, Step};
use qscaler_core::workload::{SidecarConfig, WorkloadUid};
use qscaler_inject::config_hash;
use std::sync::Arc;

/// What is remembered of one workload.
#[derive(Debug, Default)]
pub(crate) struct Replacing {
    pub(crate) engine: Replacer,
    told: Option<Told>,
    /// Where it stands, as seen last.
    pub(crate) step: Option<Step>,
}

/// The hashes of what new sidecars of one configuration are told.
#[derive(Debug)]
struct Told {
    config: Arc<WorkerConfig>,
    container: String,
    hashes: Vec<String>,
}

impl Replacing {
    /// The sidecar was told other things than a new one would be. Only what this version's webhook has written can be judged.
    pub(crate) fn has_old_words(&mut self, pod: &PodRecord, config: &Arc<WorkerConfig>, view: &View, uid: &WorkloadUid) -> bool {
        let Some(made) = pod.made.as_deref().filter(|made| *made.version == *env!("CARGO_PKG_VERSION")) else { return false };
        let container = config.container.as_deref().unwrap_or(&made.container);
        let same = |told: &Told| (Arc::ptr_eq(&told.config, config) || told.config == *config) && told.container == container;
        if !self.told.as_ref().is_some_and(same) {
            let id = &view.deployment.id;
            // What the pod itself says of sharing, and whether the webhook knew the UID, is not to be seen from here.
            let shares: &[bool] = match config.share_processes {
                Some(true) => &[true],
                Some(false) => &[false],
                None => &[true, false],
            };
            let one = |uid: &WorkloadUid, share_processes: bool| {
                let told = SidecarConfig::new(config, id.clone(), uid.clone(), String::new(), container.to_owned(), String::new());
                config_hash(&SidecarConfig { share_processes, ..told }, config)
            };
            let hashes = shares.iter().flat_map(|share| [one(uid, *share), one(&WorkloadUid::default(), *share)]).collect();
            self.told = Some(Told { config: Arc::clone(config), container: container.to_owned(), hashes });
        }
        !self.told.as_ref().is_some_and(|told| told.hashes.iter().any(|hash| **hash == *made.config))
    }
}
