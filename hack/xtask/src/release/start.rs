//! Whether what a release holds is what it says: every program of every processor starts and is of this version; another processor's under QEMU's user mode. In: a
//! release's folder. Out: how many there are. It leaves what they do to other tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Arch, image, plugin};
use crate::cache::{Cache, Key};
use crate::images::Image;
use crate::{debian, exec};

/// Unpacks every image and archive of a release and asks each program for its version. Answers how many there are.
///
/// # Errors
/// One does not start, or is of another version.
pub fn all(cache: &Cache, dist: &Path, version: &str) -> Result<u64> {
    let mut started = 0;
    let work = tempfile::tempdir()?;
    for arch in Arch::ALL.into_iter().filter(|arch| dist.join(plugin::file(version, *arch)).exists()) {
        for part in Image::PROGRAMS {
            let root = work.path().join(format!("{}-{}", part.name(), arch.oci()));
            fs::create_dir_all(&root)?;
            unpack(&dist.join(image::file(part, version)), arch, &root)?;
            for program in part.programs() {
                started += start(cache, arch, &root.join("usr/local/bin").join(program), version)?;
            }
        }
        let root = work.path().join(arch.oci());
        fs::create_dir_all(&root)?;
        exec::output(Command::new("tar").arg("-xzf").arg(dist.join(plugin::file(version, arch))).arg("-C").arg(&root))?;
        started += start(cache, arch, &root.join(plugin::PROGRAM), version)?;
    }
    ensure!(started > 0, "{} is no release of {version}", dist.display());
    Ok(started)
}

/// Lays the layers of one processor's image over each other.
fn unpack(archive: &Path, arch: Arch, root: &Path) -> Result<()> {
    let blob = |digest: &str| -> Result<serde_json::Value> {
        let name = format!("blobs/{}", digest.replace(':', "/"));
        Ok(serde_json::from_str(&exec::output(Command::new("tar").arg("-xOf").arg(archive).arg(name))?)?)
    };
    let outer: serde_json::Value = serde_json::from_str(&exec::output(Command::new("tar").arg("-xOf").arg(archive).arg("index.json"))?)?;
    let index = blob(outer["manifests"][0]["digest"].as_str().unwrap_or_default())?;
    let of_arch = index["manifests"].as_array().into_iter().flatten().find(|m| m["platform"]["architecture"] == arch.oci());
    let manifest =
        blob(of_arch.and_then(|m| m["digest"].as_str()).with_context(|| format!("{} has no image for {}", archive.display(), arch.oci()))?)?;
    for layer in manifest["layers"].as_array().into_iter().flatten() {
        let name = format!("blobs/{}", layer["digest"].as_str().unwrap_or_default().replace(':', "/"));
        let pipe = "tar -xOf \"$1\" \"$2\" | tar -xz --no-same-owner -C \"$3\"";
        exec::output(Command::new("sh").args(["-ec", pipe, "sh"]).arg(archive).arg(name).arg(root))?;
    }
    Ok(())
}

fn start(cache: &Cache, arch: Arch, program: &Path, version: &str) -> Result<u64> {
    let native = arch.target().starts_with(std::env::consts::ARCH);
    let mut command = if native { Command::new(program) } else { Command::new(emulator(cache, arch)?) };
    if !native {
        command.arg(program);
    }
    let said = exec::output(command.arg("--version")).with_context(|| format!("{} for {} does not start", program.display(), arch.oci()))?;
    ensure!(said.trim().ends_with(version), "{} for {} says {said:?} and not {version}", program.display(), arch.oci());
    Ok(1)
}

/// QEMU's user mode, unpacked and not installed; the machine's own where there is one.
fn emulator(cache: &Cache, arch: Arch) -> Result<PathBuf> {
    let name = match arch {
        Arch::X86 => "qemu-x86_64-static",
        Arch::Arm => "qemu-aarch64-static",
    };
    if let Some(found) = exec::which(name) {
        return Ok(found);
    }
    let folder = cache.once("qemu-user", &Key::new().with("qemu-user-static").finish(), |folder| {
        debian::require("QEMU's user mode", "qemu-user-static")?;
        debian::unpack(cache, &["qemu-user-static".to_owned()], &folder.join("root"))
    })?;
    Ok(folder.join("root/usr/bin").join(name))
}
