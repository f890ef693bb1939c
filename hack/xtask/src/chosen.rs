//! Which of the cluster's tests run, and how. In: the test program, and a part of a name or none. Out: names, in two groups. Left to others: running them.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::exec::output;

/// Those that concern the node or the installation (they kill controllers, for one), and run after the others.
const ALONE: [&str; 6] = ["alone::", "controllers::", "matrix::", "uninstall::", "what_was_learned", "an_estimate_outlives"];
/// Cluster tests outside the default run, which are asked for by name: what the first show is in the matrix' column, too, and in more detail here; the last
/// takes QScaler out of the cluster and puts it in again.
const BY_NAME: [&str; 2] = ["frameworks::", "uninstall::"];

/// Names of the cluster's tests that are to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Those that run at the same time.
    pub side_by_side: Vec<String>,
    /// Those that run after them, one by one.
    pub alone: Vec<String>,
}

impl Chosen {
    /// Of all tests of this program, those that have `filter` in their name; without one, all but those that must be asked for.
    ///
    /// # Errors
    /// The program does not list its tests, or no name has `filter` in it.
    pub fn of(program: &Path, filter: Option<&str>) -> Result<Self> {
        Self::of_listed(&output(Command::new(program).args(["--list", "--format", "terse"]))?, filter)
    }

    /// Of what the harness lists (`NAME: test`), all that have `filter` in their name; without one, all but those that must be asked for.
    ///
    /// # Errors
    /// No name has `filter` in it; the error gives all names.
    fn of_listed(listed: &str, filter: Option<&str>) -> Result<Self> {
        let has_one = |name: &str, parts: &[&str]| parts.iter().any(|part| name.contains(part));
        let names = || listed.lines().filter_map(|line| line.strip_suffix(": test"));
        let wanted = |name: &&str| filter.map_or_else(|| !has_one(name, &BY_NAME), |part| name.contains(part));
        let (alone, side_by_side): (Vec<&str>, Vec<&str>) = names().filter(wanted).partition(|name| has_one(name, &ALONE));
        if alone.is_empty() && side_by_side.is_empty() {
            let all: Vec<&str> = names().collect();
            bail!("no cluster test has {:?} in its name; they are:\n  {}", filter.unwrap_or_default(), all.join("\n  "));
        }
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        Ok(Self { side_by_side: owned(side_by_side), alone: owned(alone) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "alone::a_node: test\nframeworks::each: test\njob::goes_up: test\nmatrix::one_row: test\nsizes::an_estimate_outlives: test\nsizes::peaks: test\n";

    fn chosen(filter: Option<&str>) -> (Vec<String>, Vec<String>) {
        let chosen = Chosen::of_listed(LISTED, filter).unwrap();
        (chosen.side_by_side, chosen.alone)
    }

    #[test]
    fn without_a_name_all_run_but_those_that_must_be_asked_for() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            chosen(None),
            (owned(&["job::goes_up", "sizes::peaks"]), owned(&["alone::a_node", "matrix::one_row", "sizes::an_estimate_outlives"]))
        );
        assert_eq!(chosen(Some("frameworks")), (owned(&["frameworks::each"]), vec![]));
        assert_eq!(chosen(Some("row")), (vec![], owned(&["matrix::one_row"])));
        assert_eq!(chosen(Some("sizes")), (owned(&["sizes::peaks"]), owned(&["sizes::an_estimate_outlives"])));
    }

    #[test]
    fn a_name_that_no_test_has_is_an_error_that_gives_the_names() {
        let error = Chosen::of_listed(LISTED, Some("sizing")).unwrap_err().to_string();
        assert!(error.contains("\"sizing\"") && error.contains("job::goes_up"), "{error}");
    }
}
