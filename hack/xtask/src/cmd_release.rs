//! `cargo xtask release`: everything that people install, in one folder. In: processors, a tag to agree with. Out: the folder's files, a line each. It leaves the
//! work to [`crate::release`].

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::images::Profile;
use crate::release::{self, Arch, start};
use crate::source_root;

/// Arguments of `cargo xtask release`.
#[derive(clap::Args)]
pub struct Args {
    /// Where it goes; emptied first
    #[arg(long, default_value = "target/dist")]
    out: PathBuf,
    /// Only for this processor (may be repeated) [default: both]
    #[arg(long)]
    arch: Vec<Arch>,
    /// The tag that is being released: it must be `v` and the version, and the changelog must have a part of that name
    #[arg(long)]
    tag: Option<String>,
    /// Compile without optimization: to try, never to publish
    #[arg(long, conflicts_with = "tag")]
    debug: bool,
    /// Start every program that was made, and see that it says its version: another processor's under QEMU's user mode
    #[arg(long)]
    start: bool,
}

/// Runs the command.
///
/// # Errors
/// Something cannot be made, or does not start.
pub fn run(args: Args) -> Result<()> {
    let version = release::version(args.tag.as_deref())?;
    let arches = if args.arch.is_empty() { Arch::ALL.to_vec() } else { args.arch };
    let profile = if args.debug { Profile::Dev } else { Profile::Release };
    let out = if args.out.is_absolute() { args.out } else { source_root().join(args.out) };
    let cache = Cache::open()?;
    for name in release::make(&cache, &out, &version, &arches, profile)? {
        println!("{}", out.join(name).display());
    }
    if args.start {
        println!("{} programs start and are of version {version}", start::all(&cache, &out, &version)?);
    }
    Ok(())
}
