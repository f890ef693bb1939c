//! What runs in a guest. In: a plan, as arguments. Out: the output of the test program, its verdict as an error or none; after a failure
//! the cluster's logs, where the plan wants them. It leaves the cluster to [`crate::stand`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::stand::{self, Stand};

/// The guest's cluster.
const CLUSTER: &str = "v2";
/// Tests at once: there is one processor.
const THREADS: &str = "1";
/// Of each part one, and the longest time to answer: a program that is being started keeps all others waiting.
const VALUES: [&str; 2] = ["webhook.replicas=1", "webhook.timeoutSeconds=10"];
/// What the tests are told: the version that must be found, and how many tasks the bursts have. How long they wait they know by QSCALER_PATIENCE.
const SETTINGS: [(&str, &str); 2] = [("QSCALER_TEST_CGROUP", "2"), ("QSCALER_TEST_TASKS", "90")];

/// What a guest is to do.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Plan {
    /// Images of the stand (may be repeated)
    #[arg(long = "archive")]
    pub archives: Vec<PathBuf>,
    /// The test program
    #[arg(long)]
    pub program: PathBuf,
    /// Where the logs of a failure go
    #[arg(long)]
    pub logs: PathBuf,
    /// Names of tests, or parts of names
    pub tests: Vec<String>,
}

impl Plan {
    /// The arguments that stand for it.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let mut words: Vec<String> = self.archives.iter().flat_map(|archive| ["--archive".to_owned(), path(archive)]).collect();
        words.extend(["--program".to_owned(), path(&self.program), "--logs".to_owned(), path(&self.logs)]);
        words.extend(self.tests.iter().cloned());
        words
    }
}

/// Brings the cluster up in the guest and runs the tests.
///
/// # Errors
/// The cluster does not come up, or a test fails.
pub fn run(plan: &Plan) -> Result<()> {
    let cache = Cache::open()?;
    let logs = cache.path("clusters").join(CLUSTER).join("log");
    let outcome = stand::up_with(cache, CLUSTER, true, plan.archives.clone(), &VALUES).and_then(|stand| tests(&stand, plan));
    if outcome.is_err() {
        // The guest's memory ends with it.
        keep(&logs, &plan.logs)?;
    }
    outcome
}

fn tests(stand: &Stand, plan: &Plan) -> Result<()> {
    let mut command = Command::new(&plan.program);
    command.args(["--show-output", "--test-threads", THREADS]).args(&plan.tests).envs(SETTINGS).stdin(Stdio::null());
    let status = stand.spawn(&mut command)?.wait();
    if !status.success() {
        stand.print_state();
    }
    ensure!(status.success(), "the tests ended with {status}");
    Ok(())
}

fn keep(logs: &Path, at: &Path) -> Result<()> {
    fs::create_dir_all(at).with_context(|| format!("cannot make {}", at.display()))?;
    for entry in fs::read_dir(logs).with_context(|| format!("no logs in {}", logs.display()))?.flatten() {
        fs::copy(entry.path(), at.join(entry.file_name())).with_context(|| format!("cannot keep {}", entry.path().display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        plan: Plan,
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = Plan {
            archives: vec!["/c/a.tar".into(), "/c/b.tar".into()],
            program: "/g/tests".into(),
            logs: "/g/out/log".into(),
            tests: vec!["a".to_owned()],
        };
        let words = std::iter::once("x".to_owned()).chain(plan.arguments());
        assert_eq!(<Words as clap::Parser>::try_parse_from(words).unwrap().plan, plan);
    }
}
