//! All shapes. In: parts of their names. Out: those that are meant. Left to others: what they are (`celery`, `others`).

use super::shape::Shape;
use super::{celery, others};

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
