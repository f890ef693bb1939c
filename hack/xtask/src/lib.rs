//! What `cargo xtask` does, as a library that its commands, the demo and the end-to-end tests share.
//!
//! | module | in -> out |
//! |---|---|
//! | [`cache`] | a name and what a thing is made from -> its folder outside the tree, built once, also by two processes at once |
//! | [`step`] | a long action -> its name and elapsed seconds on the terminal |
//! | [`exec`] | a command -> its output, or an error that says what it printed |
//! | [`debian`] | package names -> their files unpacked in a folder; nothing is installed |
//! | [`golang`] | a Go module -> a static binary |
//! | [`helm`] | nothing -> Helm 3 or 4, fetched or built once |
//! | [`browser`] | nothing but the cache -> a browser without a window |
//! | [`brokers`] | ports and folders -> commands that start Redis and RabbitMQ |
//! | [`cluster`] | a name -> a running Kubernetes with its kubeconfig |
//! | [`monitoring`] | nothing but the cache -> a folder with Prometheus and promtool |
//! | [`oci`] | folders -> an OCI archive, same input same bytes |
//! | [`page`] | choices of cells -> arguments of the program that measures them and writes their page |
//! | [`release`] | a version -> everything that people install, in a folder and in a registry |
//! | [`stand`] | a name -> a cluster with QScaler in it, and programs in its network |
//! | [`rights`] | the chart's roles, an audit log -> rights that nothing used, calls that were refused |
//! | [`runner`] | steps of a test run -> counts and a closing line |
//! | [`supply`] | dependencies and workflows -> what of them is not allowed |
//! | [`tidy`] | the source tree -> broken rules |
//! | [`v2`] | names of cluster tests -> their output, from a kernel with control groups of version 2 |
//! | [`images`] | an image's name -> its archive, built if its inputs changed |
//!
//! Commands print to the terminal by design, so the print lint is off here.
#![allow(clippy::print_stdout)]

pub mod brokers;
pub mod browser;
pub mod cache;
pub mod chosen;
pub mod cluster;
pub mod cmd_bench;
pub mod cmd_bench_burst;
pub mod cmd_bench_law;
pub mod cmd_bench_sidecar;
pub mod cmd_bench_sizing;
pub mod cmd_bench_webhook;
pub mod cmd_book;
pub mod cmd_brokers;
pub mod cmd_cluster;
pub mod cmd_demo;
pub mod cmd_deny;
pub mod cmd_fuzz;
pub mod cmd_hostile;
pub mod cmd_images;
pub mod cmd_matrix;
pub mod cmd_model;
pub mod cmd_newcomer;
pub mod cmd_publish;
pub mod cmd_release;
pub mod cmd_shapes;
pub mod cmd_soak;
pub mod cmd_test;
pub mod debian;
pub mod exec;
pub mod golang;
pub mod helm;
pub mod images;
pub mod interrupt;
pub mod kinds;
pub mod monitoring;
pub mod oci;
pub mod page;
pub mod registry;
pub mod release;
pub mod rights;
pub mod runner;
pub mod stand;
pub mod step;
pub mod supply;
pub mod tidy;
pub mod v2;

/// The root of the source tree that this is run from by cargo, else of the one that it was compiled from: where several worktrees share a target directory, cargo
/// takes the program of one of them for that of the others.
pub fn source_root() -> std::path::PathBuf {
    root_of(std::env::var_os("CARGO_MANIFEST_DIR").map(Into::into), std::path::Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// `run`: the manifest directory that cargo tells; another package's has its own depth, and says nothing.
fn root_of(run: Option<std::path::PathBuf>, compiled: &std::path::Path) -> std::path::PathBuf {
    let manifest = run.filter(|folder| folder.ends_with("hack/xtask")).unwrap_or_else(|| compiled.to_path_buf());
    // hack/xtask -> hack -> root; a manifest directory always has both parents.
    manifest.ancestors().nth(2).unwrap_or(std::path::Path::new("/")).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_tree_is_the_one_that_cargo_runs_and_not_the_one_that_was_compiled() {
        let root = |run: Option<&str>| root_of(run.map(Into::into), Path::new("/compiled/hack/xtask"));
        assert_eq!(root(Some("/other/hack/xtask")), Path::new("/other"));
        // Another package's tests, and the program by itself.
        assert_eq!(root(Some("/other/tests")), Path::new("/compiled"));
        assert_eq!(root(None), Path::new("/compiled"));
    }
}
