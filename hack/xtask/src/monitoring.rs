//! Prometheus and promtool for tests of metrics, alerts and the dashboard. In: nothing but the cache. Out: a folder with both programs. It leaves starting and
//! asking them to its callers.
//!
//! The programs are the machine's own where it has them, else Debian's, unpacked in the cache: they need nothing beside them but the C library.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cache::{Cache, Key};
use crate::step::Step;
use crate::{debian, exec};

const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// The folder with `prometheus` and `promtool`; in the cache it is `<cache>/prometheus/bin`.
///
/// # Errors
/// They are not on this machine and cannot be fetched; the message says what to install.
pub fn ensure(cache: &Cache) -> Result<PathBuf> {
    let found = PROGRAMS.map(exec::which);
    let key = Key::new().with(format!("{found:?}")).finish();
    let folder = cache.once("prometheus", &key, |folder| unpack(cache, &found, folder))?;
    let _lock = cache.lock("prometheus")?;
    let stable = cache.path("prometheus");
    if std::fs::read_link(&stable).ok().as_deref() != Some(&folder) {
        let _ = std::fs::remove_file(&stable);
        std::os::unix::fs::symlink(&folder, &stable).with_context(|| format!("cannot make the link {}", stable.display()))?;
    }
    Ok(stable.join("bin"))
}

fn unpack(cache: &Cache, found: &[Option<PathBuf>; 2], folder: &Path) -> Result<()> {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    let root = folder.join("root");
    if found.iter().any(Option::is_none) {
        let step = Step::start("unpacking Prometheus");
        debian::require("prometheus", "prometheus")?;
        debian::unpack(cache, &["prometheus".to_owned()], &root)?;
        step.done();
    }
    for (name, found) in PROGRAMS.iter().zip(found) {
        let program = found.clone().unwrap_or_else(|| root.join("usr/bin").join(name));
        ensure!(exec::is_program(&program), "the package prometheus has no program {}", program.display());
        std::os::unix::fs::symlink(&program, bin.join(name)).with_context(|| format!("cannot link {name}"))?;
    }
    Ok(())
}
