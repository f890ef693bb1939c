//! Rules about the repository itself that no compiler checks. In: the source tree and `cargo tree`. Out: one sentence per broken rule. It leaves
//! formatting to rustfmt and code to clippy.
//!
//! Who may depend on what (here); no file longer than a reader's patience, the wall clock in one file of a crate, no clamp to computed bounds, no driver that
//! decides by what the user asked for (`files`), no time and no verdict in the controller's flows (`flows`), no two types of one name (`types`); no circle of modules (`circles`); ARCHITECTURE.md names what is there (`architecture`).

mod architecture;
mod circles;
mod files;
mod flows;
mod source;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::exec::{self, output};
use circles::{Crate, circles};

/// Packages that only these crates may depend on directly: what draws the architecture.
const WRAPPERS: &[(&str, &[&str])] =
    &[("lapin", &["qscaler-broker"]), ("redis", &["qscaler-broker"]), ("axum", &["qscaler-webhook"]), ("rcgen", &["qscaler-certs", "xtask"])];
/// Packages that must not be anywhere below a crate: the sidecar runs in every worker's pod and has no Kubernetes rights; `core` decides and does nothing.
const ABSENT: &[(&str, &[&str])] = &[
    ("qscaler-sidecar", &["kube", "axum", "k8s-openapi", "rcgen"]),
    ("qscaler-core", &["tokio", "kube", "hyper", "redis", "lapin"]),
    ("qscaler-webhook", &["lapin", "redis"]),
];
/// TLS providers other than ring, anywhere.
const PROVIDERS: &[&str] = &["aws-lc-rs", "openssl-sys", "native-tls"];

/// Every broken rule.
///
/// # Errors
/// The tree cannot be read, or cargo fails.
pub fn broken_rules(root: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let cargo = |args: &[&str]| output(exec::cargo(args).current_dir(root));
    let metadata: serde_json::Value = serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--no-deps"])?)?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for dependency in dependencies.filter(|d| d["kind"].is_null()) {
            let used = dependency["name"].as_str().unwrap_or_default();
            if let Some((_, allowed)) = WRAPPERS.iter().find(|(p, _)| *p == used)
                && !allowed.contains(&name)
            {
                broken.push(format!("{name} depends on {used}; only {} may", allowed.join(", ")));
            }
        }
    }
    for (package, absent) in ABSENT {
        let tree = cargo(&["tree", "-p", package, "--edges=normal", "--prefix=none", "--format={p}"])?;
        let names: Vec<&str> = tree.lines().filter_map(|l| l.split_whitespace().next()).collect();
        broken.extend(absent.iter().filter(|a| names.contains(a)).map(|a| format!("{package} carries {a}")));
    }
    let tree = cargo(&["tree", "--workspace", "--edges=normal,build", "--prefix=none", "--format={p}"])?;
    let names: Vec<&str> = tree.lines().filter_map(|l| l.split_whitespace().next()).collect();
    broken.extend(PROVIDERS.iter().filter(|p| names.contains(p)).map(|p| format!("{p} is in the tree; ring is the one TLS provider")));
    let mut files = BTreeMap::new();
    for file in output(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root))?.lines() {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        broken.extend(files::broken(file, &text));
        files.insert(file.to_owned(), text);
    }
    broken.extend(files::broken_lists(&files));
    broken.extend(flows::broken(&files));
    broken.extend(types::broken(&files, &needs(&metadata, root)));
    broken.extend(architecture::broken_names(files.get("ARCHITECTURE.md").map_or("", String::as_str), &files));
    let targets = metadata["packages"].as_array().into_iter().flatten().flat_map(|p| p["targets"].as_array().into_iter().flatten());
    for root_file in targets.filter_map(|target| target["src_path"].as_str()) {
        let modules = Crate::read(Path::new(root_file), &|path| std::fs::read_to_string(path).ok());
        broken.extend(circles(&modules.arrows()).iter().map(|circle| sentence(circle, root)));
    }
    Ok(broken)
}

/// The folder of each crate of ours, and those of the crates that it depends on, if only through others.
fn needs(metadata: &serde_json::Value, root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let folder = |manifest: &str| Path::new(manifest).parent().and_then(|path| path.strip_prefix(root).ok()).map(|path| path.display().to_string());
    let packages = || metadata["packages"].as_array().into_iter().flatten();
    let folders: BTreeMap<&str, String> = packages().filter_map(|p| Some((p["name"].as_str()?, folder(p["manifest_path"].as_str()?)?))).collect();
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let used =
            package["dependencies"].as_array().into_iter().flatten().filter(|d| d["kind"].is_null()).filter_map(|d| folders.get(d["name"].as_str()?));
        if let Some(own) = package["name"].as_str().and_then(|name| folders.get(name)) {
            needs.insert(own.clone(), used.cloned().collect());
        }
    }
    // As often as the longest way from crate to crate.
    for _ in 0..needs.len() {
        let through: Vec<(String, BTreeSet<String>)> = needs
            .iter()
            .map(|(own, direct)| (own.clone(), direct.iter().filter_map(|below| needs.get(below)).flatten().cloned().collect()))
            .collect();
        for (own, more) in through {
            needs.entry(own).or_default().extend(more);
        }
    }
    needs
}

/// A circle in words.
fn sentence(circle: &[(String, String, usize)], root: &Path) -> String {
    let within = |file: &str| Path::new(file).strip_prefix(root).map_or_else(|_| file.to_owned(), |path| path.display().to_string());
    let arrows: Vec<String> = circle.iter().map(|(from, to, line)| format!("{}:{line} -> {}", within(from), within(to))).collect();
    format!("a circle of modules: {}", arrows.join(", "))
}
