//! The cache: everything that is built or downloaded, outside the source tree. In: a name, a key, and how to build. Out: a folder
//! that is complete, whoever built it and however many processes asked at once. It leaves what is built to its callers.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::step::Step;

/// A version that no one asked for in this time is removed when a newer one is built: long enough to go back and forth between branches.
const UNUSED_AFTER: Duration = Duration::from_secs(14 * 24 * 3600);

/// The file that says that a folder is complete; its modification time says when it was last asked for.
const DONE: &str = ".done";

/// A folder for what is built and downloaded.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens `$QSCALER_CACHE`, else `$XDG_CACHE_HOME/qscaler`, else `~/.cache/qscaler`; made if it is missing.
    ///
    /// # Errors
    /// None of the three is set, or the folder cannot be made.
    pub fn open() -> Result<Self> {
        let root = Self::place(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
            .context("no place for the cache: set QSCALER_CACHE to a folder that may be written to, or set HOME")?;
        Self::at(root)
    }

    /// Opens a cache in the given folder, made if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(root.join("locks")).with_context(|| format!("cannot make the cache folder {}", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("cannot open the cache folder {}", root.display()))?;
        Ok(Self { root })
    }

    fn place(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
        variable("QSCALER_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("qscaler")))
            .or_else(|| variable("HOME").map(|path| path.join(".cache/qscaler")))
    }

    /// A path inside the cache.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Holds `name` against every other process until the answer is dropped.
    ///
    /// # Errors
    /// The lock file cannot be made or locked.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join("locks").join(name);
        let file = File::create(&path).with_context(|| format!("cannot make the lock file {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
        let step = Step::start(format!("waiting for another process that makes {name}"));
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        step.done();
        Ok(file)
    }

    /// The folder `NAME-KEY`, complete. If it is not there yet, `build` fills it, and a failed build leaves nothing that looks complete.
    /// The folder has its final path while it is built, so files in it may name it.
    ///
    /// # Errors
    /// The build's own, or the folder cannot be made.
    pub fn once(&self, name: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.root.join(format!("{name}-{key}"));
        if touch_done(&folder) {
            return Ok(folder);
        }
        let _lock = self.lock(name)?;
        if touch_done(&folder) {
            return Ok(folder);
        }
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove the unfinished {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        build(&folder)?;
        fs::write(folder.join(DONE), "").with_context(|| format!("cannot write into {}", folder.display()))?;
        self.forget_unused(name, &folder);
        Ok(folder)
    }

    /// Removes other versions of `name` that were not asked for in [`UNUSED_AFTER`]. A failure costs disk only.
    fn forget_unused(&self, name: &str, keep: &Path) {
        let prefix = format!("{name}-");
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let is_version = entry.file_name().to_str().and_then(|file| file.strip_prefix(&prefix)).is_some_and(is_key);
            let path = entry.path();
            if !is_version || path == keep {
                continue;
            }
            let asked = fs::metadata(path.join(DONE)).and_then(|meta| meta.modified()).ok();
            if asked.and_then(|at| SystemTime::now().duration_since(at).ok()).is_some_and(|age| age > UNUSED_AFTER) {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

/// Whether the folder is complete; if so, notes that it was asked for.
fn touch_done(folder: &Path) -> bool {
    let done = folder.join(DONE);
    // A cache that may only be read still serves.
    let Ok(file) = File::options().append(true).open(&done) else { return done.exists() };
    let _ = file.set_modified(SystemTime::now());
    true
}

fn is_key(text: &str) -> bool {
    text.len() == KEY_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Hexadecimal digits in a key: 64 bits, far more than the few versions of a thing can collide in.
const KEY_LENGTH: usize = 16;

/// A key for what something is made from: the same parts in the same order give the same key, on every machine.
#[derive(Clone, Default)]
pub struct Key(Sha256);

impl Key {
    /// A key of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a part; its length is hashed too, so that `ab`, `c` and `a`, `bc` differ.
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// Adds a file's content.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn file(self, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self.with(content))
    }

    /// Adds every file below a folder: relative names and contents, in name order.
    ///
    /// # Errors
    /// A folder or file cannot be read.
    pub fn tree(mut self, folder: &Path) -> Result<Self> {
        let mut entries: Vec<_> = fs::read_dir(folder)
            .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
            .with_context(|| format!("cannot read the folder {}", folder.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            self = self.with(entry.file_name().as_encoded_bytes());
            self = if entry.path().is_dir() { self.tree(&entry.path())?.with("end") } else { self.file(&entry.path())? };
        }
        Ok(self)
    }

    /// The key as text, for a file name.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())[..KEY_LENGTH].to_owned()
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_same_parts_give_the_same_key_and_others_another() {
        let key = |parts: &[&str]| parts.iter().fold(Key::new(), |key, part| key.with(part)).finish();
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a", "b"]), key(&["b", "a"]));
        assert!(is_key(&key(&[])));
    }

    #[test]
    fn a_renamed_or_changed_file_changes_the_key_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let key = || Key::new().tree(folder.path()).unwrap().finish();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a"), "1").unwrap();
        let first = key();
        assert_eq!(first, key());
        fs::rename(folder.path().join("sub/a"), folder.path().join("sub/b")).unwrap();
        let renamed = key();
        assert_ne!(first, renamed);
        fs::write(folder.path().join("sub/b"), "2").unwrap();
        assert_ne!(renamed, key());
    }

    #[test]
    fn two_who_ask_at_once_build_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_path_buf()).unwrap();
        let built = AtomicUsize::new(0);
        let key = Key::new().finish();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    cache
                        .once("thing", &key, |path| {
                            built.fetch_add(1, Ordering::SeqCst);
                            fs::write(path.join("file"), "x")?;
                            Ok(())
                        })
                        .unwrap()
                });
            }
        });
        assert_eq!(built.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failed_build_is_built_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_path_buf()).unwrap();
        let failed = cache.once("thing", "k", |path| {
            fs::write(path.join("half"), "x")?;
            anyhow::bail!("no network")
        });
        assert!(failed.is_err());
        let whole = cache.once("thing", "k", |path| Ok(fs::write(path.join("whole"), "x")?)).unwrap();
        assert!(whole.join("whole").exists() && !whole.join("half").exists());
    }

    #[test]
    fn the_place_follows_the_most_specific_variable() {
        let place = |set: &[(&str, &str)]| {
            let set: Vec<(String, PathBuf)> = set.iter().map(|(k, v)| ((*k).into(), v.into())).collect();
            Cache::place(|name| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
        };
        assert_eq!(place(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("QSCALER_CACHE", "/q")]), Some("/q".into()));
        assert_eq!(place(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some("/x/qscaler".into()));
        assert_eq!(place(&[("HOME", "/h")]), Some("/h/.cache/qscaler".into()));
        assert_eq!(place(&[]), None);
    }
}
