//! Running other programs. In: a command. Out: its standard output, or an error with the command line and the end of what it printed.
//! It leaves to its callers what to run and for how long to wait.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Lines of a failed program's output that an error carries: compilers and apt say what is wrong in the last few.
const ERROR_LINES: usize = 30;

/// More patience than this is a mistyped number: the longest limits would be hours.
const LONGEST_PATIENCE: u32 = 20;

/// Runs a command to its end and answers its standard output.
///
/// # Errors
/// It cannot be started, or ends with another status than 0.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let printed = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    bail!("{shown}: {}\n{}", out.status, last_lines(&printed, ERROR_LINES))
}

/// Cargo in the source tree. Run by `cargo xtask`, it would see the variables that describe the package xtask to xtask: build scripts that look at such a
/// variable (ring's does) would run again, and all that depends on them be compiled again, whenever xtask is started in another way.
#[must_use]
pub fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(crate::source_root());
    let of_the_package = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|part| name.starts_with(part));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_the_package)) {
        command.env_remove(name);
    }
    command
}

/// The first executable file of that name in the folders of `PATH`.
pub fn which(name: &str) -> Option<PathBuf> {
    which_in(name, std::env::var_os("PATH").as_deref()?)
}

fn which_in(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| is_program(file))
}

/// Whether a path is a file that may be executed.
pub fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Writes a text file that may be executed.
///
/// # Errors
/// It cannot be written.
pub fn write_program(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).with_context(|| format!("cannot change {}", path.display()))
}

/// How many times longer than usual everything may take: `QSCALER_PATIENCE`, a whole number, else 1. A machine that is emulated sets it.
pub fn patience() -> u32 {
    std::env::var("QSCALER_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1).clamp(1, LONGEST_PATIENCE)
}

/// Asks `ready` until it answers a value, every `every`, for at most `limit`, which is multiplied by [`patience`]; `every` twice, since a look
/// costs as much more as all else.
///
/// # Errors
/// `ready` fails, or the limit is over: then `what` is named.
pub fn wait_for<T>(what: &str, limit: Duration, every: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let (limit, every) = (limit * patience(), every * patience() * patience());
    let start = Instant::now();
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("{what}: not there after {} s", limit.as_secs());
        }
        std::thread::sleep(every);
    }
}

/// The command line, for a message.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The last lines of a text, without the empty ones at its end.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_s_error_carries_what_it_printed() {
        let error = output(Command::new("sh").args(["-c", "echo first; echo why it failed >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("exit status: 3") && error.ends_with("why it failed"), "{error}");
    }

    #[test]
    fn cargo_does_not_see_the_package_that_runs_it() {
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some(), "cargo tells a test its package");
        let cargo = cargo(&["build"]);
        let removed = |name: &str| cargo.get_envs().any(|(key, value)| key == name && value.is_none());
        assert!(removed("CARGO_PKG_NAME") && removed("CARGO_MANIFEST_DIR") && !removed("PATH"));
    }

    #[test]
    fn only_the_end_of_a_long_output_is_kept() {
        assert_eq!(last_lines("a\nb\nc\n\n", 2), "b\nc");
        assert_eq!(last_lines("", 2), "");
    }

    #[test]
    fn a_program_is_an_executable_file_and_not_a_folder() {
        assert!(which_in("sh", OsStr::new("/nowhere:/bin")).is_some());
        assert!(which_in("bin", OsStr::new("/usr")).is_none());
    }

    #[test]
    fn waiting_ends_with_the_name_of_what_did_not_come() {
        let error = wait_for::<()>("the moon", Duration::ZERO, Duration::from_millis(1), || Ok(None)).unwrap_err().to_string();
        assert!(error.contains("the moon"));
    }
}
