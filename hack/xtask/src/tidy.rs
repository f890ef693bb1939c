//! Rules about the repository itself that no compiler checks. In: the source tree and `cargo tree`. Out: one sentence per broken rule. It leaves
//! formatting to rustfmt and code to clippy.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::exec::{self, output};

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

/// In these sources nothing is clamped: `clamp` panics where its bounds cross, as computed ones may, and a panic of the controller stops every workload.
const NO_CLAMP: &str = "core/src/";

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
    for file in output(Command::new("git").args(["ls-files", "*.rs"]).current_dir(root))?.lines() {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        if !text.trim_start().starts_with("//!") {
            broken.push(format!("{file} does not open by saying what it is for (//!)"));
        }
        if file.starts_with(NO_CLAMP) {
            broken.extend(
                clamps(&text)
                    .map(|line| format!("{file}:{line} calls clamp, which panics where bounds cross; use scale::numeric::within, or max and min")),
            );
        }
    }
    Ok(broken)
}

/// Lines that call `clamp`, counted from 1.
fn clamps(text: &str) -> impl Iterator<Item = usize> {
    text.lines().enumerate().filter(|(_, line)| line.contains(".clamp(") || line.contains("::clamp(")).map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clamp_is_found_where_it_is() {
        let text = "let a = within(b, c, d);\nlet a = b.clamp(c, d);\nlet a = f64::clamp(b, c, d); // clamp";
        assert_eq!(clamps(text).collect::<Vec<_>>(), [2, 3]);
    }
}
