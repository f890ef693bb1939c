//! A browser without a window, for tests of what people see. In: nothing but the cache. Out: a program that is started like Chromium. It leaves opening pages to its callers.
//!
//! The program is the machine's own where it has one, else Debian's headless shell of Chromium, unpacked in the cache beside what it needs. Its letters are Debian's
//! DejaVu in either case, so that pictures are the same on every machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cache::{Cache, Key};
use crate::step::Step;
use crate::{debian, exec};

/// Names of the program, the smallest first.
const PROGRAMS: [&str; 4] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
const PACKAGE: &str = "chromium-headless-shell";
const FONTS: &str = "fonts-dejavu-core";

/// The program; in the cache it is `<cache>/browser/bin/browser`.
///
/// # Errors
/// There is none on this machine, and it cannot be fetched; the message says what to install.
pub fn ensure(cache: &Cache) -> Result<PathBuf> {
    let found = PROGRAMS.iter().find_map(|name| exec::which(name));
    let key = Key::new().with(PACKAGE).with(FONTS).with(format!("{found:?}")).finish();
    let folder = cache.once("browser", &key, |folder| unpack(cache, found.as_deref(), folder))?;
    let _lock = cache.lock("browser")?;
    let stable = cache.path("browser");
    if fs::read_link(&stable).ok().as_deref() != Some(&folder) {
        let _ = fs::remove_file(&stable);
        std::os::unix::fs::symlink(&folder, &stable).with_context(|| format!("cannot make the link {}", stable.display()))?;
    }
    Ok(stable.join("bin/browser"))
}

fn unpack(cache: &Cache, found: Option<&Path>, folder: &Path) -> Result<()> {
    let (root, bin) = (folder.join("root"), folder.join("bin"));
    let step = Step::start("unpacking a browser");
    debian::require(PROGRAMS[1], PROGRAMS[1])?;
    debian::unpack(cache, &[FONTS.to_owned()], &root)?;
    if found.is_none() {
        debian::unpack_with_needs(cache, &[PACKAGE], &root)?;
    }
    step.done();
    let program = found.map_or_else(|| root.join("usr/lib/chromium").join(PACKAGE), Path::to_path_buf);
    ensure!(exec::is_program(&program), "the package {PACKAGE} has no program {}", program.display());
    fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    fs::write(folder.join("fonts.conf"), fonts(&root, folder))?;
    // Some packages keep libraries in a folder of their own beside the others.
    let libraries = debian::library_folders(&root).into_iter().flat_map(|path| [path.clone(), path.join("pulseaudio")]).filter(|path| path.is_dir());
    let script = bin.join("browser");
    fs::write(&script, wrapper(&program, &libraries.collect::<Vec<_>>(), &folder.join("fonts.conf")))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).with_context(|| format!("cannot make {} a program", script.display()))
}

/// Letters from the unpacked fonts alone.
fn fonts(root: &Path, folder: &Path) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE fontconfig SYSTEM \"urn:fontconfig:fonts.dtd\">\n<fontconfig>\n<dir>{}</dir>\n<cachedir>{}</cachedir>\n</fontconfig>\n",
        root.join("usr/share/fonts").display(),
        folder.join("font-cache").display()
    )
}

/// A script that starts the program with what it needs.
fn wrapper(program: &Path, libraries: &[PathBuf], fonts: &Path) -> String {
    let libraries: Vec<String> = libraries.iter().map(|path| path.display().to_string()).collect();
    let path = if libraries.is_empty() { String::new() } else { format!("LD_LIBRARY_PATH='{}' ", libraries.join(":")) };
    format!("#!/bin/sh\n{path}FONTCONFIG_FILE='{}' exec '{}' \"$@\"\n", fonts.display(), program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_started_with_its_libraries_and_letters() {
        let script = wrapper(Path::new("/c/shell"), &["/c/root/usr/lib/x".into(), "/c/root/usr/lib/x/pulseaudio".into()], Path::new("/c/fonts.conf"));
        assert_eq!(
            script,
            "#!/bin/sh\nLD_LIBRARY_PATH='/c/root/usr/lib/x:/c/root/usr/lib/x/pulseaudio' FONTCONFIG_FILE='/c/fonts.conf' exec '/c/shell' \"$@\"\n"
        );
        assert!(!wrapper(Path::new("/usr/bin/chromium"), &[], Path::new("/f")).contains("LD_LIBRARY_PATH"), "the machine's own finds its own");
    }
}
