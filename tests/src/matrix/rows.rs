//! The frameworks, which are the matrix' rows. In: the stand's list. Out: those that are asked for, and how to make a fleet of one. Left to others: the fleet
//! itself, what the frameworks are (`stand::framework`).

use crate::stand::fleet::FleetOptions;
use crate::stand::framework::{FRAMEWORKS, Framework};

/// One row.
pub type Row = &'static Framework;

/// Seconds after which Celery on Redis gives a message again that a worker took and did not acknowledge, where the hour that is usual would outlast a round:
/// a worker that dies as it reconnects to Redis leaves what it had reserved to this. It is more than three of the longest tasks, which a worker reserves.
const VISIBILITY_TIMEOUT_S: (&str, &str) = ("VISIBILITY_TIMEOUT_S", "100");

/// A managed fleet of this row in this namespace, held at `pods`.
#[must_use]
pub fn managed(row: Row, namespace: &str, pods: u32) -> FleetOptions {
    let mut options = FleetOptions::of(row, namespace, pods, pods);
    options.env.insert(VISIBILITY_TIMEOUT_S.0.to_owned(), VISIBILITY_TIMEOUT_S.1.to_owned());
    options
}

/// Seconds after which a worker of this row may be asked to leave though others work: the sidecar's patience where the framework's books tell only whether
/// the whole fleet has work, with a little to spare for the order to arrive.
#[must_use]
pub fn idle_seen_after(row: Row) -> f64 {
    if matches!(row.slug, "dramatiq" | "arq") { 75.0 } else { 0.0 }
}

/// The same without QScaler, with this grace.
#[must_use]
pub fn unmanaged(row: Row, namespace: &str, pods: u32, grace_seconds: u32) -> FleetOptions {
    let mut options = managed(row, namespace, pods);
    options.annotations.clear();
    options.labelled = false;
    options.grace_seconds = grace_seconds;
    options
}

/// The rows whose slug is one of these parts, or, for a part that is no slug, whose name or slug contains it; all, where there is none.
#[must_use]
pub fn chosen(parts: &[String]) -> Vec<Row> {
    let is_slug = |part: &str| FRAMEWORKS.iter().any(|row| row.slug == part);
    let fits = |row: Row, part: &str| if is_slug(part) { row.slug == part } else { row.slug.contains(part) || row.name.contains(part) };
    let asked = |row: &Row| parts.is_empty() || parts.iter().any(|part| fits(row, part));
    FRAMEWORKS.iter().copied().filter(asked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_slug_means_that_row_alone_and_a_part_means_all_that_have_it() {
        let slugs = |part: &str| chosen(&[part.to_owned()]).iter().map(|row| row.slug).collect::<Vec<_>>();
        assert_eq!(slugs("celery"), ["celery"]);
        assert!(slugs("celer").len() >= 3);
        assert_eq!(chosen(&[]).len(), FRAMEWORKS.len());
    }
}
