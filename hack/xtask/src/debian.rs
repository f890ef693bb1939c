//! Debian packages without installing them. In: package names. Out: their files, and those of packages they need that this machine
//! lacks, unpacked below a folder. It leaves to its callers how a program finds its files there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::exec;

/// Where apt looks up packages: the machine's own lists, or lists of our own when the machine's are missing or too old.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    Machine,
    Own,
}

/// Fails with one sentence where packages cannot be had.
///
/// # Errors
/// `apt-get` or `dpkg-deb` is missing; `instead` says what the user can install.
pub fn require(what: &str, instead: &str) -> Result<()> {
    if exec::which("apt-get").is_some() && exec::which("dpkg-deb").is_some() {
        return Ok(());
    }
    bail!("{what} is missing, and this machine has no apt-get to fetch it with: install {instead}, or use Debian or Ubuntu")
}

/// Unpacks packages, and what they need beyond the machine's own packages, into `root`.
///
/// # Errors
/// apt does not know a package, or cannot fetch it.
pub fn unpack_with_needs(cache: &Cache, packages: &[&str], root: &Path) -> Result<()> {
    fetch(cache, |lists| missing(cache, lists, packages), root)
}

/// Unpacks exactly these packages into `root`, for a root file system of its own.
///
/// # Errors
/// apt does not know a package, or cannot fetch it.
pub fn unpack(cache: &Cache, packages: &[String], root: &Path) -> Result<()> {
    fetch(cache, |_| Ok(packages.to_vec()), root)
}

/// Folders with shared libraries below an unpacked root, for `LD_LIBRARY_PATH`.
pub fn library_folders(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for parent in ["usr/lib", "lib"] {
        for entry in fs::read_dir(root.join(parent)).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with("-linux-gnu") && entry.path().is_dir() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn fetch(cache: &Cache, wanted: impl Fn(Lists) -> Result<Vec<String>>, root: &Path) -> Result<()> {
    let _lock = cache.lock("apt")?;
    let debs = root.with_extension("debs");
    fs::create_dir_all(&debs).with_context(|| format!("cannot make {}", debs.display()))?;
    let attempt = |lists| wanted(lists).and_then(|names| download(cache, lists, &names, &debs));
    if attempt(Lists::Machine).is_err() {
        // Lists that are missing or older than the archive: fetch current ones beside the machine's, which need no root rights.
        exec::output(apt(cache, Lists::Own, "apt-get")?.arg("update"))?;
        attempt(Lists::Own)?;
    }
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    let mut archives: Vec<PathBuf> = fs::read_dir(&debs)?.flatten().map(|entry| entry.path()).collect();
    archives.sort();
    for archive in archives.iter().filter(|path| path.extension().is_some_and(|end| end == "deb")) {
        unpack_archive(archive, root)?;
    }
    fs::remove_dir_all(&debs).with_context(|| format!("cannot remove {}", debs.display()))
}

/// A package may say `lib/…` where the root has a link `lib -> usr/lib`: follow the link in place of replacing it.
fn unpack_archive(archive: &Path, root: &Path) -> Result<()> {
    let mut reader = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(archive).stdout(std::process::Stdio::piped()).spawn()?;
    let stream = reader.stdout.take().context("dpkg-deb has no output")?;
    let status = Command::new("tar").args(["-x", "--no-same-owner", "--keep-directory-symlink", "-C"]).arg(root).stdin(stream).status()?;
    if !reader.wait()?.success() || !status.success() {
        bail!("cannot unpack {}", archive.display());
    }
    Ok(())
}

fn apt(cache: &Cache, lists: Lists, program: &str) -> Result<Command> {
    let mut command = Command::new(program);
    command.args(["-q", "-o", "APT::Sandbox::User=root"]);
    if lists == Lists::Own {
        let (lists, archives) = (cache.path("apt/lists/partial"), cache.path("apt/archives/partial"));
        for folder in [&lists, &archives] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        command.arg("-o").arg(format!("Dir::State::lists={}", cache.path("apt/lists").display()));
        command.arg("-o").arg(format!("Dir::Cache={}", cache.path("apt").display()));
    }
    Ok(command)
}

/// What installing `packages` would add here; nothing if they are installed.
fn missing(cache: &Cache, lists: Lists, packages: &[&str]) -> Result<Vec<String>> {
    let mut command = apt(cache, lists, "apt-get")?;
    command.args(["install", "--simulate", "--no-install-recommends"]).args(packages).env("LC_ALL", "C");
    let found = additions(&exec::output(&mut command)?);
    // A package that is installed already would have been found on PATH by the caller; unpack it all the same.
    let mut names: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
    names.extend(found.into_iter().filter(|name| !packages.contains(&name.as_str())));
    Ok(names)
}

fn additions(simulation: &str) -> Vec<String> {
    simulation.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next()).map(str::to_owned).collect()
}

fn download(cache: &Cache, lists: Lists, packages: &[String], into: &Path) -> Result<()> {
    exec::output(apt(cache, lists, "apt-get")?.arg("download").args(packages).current_dir(into)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_that_a_simulation_would_add_are_read_from_its_inst_lines() {
        let text = "Reading package lists...\nInst liblzf1 (3.6-3 Debian:12.12/stable [amd64])\nInst redis-server [6] (5:7.0.15-1 Debian [amd64])\nConf liblzf1 (3.6-3)\n";
        assert_eq!(additions(text), ["liblzf1", "redis-server"]);
        assert!(additions("0 upgraded, 0 newly installed").is_empty());
    }
}
