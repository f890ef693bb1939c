//! Definitions of other projects' kinds that the chart can make objects of: the Prometheus operator's and cert-manager's. In: nothing but the cache. Out: a folder with one file
//! for each, as those projects publish them in their Go modules. It leaves giving them to an API server to its callers.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cache::{Cache, Key};
use crate::golang::Go;
use crate::step::Step;

/// A module and its version, a folder in it, and files there.
const SOURCES: [(&str, &str, &[&str]); 2] = [
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
        &["monitoring.coreos.com_podmonitors.yaml", "monitoring.coreos.com_servicemonitors.yaml", "monitoring.coreos.com_prometheusrules.yaml"],
    ),
    ("github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds", &["cert-manager.io_certificates.yaml", "cert-manager.io_issuers.yaml"]),
];

/// The folder with the files.
///
/// # Errors
/// A module cannot be had, or has no such file any more.
pub fn ensure(cache: &Cache) -> Result<PathBuf> {
    let key = SOURCES.iter().fold(Key::new(), |key, (module, _, files)| key.with(module).with(files.join(" ")));
    cache.once("kinds", &key.finish(), |folder| {
        let (go, step) = (Go::ensure(cache)?, Step::start("fetching the definitions of the Prometheus operator and of cert-manager"));
        for (module, below, files) in SOURCES {
            let from = go.module_folder(module)?.join(below);
            for file in files {
                std::fs::copy(from.join(file), folder.join(file)).with_context(|| format!("{module} has no {below}/{file}"))?;
            }
        }
        step.done();
        Ok(())
    })
}
