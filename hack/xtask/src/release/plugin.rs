//! `kubectl qscaler` as people install it. In: its binaries. Out: one archive per processor, and the manifest by which krew finds them. It leaves the plugin's
//! index, which is krew's, to people.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Arch, sha256};
use crate::exec;

/// The package and its program: kubectl finds plugins by this name.
pub const PROGRAM: &str = "kubectl-qscaler";
/// The manifest's file: krew wants the plugin's name.
pub const MANIFEST: &str = "qscaler.yaml";

/// Name of an archive.
pub fn file(version: &str, arch: Arch) -> String {
    format!("{PROGRAM}-v{version}-linux-{}.tar.gz", arch.oci())
}

/// Writes archives and manifest.
///
/// # Errors
/// A binary is missing, or `tar` or `gzip` fails.
pub fn write(out: &Path, version: &str, compiled: &[(Arch, PathBuf)]) -> Result<()> {
    let mut platforms = String::new();
    for (arch, folder) in compiled {
        let work = tempfile::tempdir()?;
        fs::copy(folder.join(PROGRAM), work.path().join(PROGRAM)).with_context(|| format!("there is no {PROGRAM} in {}", folder.display()))?;
        fs::write(work.path().join("LICENSE"), include_str!("../../../../LICENSE"))?;
        fs::copy(out.join("THIRD-PARTY-LICENSES.txt"), work.path().join("THIRD-PARTY-LICENSES.txt"))?;
        let archive = out.join(file(version, *arch));
        // The same files, the same bytes: no times, no owners, no order of a folder.
        let pack = "tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -cf - \
                    kubectl-qscaler LICENSE THIRD-PARTY-LICENSES.txt | gzip -9 -n > \"$1\"";
        exec::output(Command::new("sh").args(["-ec", pack, "sh"]).arg(&archive).current_dir(work.path()))?;
        platforms.push_str(&platform(version, *arch, &sha256(&archive)?));
    }
    fs::write(out.join(MANIFEST), manifest(version, &platforms)).context("cannot write the krew manifest")
}

fn platform(version: &str, arch: Arch, digest: &str) -> String {
    let (oci, file, source) = (arch.oci(), file(version, arch), env!("CARGO_PKG_REPOSITORY"));
    format!(
        "  - selector: {{matchLabels: {{os: linux, arch: {oci}}}}}\n    uri: {source}/releases/download/v{version}/{file}\n    sha256: {digest}\n    bin: {PROGRAM}\n    \
         files:\n    - {{from: {PROGRAM}, to: .}}\n    - {{from: LICENSE, to: .}}\n    - {{from: THIRD-PARTY-LICENSES.txt, to: .}}\n"
    )
}

fn manifest(version: &str, platforms: &str) -> String {
    format!(
        "apiVersion: krew.googlecontainertools.github.com/v1alpha2\nkind: Plugin\nmetadata:\n  name: qscaler\nspec:\n  version: v{version}\n  homepage: {}\n  \
         shortDescription: Explain and check QScaler's queue workers\n  description: |\n    What QScaler does with the Deployments that take tasks from queues, and why:\n    \
         status, explain, doctor, release, simulate.\n  caveats: |\n    The cluster needs QScaler: see the homepage. `kubectl qscaler simulate` needs no cluster.\n  platforms:\n{platforms}",
        env!("CARGO_PKG_REPOSITORY")
    )
}
