//! A release's folder -> a registry. In: the folder, where to. Out: images with their index and the chart in the registry, and a file with their digests, which
//! the workflow signs. Logins are those of `docker login` (`$DOCKER_CONFIG/config.json`), which crane and Helm read. It leaves files to the release's page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{chart_file, image};
use crate::cache::{Cache, Key};
use crate::golang::Go;
use crate::images::Image;
use crate::step::Step;
use crate::{exec, helm};

/// Copies images between folders and registries.
const CRANE: &str = "github.com/google/go-containerregistry/cmd/crane@v0.22.1";
/// References by digest, a line each: what there is to sign.
pub const DIGESTS: &str = "DIGESTS";

/// crane, built once.
///
/// # Errors
/// It cannot be built.
pub fn crane(cache: &Cache) -> Result<PathBuf> {
    let folder = cache.once("crane", &Key::new().with(CRANE).finish(), |folder| {
        let go = Go::ensure(cache)?;
        let step = Step::start("building crane (once; about a minute)");
        go.install(CRANE, folder)?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join("crane"))
}

/// Publishes `folder` below `registry` (`HOST/PATH`): images as `REGISTRY/NAME:VERSION`, the chart as `REGISTRY/charts/qscaler:VERSION`. `plain`: by HTTP.
///
/// # Errors
/// A file is missing, or the registry refuses it.
pub fn publish(cache: &Cache, folder: &Path, version: &str, registry: &str, plain: bool) -> Result<Vec<String>> {
    let (crane, helm) = (crane(cache)?, helm::three(cache)?);
    let mut digests = Vec::new();
    for name in Image::PROGRAMS {
        let reference = format!("{registry}/{}:{version}", name.name());
        let step = Step::start(format!("pushing {reference}"));
        let layout = tempfile::tempdir()?;
        let archive = folder.join(image::file(name, version));
        exec::output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(layout.path()))?;
        let mut push = Command::new(&crane);
        push.arg("push").args(plain.then_some("--insecure")).arg(layout.path()).arg(&reference);
        // It answers the reference by digest.
        let pushed = exec::output(&mut push)?;
        digests.push(
            pushed.lines().find(|line| line.contains("@sha256:")).with_context(|| format!("crane named no digest: {pushed}"))?.trim().to_owned(),
        );
        step.done();
    }
    let target = format!("oci://{registry}/charts");
    let step = Step::start(format!("pushing the chart to {target}"));
    let mut push = Command::new(helm);
    push.arg("push").arg(folder.join(chart_file(version))).arg(&target).args(plain.then_some("--plain-http"));
    let output = push.output().context("cannot run helm")?;
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "helm push: {words}");
    let digest = words.lines().find_map(|line| line.trim().strip_prefix("Digest: ")).with_context(|| format!("helm named no digest: {words}"))?;
    digests.push(format!("{registry}/charts/qscaler@{}", digest.trim()));
    step.done();
    fs::write(folder.join(DIGESTS), digests.join("\n") + "\n").context("cannot write the digests")?;
    Ok(digests)
}
