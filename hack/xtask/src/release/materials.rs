//! What a program is made of. In: `cargo metadata` and `Cargo.lock`. Out: its bill of materials (CycloneDX 1.5), and the licences of all that is in it, with their
//! texts. Only what is linked counts: no tests, no build scripts. It leaves whether a licence is allowed to `deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Arch;
use crate::cache::hex;
use crate::{exec, source_root};

/// Names of files in a package that are licences, in lower case: how they begin.
const TEXTS: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];
/// A longer one is no licence.
const TEXT_MAX: u64 = 200_000;

/// All packages, by cargo's identifier.
pub struct Book {
    packages: BTreeMap<String, Value>,
    /// What each links.
    links: BTreeMap<String, Vec<String>>,
    /// Checksums of `Cargo.lock`, by name and version.
    sums: BTreeMap<(String, String), String>,
}

impl Book {
    /// Reads it for what releases are made for.
    ///
    /// # Errors
    /// Cargo fails.
    pub fn read() -> Result<Self> {
        let mut words = vec!["metadata", "--format-version=1", "--locked"];
        for arch in Arch::ALL {
            words.extend(["--filter-platform", arch.target()]);
        }
        let metadata: Value = serde_json::from_str(&exec::output(&mut exec::cargo(&words))?)?;
        let lock = fs::read_to_string(source_root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
        Ok(Self::of(&metadata, &lock))
    }

    fn of(metadata: &Value, lock: &str) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let id = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let linked = |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        Self {
            packages: list(&metadata["packages"]).into_iter().map(|package| (id(&package, "id"), package)).collect(),
            links: list(&metadata["resolve"]["nodes"])
                .iter()
                .map(|node| (id(node, "id"), list(&node["deps"]).iter().filter(|d| linked(d)).map(|d| id(d, "pkg")).collect()))
                .collect(),
            sums: sums(lock),
        }
    }

    /// Identifiers of these programs' packages and of all that they link.
    fn closure(&self, programs: &[&str]) -> Result<BTreeSet<&str>> {
        let mut open = Vec::new();
        for program in programs {
            let found = self.packages.iter().find(|(_, package)| package["name"] == *program && package["source"].is_null());
            open.push(found.with_context(|| format!("the workspace has no package {program}"))?.0.as_str());
        }
        let mut all = BTreeSet::new();
        while let Some(id) = open.pop() {
            if all.insert(id) {
                open.extend(self.links.get(id).into_iter().flatten().map(String::as_str));
            }
        }
        Ok(all)
    }

    /// The bill of materials of one artifact, which holds these programs.
    ///
    /// # Errors
    /// A program is none of the workspace's.
    pub fn bill(&self, artifact: &str, version: &str, programs: &[&str]) -> Result<String> {
        let closure = self.closure(programs)?;
        let reference = |id: &str| self.purl(id);
        let root = format!("pkg:generic/{artifact}@{version}");
        let mut components = Vec::new();
        let mut dependencies = Vec::new();
        let direct: Vec<String> =
            closure.iter().filter(|id| programs.iter().any(|p| self.packages[**id]["name"] == *p)).map(|id| reference(id)).collect();
        dependencies.push(json!({"ref": root, "dependsOn": direct}));
        for id in &closure {
            components.push(self.component(id));
            let links: BTreeSet<String> = self.links.get(*id).into_iter().flatten().map(|id| reference(id)).collect();
            dependencies.push(json!({"ref": reference(id), "dependsOn": links}));
        }
        let mut bill = json!({
            "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
            "metadata": {
                "component": {"type": "application", "bom-ref": root, "name": artifact, "version": version, "purl": root,
                    "licenses": [{"expression": env!("CARGO_PKG_LICENSE")}]},
                "tools": {"components": [{"type": "application", "name": "cargo xtask release", "version": version}]},
            },
            "components": components, "dependencies": dependencies,
        });
        // The same materials have the same number.
        let digest = hex(&Sha256::digest(bill.to_string()));
        bill["serialNumber"] =
            json!(format!("urn:uuid:{}-{}-8{}-8{}-{}", &digest[..8], &digest[8..12], &digest[13..16], &digest[17..20], &digest[20..32]));
        Ok(format!("{bill:#}\n"))
    }

    fn purl(&self, id: &str) -> String {
        let package = &self.packages[id];
        format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version"))
    }

