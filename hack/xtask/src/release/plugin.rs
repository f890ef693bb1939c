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

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
        text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(": ")).collect()
    }

    #[test]
    fn what_the_manifest_leads_to_is_what_was_packed_for_each_processor() {
        let (dist, programs) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        fs::write(dist.path().join("THIRD-PARTY-LICENSES.txt"), "licences").expect("a file");
        let compiled: Vec<(Arch, PathBuf)> = Arch::ALL.iter().map(|arch| (*arch, programs.path().join(arch.oci()))).collect();
        for (arch, folder) in &compiled {
            fs::create_dir(folder).expect("a folder");
            exec::write_program(&folder.join(PROGRAM), arch.oci()).expect("a program");
        }
        let made = || {
            write(dist.path(), "9.8.7", &compiled).expect("archives and a manifest");
            fs::read_to_string(dist.path().join(MANIFEST)).expect("the manifest")
        };
        let manifest = made();
        assert_eq!(made(), manifest, "the same programs have other archives");
        assert_eq!((line(&manifest, "kind"), line(&manifest, "name"), line(&manifest, "version")), (vec!["Plugin"], vec!["qscaler"], vec!["v9.8.7"]));
        let (addresses, digests) = (line(&manifest, "uri"), line(&manifest, "sha256"));
        assert_eq!((addresses.len(), digests.len(), line(&manifest, "bin")), (2, 2, vec![PROGRAM; 2]));
        for ((arch, (address, digest)), selector) in Arch::ALL.iter().zip(addresses.iter().zip(digests)).zip(line(&manifest, "selector")) {
            assert_eq!(selector, format!("{{matchLabels: {{os: linux, arch: {}}}}}", arch.oci()));
            let (source, name) = address.rsplit_once('/').expect("an address");
            assert_eq!(source, "https://github.com/qscaler/qscaler/releases/download/v9.8.7");
            assert_eq!(sha256(&dist.path().join(name)).expect("an archive"), digest, "{name}");
            let unpacked = exec::output(Command::new("tar").arg("-xzOf").arg(dist.path().join(name)).arg(PROGRAM)).expect("the program");
            assert_eq!(unpacked, arch.oci(), "another processor's program");
            let packed = exec::output(Command::new("tar").arg("-tzf").arg(dist.path().join(name))).expect("its files");
            for file in manifest.lines().filter_map(|line| line.trim().strip_prefix("- {from: ")?.split(',').next()) {
                assert!(packed.lines().any(|line| line == file), "{file} is not in {name}");
            }
        }
    }
}
