//! `cargo xtask book`: the documentation as HTML. In: `docs/`. Out: `target/book`. It leaves the words to `docs/` and their truth to tests (`cli/src/docs_tests.rs`).

use anyhow::Result;

use crate::cache::{Cache, Key};
use crate::exec::{cargo, output};
use crate::source_root;
use crate::step::Step;

/// The version that the book is made with.
const MDBOOK: &str = "0.5.4";

/// Arguments of `cargo xtask book`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// mdbook cannot be built, or the book has a mistake.
pub fn run(_: Args) -> Result<()> {
    let cache = Cache::open()?;
    let folder = cache.once("mdbook", &Key::new().with(MDBOOK).finish(), |folder| {
        let step = Step::start(format!("building mdbook {MDBOOK}"));
        let mut command =
            cargo(&["install", "mdbook", "--locked", "--no-default-features", "--features", "search", "--quiet", "--version", MDBOOK, "--root"]);
        output(command.arg(folder).env("CARGO_TARGET_DIR", folder.join("target")))?;
        std::fs::remove_dir_all(folder.join("target"))?;
        step.done();
        Ok(())
    })?;
    let mut command = std::process::Command::new(folder.join("bin/mdbook"));
    output(command.arg("build").arg(source_root().join("docs")))?;
    println!("{}", source_root().join("target/book/index.html").display());
    Ok(())
}
