//! `cargo xtask hostile`: what a cluster and its users do to an injector, on a real cluster, each case beside the same without QScaler. In: which cases. Out: the
//! program's own output (`qscaler-tests`, bin `hostile`), an exit code. The cluster is its own and is taken down at the end, at Ctrl-C too.

use anyhow::Result;

use crate::stand;

/// Arguments of `cargo xtask hostile`.
#[derive(clap::Args)]
pub struct Args {
    /// Only cases whose name contains this (may be repeated)
    #[arg(long)]
    case: Vec<String>,
    /// End with one JSON object
    #[arg(long)]
    json: bool,
    /// Leave the cluster up afterwards
    #[arg(long)]
    keep: bool,
    /// Name of the cluster, so that several can run side by side
    #[arg(long, default_value = "hostile")]
    cluster_name: String,
}

/// Runs it.
///
/// # Errors
/// Something cannot be built, or a case is not as it should be.
pub fn run(args: Args) -> Result<()> {
    let mut words: Vec<String> = args.case.into_iter().flat_map(|part| ["--case".to_owned(), part]).collect();
    words.extend(args.json.then(|| "--json".to_owned()));
    stand::run_program(&args.cluster_name, args.keep, "hostile", &words)
}
