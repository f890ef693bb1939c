//! Static binaries for other processors. In: a processor, packages whose programs have their names, a profile. Out: the folder of the binaries. The C compiler and
//! linker is zig's, which brings musl for every target and comes as a Python package; Rust's standard library comes by rustup. It leaves images to [`super::image`].

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Arch;
use crate::cache::{Cache, Key};
use crate::golang::pip_install;
use crate::images::Profile;
use crate::step::Step;
use crate::{exec, source_root};

/// zig's compiler, and cargo's way to it: Python packages with their versions.
const TOOLS: [&str; 2] = ["ziglang==0.15.2", "cargo-zigbuild==0.24.1"];

/// Compiles programs and answers the folder they are in.
///
/// # Errors
/// A tool cannot be had, or a program does not compile.
pub fn compile(cache: &Cache, arch: Arch, programs: &[&str], profile: Profile) -> Result<PathBuf> {
    let tools = tools(cache)?;
    standard_library(arch)?;
    let step = Step::start(format!("compiling for {}: {}", arch.target(), programs.join(", ")));
    let (name, folder) = profile.names();
    let mut command = exec::cargo(&["zigbuild", "--quiet", "--locked", "--target", arch.target(), "--profile", name]);
    for program in programs {
        command.args(["--package", program, "--bin", program]);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools.join("bin")).chain(std::env::split_paths(&path)))?;
    command.env("PATH", path).env("CARGO_ZIGBUILD_ZIG_PATH", tools.join("ziglang/zig"));
    // Paths of this machine say nothing to anybody, and differ between two machines that make the same release.
    command.env_remove("RUSTFLAGS").env("CARGO_PROFILE_DEV_STRIP", "symbols").env("CARGO_PROFILE_DEV_DEBUG", "0");
    exec::output(&mut command)?;
    step.done();
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source_root().join("target"), PathBuf::from);
    Ok(built.join(arch.target()).join(folder))
}

fn tools(cache: &Cache) -> Result<PathBuf> {
    let key = TOOLS.iter().fold(Key::new(), |key, tool| key.with(tool)).finish();
    cache.once("zigbuild", &key, |folder| {
        let step = Step::start(format!("fetching {}", TOOLS.join(", ")));
        let mut arguments = vec!["--no-deps"];
        arguments.extend(TOOLS);
        pip_install(folder, &arguments)?;
        step.done();
        Ok(())
    })
}

/// Rust's standard library for the target, by rustup where it is missing.
fn standard_library(arch: Arch) -> Result<()> {
    let folder = exec::output(Command::new("rustc").args(["--print", "target-libdir", "--target", arch.target()]).current_dir(source_root()))?;
    if std::path::Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    let Some(rustup) = exec::which("rustup") else {
        bail!("Rust's standard library for {} is missing, and there is no rustup to add it", arch.target())
    };
    let step = Step::start(format!("fetching Rust's standard library for {}", arch.target()));
    exec::output(Command::new(rustup).args(["target", "add", arch.target()]).current_dir(source_root()))
        .with_context(|| format!("Rust's standard library for {} cannot be had", arch.target()))?;
    step.done();
    Ok(())
}
