//! Images for all processors in one archive. In: binaries of each processor. Out: an OCI archive whose index names one image of each, which registries,
//! containerd and Docker take. It leaves the format to [`crate::oci`].

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Arch;
use crate::cache::Cache;
use crate::images::{self, Image};
use crate::oci::{self, Layer, Platform};
use crate::step::Step;

/// Name of an image's archive.
pub fn file(image: Image, version: &str) -> String {
    format!("{}-{version}.oci.tar", image.name())
}

/// Writes the archive of one image.
///
/// # Errors
/// A binary cannot be read, or the archive cannot be written.
pub fn write(cache: &Cache, out: &Path, image: Image, version: &str, compiled: &[(Arch, PathBuf)], licences: &str) -> Result<()> {
    let reference = format!("{}/{}:{version}", super::REGISTRY, image.name());
    let step = Step::start(format!("making the image {reference}"));
    let mut platforms = Vec::new();
    for (arch, folder) in compiled {
        let base = images::static_base(&images::certificate_authorities(cache)?)
            .text("licenses/LICENSE", 0o644, include_str!("../../../../LICENSE"))
            .text("licenses/THIRD-PARTY-LICENSES.txt", 0o644, licences);
        let programs = image
            .programs()
            .iter()
            .fold(Layer::new(), |layer, program| layer.file(&format!("usr/local/bin/{program}"), 0o755, &folder.join(program)));
        platforms.push(Platform { architecture: arch.oci(), layers: vec![base, programs] });
    }
    let mut run = image.run();
    run.labels = labels(image, version);
    oci::write_index(out, &reference, &platforms, &run)?;
    step.done();
    Ok(())
}

/// What registries show, and by which they find the sources.
fn labels(image: Image, version: &str) -> Vec<(String, String)> {
    let about = match image {
        Image::QscalerSidecar => "QScaler's sidecar: signals, holds and measures one worker",
        _ => "QScaler's control plane: webhook, controller, certs",
    };
    [
        ("title", image.name()),
        ("description", about),
        ("version", version),
        ("licenses", env!("CARGO_PKG_LICENSE")),
        ("source", env!("CARGO_PKG_REPOSITORY")),
    ]
    .map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.to_owned()))
    .to_vec()
}
