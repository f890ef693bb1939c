//! A release: everything that people install, made from this tree. In: a version, processors, how to compile. Out: a folder with images of all processors, the
//! chart, archives of `kubectl-qscaler` with a krew manifest, bills of materials, licences and checksums; and the same in a registry. It leaves signing to the
//! workflow, since a signature says who made it.
//!
//! | module | in -> out |
//! |---|---|
//! | [`cross`] | a processor and programs -> static binaries, compiled by zig's C compiler and linked with musl |
//! | [`image`] | binaries of all processors -> one OCI archive with an index |
//! | [`plugin`] | binaries of `kubectl-qscaler` -> archives and a krew manifest |
//! | [`materials`] | cargo's view of a program -> its bill of materials and the texts of its licences |
//! | [`publish`] | a release's folder -> a registry |
//! | [`start`] | a release -> how many programs start |

pub mod cross;
pub mod image;
pub mod materials;
pub mod plugin;
pub mod publish;
pub mod start;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::cache::{Cache, hex};
use crate::images::{Image, Profile};
use crate::step::Step;
use crate::{exec, helm, source_root};

/// Where images and charts of releases are; also in the chart's values and in the krew manifest.
pub const REGISTRY: &str = "ghcr.io/qscaler";
/// Checksums of all other files, in the form of `sha256sum`.
pub const CHECKSUMS: &str = "SHA256SUMS";

/// A processor that releases are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    /// amd64
    #[value(name = "x86_64")]
    X86,
    /// arm64
    #[value(name = "aarch64")]
    Arm,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X86, Self::Arm];

    /// Rust's target.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-linux-musl",
            Self::Arm => "aarch64-unknown-linux-musl",
        }
    }

    /// As OCI, Go and krew name it.
    pub fn oci(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }
}

/// This tree's version, of which the chart's and the application's are copies.
///
/// # Errors
/// The three differ, or the changelog has no part for it; `tag` (`v` and the version) is another.
pub fn version(tag: Option<&str>) -> Result<String> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let chart = fs::read_to_string(source_root().join("charts/qscaler/Chart.yaml")).context("cannot read Chart.yaml")?;
    for key in ["version", "appVersion"] {
        let line = format!("{key}: {version}");
        ensure!(chart.lines().any(|l| l == line), "Chart.yaml has not {line:?}, and the workspace's version is {version}: the three are one");
    }
    if let Some(tag) = tag {
        ensure!(
            tag == format!("v{version}"),
            "the tag is {tag}, and the version of the workspace and of the chart is {version}: set them, or tag v{version}"
        );
        let news = fs::read_to_string(source_root().join("CHANGELOG.md")).context("cannot read CHANGELOG.md")?;
        ensure!(news.lines().any(|l| l.starts_with(&format!("## {version}"))), "CHANGELOG.md has no part \"## {version}\": give Unreleased its name");
    }
    Ok(version)
}

/// Makes a release in `out`, which is emptied first; answers its files' names.
///
/// # Errors
/// Something cannot be compiled, fetched or written.
pub fn make(cache: &Cache, out: &Path, version: &str, arches: &[Arch], profile: Profile) -> Result<Vec<String>> {
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("cannot empty {}", out.display()))?;
    }
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let programs: Vec<&str> = Image::PROGRAMS.iter().flat_map(|image| image.programs().iter().copied()).chain([plugin::PROGRAM]).collect();
    let mut compiled = Vec::new();
    for arch in arches {
        compiled.push((*arch, cross::compile(cache, *arch, &programs, profile)?));
    }
    let step = Step::start("bills of materials and licences");
    let book = materials::Book::read()?;
    let licences = book.licences(&programs)?;
    fs::write(out.join("THIRD-PARTY-LICENSES.txt"), &licences)?;
    for image in Image::PROGRAMS {
        fs::write(out.join(format!("{}-{version}.cdx.json", image.name())), book.bill(image.name(), version, image.programs())?)?;
    }
    fs::write(out.join(format!("{}-{version}.cdx.json", plugin::PROGRAM)), book.bill(plugin::PROGRAM, version, &[plugin::PROGRAM])?)?;
    step.done();
    for image in Image::PROGRAMS {
        image::write(cache, &out.join(image::file(image, version)), image, version, &compiled, &licences)?;
    }
    chart(cache, out, version)?;
    plugin::write(out, version, &compiled)?;
    checksums(out)
}

/// The chart as a package: what `helm push` takes.
fn chart(cache: &Cache, out: &Path, version: &str) -> Result<PathBuf> {
    let mut command = Command::new(helm::three(cache)?);
    command.arg("package").arg(source_root().join("charts/qscaler")).args(["--version", version, "--app-version", version, "--destination"]).arg(out);
    exec::output(&mut command)?;
    Ok(out.join(chart_file(version)))
}

/// Name of the chart's package.
pub fn chart_file(version: &str) -> String {
    format!("qscaler-{version}.tgz")
}

fn checksums(out: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(out)?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name != CHECKSUMS);
    names.sort();
    let mut lines = String::new();
    for name in &names {
        lines.push_str(&format!("{}  {name}\n", sha256(&out.join(name))?));
    }
    fs::write(out.join(CHECKSUMS), lines)?;
    names.push(CHECKSUMS.to_owned());
    Ok(names)
}

/// A file's SHA-256 in hexadecimal.
///
/// # Errors
/// It cannot be read.
pub fn sha256(file: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    let mut file = fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    std::io::copy(&mut file, &mut digest)?;
    Ok(hex(&digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_and_chart_have_one_version_and_a_tag_must_be_it() {
        let version = version(None).expect("one version");
        let error = super::version(Some("v99.0.0")).expect_err("another tag").to_string();
        assert!(error.contains("v99.0.0") && error.contains(&version), "{error}");
        assert!(super::version(Some(&version)).is_err(), "a tag begins with v");
    }

    #[test]
    fn checksums_are_those_that_sha256sum_checks() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("b"), "b").expect("a file");
        fs::write(folder.path().join("a"), "a").expect("a file");
        assert_eq!(checksums(folder.path()).expect("checksums"), ["a", "b", CHECKSUMS]);
        exec::output(Command::new("sha256sum").args(["--check", "--strict", CHECKSUMS]).current_dir(folder.path())).expect("they are right");
        fs::write(folder.path().join("b"), "c").expect("a file");
        assert!(exec::output(Command::new("sha256sum").args(["--check", CHECKSUMS]).current_dir(folder.path())).is_err());
    }
}
