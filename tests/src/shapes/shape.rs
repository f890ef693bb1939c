//! A shape: a worker's pod as people write it. In: data (`celery`, `others`). Out: the options of its fleets, with QScaler and without. Left to others: which
//! there are (`rows`), what is done to it (`arm`).

use crate::stand::fleet::{FleetOptions, PodShape};
use crate::stand::framework::Framework;

/// Pods of each fleet: one that is busy and one that is idle.
pub const PODS: u32 = 2;
/// The pod's grace in the user's template, in seconds: longer than the tasks that one pod takes here, as people set it for queue workers. So a pod whose first process ignores
/// SIGTERM is not cut without QScaler, and must not be with it.
const GRACE_S: u32 = 120;

/// One row.
#[derive(Debug)]
pub struct Shape {
    /// Row name, start, application and annotations.
    pub framework: Framework,
    /// The pod.
    pub pod: PodShape,
    /// Tasks that one pod runs at a time.
    pub width: u32,
    /// Seconds for which a worker must be idle before that can be seen: the patience of frameworks whose books tell of the whole fleet only.
    pub patience_s: f64,
    /// More tasks in the queue while busy pods are deleted: for workers that take one after the other until they are stopped.
    pub backlog: u32,
    /// Tasks that are due in ten minutes, sent before the wave and not counted: they are held by workers and call for no pod.
    pub held: u32,
    /// It goes through [`super::trial::Trial::Zero`] too.
    pub zero: bool,
}

/// What a shape has unless it says otherwise.
pub const USUAL: PodShape = PodShape { command: &[], container: "", helpers: "", own_user: false };

impl Shape {
    /// A shape of the usual pod.
    #[must_use]
    pub const fn of(framework: Framework) -> Self {
        Self { framework, pod: USUAL, width: 1, patience_s: 0.0, backlog: 0, held: 0, zero: false }
    }

    /// Its row name, which namespaces have too.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        self.framework.slug
    }

    /// A fleet with QScaler.
    #[must_use]
    pub fn managed(&'static self, namespace: &str) -> FleetOptions {
        let mut options = FleetOptions::of(&self.framework, namespace, PODS, self.most());
        options.grace_seconds = GRACE_S;
        options.pod = self.pod;
        options
    }

    /// Its `max-replicas`: more than it starts with where something could wrongly call for more.
    #[must_use]
    pub fn most(&self) -> u32 {
        if self.held > 0 { 2 * PODS } else { PODS }
    }

    /// The same pods without QScaler.
    #[must_use]
    pub fn bare(&'static self, namespace: &str) -> FleetOptions {
        let mut options = self.managed(namespace);
        options.annotations.clear();
        options.labelled = false;
        options
    }
}