    fn component(&self, id: &str) -> Value {
        let package = &self.packages[id];
        let mut component = json!({"type": "library", "bom-ref": self.purl(id), "name": text(package, "name"), "version": text(package, "version"), "purl": self.purl(id)});
        if let Some(licence) = expression(package) {
            component["licenses"] = json!([{"expression": licence}]);
        }
        if let Some(sum) = self.sums.get(&(text(package, "name").to_owned(), text(package, "version").to_owned())) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
        }
        component
    }

    /// Who made what is in these programs, under which licence, and the licences' texts, each once.
    ///
    /// # Errors
    /// A package names no licence, or its files cannot be read.
    pub fn licences(&self, programs: &[&str]) -> Result<String> {
        let mut list =
            String::from("QScaler's programs contain the following packages. Their licences' texts, as the packages carry them, stand below.\n\n");
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for id in self.closure(programs)? {
            let package = &self.packages[id];
            if package["source"].is_null() {
                continue;
            }
            let name = format!("{} {}", text(package, "name"), text(package, "version"));
            let licence = expression(package).with_context(|| format!("{name} names no licence"))?;
            writeln!(list, "{name}: {licence}; {}", package["repository"].as_str().unwrap_or("no repository named"))?;
            for found in texts_of(Path::new(text(package, "manifest_path")))? {
                texts.entry(found).or_default().push(name.clone());
            }
        }
        ensure!(!texts.is_empty(), "no package carries the text of a licence: are their sources there?");
        for (found, names) in texts {
            write!(list, "\n{}\n{}\n\n{}\n", "=".repeat(80), names.join(", "), found.trim_end())?;
        }
        Ok(list)
    }
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or_default()
}

/// The licence as an SPDX expression; older packages write `/` for `OR`.
fn expression(package: &Value) -> Option<String> {
    package["license"].as_str().map(|licence| licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR "))
}

/// Texts of licences beside a manifest.
fn texts_of(manifest: &Path) -> Result<Vec<String>> {
    let folder = manifest.parent().context("a manifest has a folder")?;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let is_text = TEXTS.iter().any(|start| name.starts_with(start)) && entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() < TEXT_MAX);
        if is_text && let Ok(text) = fs::read_to_string(entry.path()) {
            found.push(text.replace("\r\n", "\n"));
        }
    }
    found.sort();
    Ok(found)
}

/// Checksums of a lock file, by name and version.
fn sums(lock: &str) -> BTreeMap<(String, String), String> {
    let value =
        |block: &str, key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')).map(str::to_owned);
    lock.split("[[package]]").filter_map(|block| Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, licence: &str, external: bool) -> Value {
        json!({"id": name, "name": name, "version": "1.0.0", "license": licence, "source": external.then_some("registry"),
            "manifest_path": concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")})
    }

    fn book() -> Book {
        let dependency = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("app", "Apache-2.0", false), package("a", "MIT/Apache-2.0", true), package("b", "MIT", true), package("test", "GPL-3.0", true)],
            "resolve": {"nodes": [
                {"id": "app", "deps": [dependency("a", Value::Null), dependency("test", json!("dev"))]},
                {"id": "a", "deps": [dependency("b", Value::Null)]}, {"id": "b", "deps": []}, {"id": "test", "deps": []}]},
        });
        Book::of(
            &metadata,
            "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n[[package]]\nname = \"app\"\nversion = \"1.0.0\"\n",
        )
    }

    #[test]
    fn a_bill_lists_what_is_linked_and_nothing_else() {
        let bill: Value = serde_json::from_str(&book().bill("image", "2.0.0", &["app"]).expect("a bill")).expect("JSON");
        let names: Vec<_> = bill["components"].as_array().expect("components").iter().map(|c| c["name"].as_str().unwrap_or_default()).collect();
        assert_eq!(names, ["a", "app", "b"]);
        assert_eq!(bill["components"][0]["licenses"], json!([{"expression": "MIT OR Apache-2.0"}]));
        assert_eq!(bill["components"][0]["hashes"][0]["content"], "00ff");
        assert_eq!(bill["dependencies"][0], json!({"ref": "pkg:generic/image@2.0.0", "dependsOn": ["pkg:cargo/app@1.0.0"]}));
        assert_eq!(bill["serialNumber"].as_str().map(str::len), Some("urn:uuid:".len() + 36));
        assert!(book().bill("image", "2.0.0", &["other"]).is_err());
    }

    #[test]
    fn licences_are_of_others_and_each_text_stands_once() {
        let text = book().licences(&["app"]).expect("licences");
        assert!(text.contains("a 1.0.0: MIT OR Apache-2.0") && text.contains("b 1.0.0: MIT;") && !text.contains("app 1.0.0:"), "{text}");
        assert!(text.contains("\na 1.0.0, b 1.0.0\n"), "the same text for both");
    }
}
