//! A shape: a worker's pod as people write it. In: data (`celery`, `others`). Out: the options of its fleets, with QScaler and without. Left to others: what is
//! done to it (`arm`).

use super::{celery, others};
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
        // More than it starts with where something could wrongly call for more.
        let most = if self.held > 0 { 2 * PODS } else { PODS };
        let mut options = FleetOptions::of(&self.framework, namespace, PODS, most);
        options.grace_seconds = GRACE_S;
        options.pod = self.pod;
        options
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

/// Every shape.
pub fn all() -> impl Iterator<Item = &'static Shape> {
    celery::SHAPES.iter().chain(others::SHAPES).copied()
}

/// The shapes whose slug is one of these parts, or, for a part that is no slug, whose slug or name contains it; all, where there is none.
#[must_use]
pub fn chosen(parts: &[String]) -> Vec<&'static Shape> {
    let fits = |shape: &Shape, part: &str| match all().any(|shape| shape.slug() == part) {
        true => shape.slug() == part,
        false => shape.slug().contains(part) || shape.framework.name.contains(part),
    };
    all().filter(|shape| parts.is_empty() || parts.iter().any(|part| fits(shape, part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand::fleet::parsed;
    use qscaler_core::config::{Parsed, parse};
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_shape_has_a_name_of_its_own_that_a_namespace_may_have_and_texts_that_are_json() {
        let slugs: BTreeSet<&str> = all().map(Shape::slug).collect();
        assert_eq!(slugs.len(), all().count());
        assert!(slugs.len() >= 25, "{}", slugs.len());
        assert!(slugs.iter().all(|s| s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')), "{slugs:?}");
        for shape in all() {
            assert!(shape.pod.container.is_empty() || parsed(shape.pod.container).is_object(), "{}", shape.slug());
            assert!(shape.pod.helpers.is_empty() || parsed(shape.pod.helpers).is_array(), "{}", shape.slug());
        }
    }

    #[test]
    fn the_annotations_of_every_shape_are_valid() {
        for shape in all() {
            let options = shape.managed(shape.slug());
            let annotations: BTreeMap<String, String> = options.annotations.iter().map(|(k, v)| (format!("qscaler.dev/{k}"), v.clone())).collect();
            let parsed = parse(&annotations, &BTreeMap::new());
            assert!(matches!(parsed, Parsed::Valid(_)), "{}: {parsed:?}", shape.slug());
        }
    }

    #[test]
    fn a_whole_slug_means_that_shape_alone() {
        assert_eq!(chosen(&["tee".to_owned()]).len(), 1);
        assert!(chosen(&["celery".to_owned()]).len() > 3);
    }
}
