//! `cargo xtask publish`: a release's images and chart into a registry. In: the release's folder, where to. Out: references by digest, a line each, also in a file
//! of the folder. It leaves the work to [`crate::release::publish`].

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::release::{self, publish};
use crate::source_root;

/// Arguments of `cargo xtask publish`.
#[derive(clap::Args)]
pub struct Args {
    /// What `cargo xtask release` made
    #[arg(long, default_value = "target/dist")]
    dist: PathBuf,
    /// Host and path, such as ghcr.io/NAME; logged in to by `docker login` or `crane auth login`
    #[arg(long, default_value = release::REGISTRY)]
    to: String,
    /// By HTTP: a registry on this machine
    #[arg(long)]
    plain_http: bool,
}

/// Runs the command.
///
/// # Errors
/// The registry refuses something.
pub fn run(args: Args) -> Result<()> {
    let dist = if args.dist.is_absolute() { args.dist } else { source_root().join(args.dist) };
    for reference in publish::publish(&Cache::open()?, &dist, &release::version(None)?, &args.to, args.plain_http)? {
        println!("{reference}");
    }
    Ok(())
}
