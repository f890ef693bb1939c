//! `cargo xtask images`: OCI archives in the cache. In: which, and how to compile. Out: one line per image, `reference path`. It leaves
//! the work to [`crate::images`].

use anyhow::Result;

use crate::cache::Cache;
use crate::cluster::{Cluster, Flavor};
use crate::images::{self, Image, Profile};

/// Arguments of `cargo xtask images`.
#[derive(clap::Args)]
pub struct Args {
    /// Make this one alone (may be repeated)
    #[arg(long)]
    only: Vec<Image>,
    /// Compile without optimization: quicker to build, for development
    #[arg(long)]
    debug: bool,
    /// Bring the images into this running cluster too
    #[arg(long, value_name = "NAME")]
    load: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// An image cannot be made or brought in.
pub fn run(args: Args) -> Result<()> {
    let cache = Cache::open()?;
    let wanted = if args.only.is_empty() { Image::ALL.to_vec() } else { args.only };
    let profile = if args.debug { Profile::Dev } else { Profile::Release };
    let archives = images::build(&cache, &wanted, profile)?;
    for (image, archive) in wanted.iter().zip(&archives) {
        println!("{} {}", image.reference(), archive.display());
    }
    if let Some(name) = args.load {
        let cluster = Cluster::attach(&cache, &name, Flavor::choose()?)?;
        archives.iter().try_for_each(|archive| cluster.import_image(archive))?;
    }
    Ok(())
}
