//! A registry with logins for tests: Debian's `docker-registry`. In: nothing but the cache. Out: a folder with the program. It leaves starting it to its callers.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::cache::{Cache, Key};
use crate::step::Step;
use crate::{debian, exec};

const PROGRAM: &str = "docker-registry";

/// The folder with the program; it needs nothing beside it but the C library.
///
/// # Errors
/// It is not on this machine and cannot be fetched; the message says what to install.
pub fn ensure(cache: &Cache) -> Result<PathBuf> {
    let found = exec::which(PROGRAM);
    cache.once(PROGRAM, &Key::new().with(format!("{found:?}")).finish(), |folder| {
        let program = match found {
            Some(program) => program,
            None => {
                let step = Step::start("unpacking a registry");
                debian::require(PROGRAM, PROGRAM)?;
                let root = folder.join("root");
                debian::unpack(cache, &[PROGRAM.to_owned()], &root)?;
                step.done();
                root.join("usr/bin").join(PROGRAM)
            }
        };
        ensure!(exec::is_program(&program), "the package {PROGRAM} has no program {}", program.display());
        std::os::unix::fs::symlink(&program, folder.join(PROGRAM)).with_context(|| format!("cannot link {PROGRAM}"))
    })
}
