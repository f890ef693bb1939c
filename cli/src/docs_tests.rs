//! The documentation as a reader uses it: every annotation in it is valid, every command line of ours is understood, every link leads somewhere.

use crate::Cli;
use clap::Parser;
use qscaler_core::config::{Parsed, parse};
use serde_yaml::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page: its path and its text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut files: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].iter().map(|name| root().join(name)).collect();
    for folder in ["docs", "docs/adr", "docs/reference"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("the folder is there");
        files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(&path).expect("a page can be read"));
    files.into_iter().map(read).collect()
}

/// The fenced blocks of a page, each with its language.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let (mut out, mut open): (Vec<(&str, String)>, bool) = (Vec::new(), false);
    for line in text.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(language) if !open => {
                out.push((language.trim(), String::new()));
                open = true;
            }
            Some(_) => open = false,
            None if open => {
                if let Some((_, block)) = out.last_mut() {
                    block.push_str(line);
                    block.push('\n');
                }
            }
            None => {}
        }
    }
    out
}

/// Commands of a block: continued lines joined, comments left out.
fn commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let bare = |line: &str| line.split(" # ").next().unwrap_or(line).trim().trim_start_matches("$ ").to_owned();
    joined.lines().map(bare).filter(|line| !line.is_empty()).collect()
}

#[test]
fn every_manifest_parses_and_its_annotations_are_valid() {
    let mut seen = 0;
    for (path, text) in pages() {
        for (_, block) in blocks(&text).iter().filter(|(language, _)| *language == "yaml") {
            for document in serde_yaml::Deserializer::from_str(block) {
                let value: Value = serde::Deserialize::deserialize(document).unwrap_or_else(|e| panic!("{}: {e}:\n{block}", path.display()));
                let annotations = value.get("metadata").and_then(|m| m.get("annotations")).and_then(Value::as_mapping).cloned().unwrap_or_default();
                let text_of = |v: &Value| {
                    v.as_str().map(str::to_owned).unwrap_or_else(|| panic!("{}: {v:?} is no text: Kubernetes refuses it", path.display()))
                };
                let own: BTreeMap<String, String> = annotations.iter().map(|(k, v)| (text_of(k), text_of(v))).collect();
                seen += usize::from(!own.is_empty());
                // A part of a manifest shows what it is about, and leaves out what is required.
                if own.contains_key("qscaler.dev/queue") {
                    let parsed = parse(&own, &BTreeMap::new());
                    assert!(matches!(parsed, Parsed::Valid(_)), "{}: {parsed:?}", path.display());
                }
            }
        }
    }
    assert!(seen >= 10, "only {seen} examples were found");
}

#[test]
fn every_command_line_of_ours_is_understood() {
    let mut seen = 0;
    for (path, text) in pages() {
        for (_, block) in blocks(&text) {
            for line in commands(&block).iter().filter(|line| line.starts_with("kubectl qscaler ") && !line.contains(['[', '<'])) {
                let words = line.split(" | ").next().unwrap_or(line).split_whitespace().skip(1);
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{}: {line}: {error}", path.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "only {seen} command lines were found");
}

#[test]
fn every_annotation_on_a_command_line_is_one_of_ours_and_valid() {
    let mut seen = 0;
    for (path, text) in pages() {
        for (_, block) in blocks(&text) {
            for line in commands(&block) {
                let adopts = line.starts_with("kubectl qscaler adopt ");
                let annotated = line.contains(" annotate deployment ") && line.contains("qscaler.dev/queue=");
                if !adopts && !annotated {
                    continue;
                }
                let key = |key: &str| if adopts { format!("qscaler.dev/{key}") } else { key.to_owned() };
                let pairs = line.split_whitespace().filter(|word| adopts || word.starts_with("qscaler.dev/")).filter_map(|word| word.split_once('='));
                let own: BTreeMap<String, String> = pairs.map(|(name, value)| (key(name), value.to_owned())).collect();
                let parsed = parse(&own, &BTreeMap::new());
                assert!(matches!(parsed, Parsed::Valid(_)), "{}: {line}: {parsed:?}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 2, "only {seen} were found");
}

/// What a heading's link is called: as GitHub and mdbook make it.
fn anchor(heading: &str) -> String {
    let lower = heading.trim().to_lowercase().replace('`', "");
    lower
        .chars()
        .filter_map(|c| {
            if c == ' ' {
                Some('-')
            } else if c.is_alphanumeric() || c == '-' || c == '_' {
                Some(c)
            } else {
                None
            }
        })
        .collect()
}

/// Targets of the links of a page, code left out.
fn links(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, next)) = after.split_once(')') else { break };
            out.push(target.to_owned());
            rest = next;
        }
    }
    out
}

#[test]
fn every_link_leads_to_a_page_and_a_heading_that_are_there() {
    let mut seen = 0;
    for (path, text) in pages() {
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').map_or((link.as_str(), None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { path.clone() } else { path.parent().expect("a page is in a folder").join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if let Some(heading) = heading {
                let there = std::fs::read_to_string(&target).expect("a page can be read");
                let known: Vec<String> =
                    there.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect();
                assert!(known.iter().any(|one| one == heading), "{}: {link}: no such heading; there are {known:?}", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen >= 50, "only {seen} links were found");
}

/// What people read without a checkout: notes after an installation, values, alerts. They name pages by their address, and never by a path.
#[test]
fn every_address_of_our_own_pages_leads_to_a_page_and_a_heading_that_are_there() {
    const OURS: &str = "https://github.com/qscaler/qscaler/blob/main/";
    let mut seen = 0;
    let chart = ["templates/NOTES.txt", "values.yaml", "alerts/qscaler.yaml"].map(|name| root().join("charts/qscaler").join(name));
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(&path).expect("a file of the chart"));
    for (path, text) in chart.map(read).into_iter().chain(pages()) {
        for rest in text.split(OURS).skip(1) {
            let address =
                rest.split(|c: char| c.is_whitespace() || ")`\"'>".contains(c)).next().unwrap_or_default().trim_end_matches(['.', ',', ':']);
            let (file, heading) = address.split_once('#').map_or((address, None), |(file, heading)| (file, Some(heading)));
            let there = std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{}: {address}: {e}", path.display()));
            let known: Vec<String> = there.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect();
            assert!(heading.is_none_or(|heading| known.iter().any(|one| one == heading)), "{}: {address}: no such heading", path.display());
            seen += 1;
        }
        let has_path = text.replace(&format!("{OURS}docs/"), "").contains("docs/");
        assert!(path.extension().is_some_and(|end| end == "md") || !has_path, "{}: a path leads nobody anywhere who has no checkout", path.display());
    }
    assert!(seen >= 25, "only {seen} were found");
}

#[test]
fn every_page_is_in_the_book() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).expect("the book has a summary");
    for (path, _) in pages() {
        let Ok(inside) = path.strip_prefix(root().join("docs")) else { continue };
        let name = inside.display().to_string();
        assert!(name == "SUMMARY.md" || summary.contains(&format!("]({name})")), "docs/SUMMARY.md has no {name}");
    }
}

/// Names of functions in all sources of the tree.
fn functions(folder: &Path, out: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            functions(&path, out);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            out.extend(text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next()).map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_a_page_names_is_there_and_every_row_about_security_names_one() {
    let mut known = BTreeSet::new();
    functions(&root(), &mut known);
    let mut seen = 0;
    for (path, text) in pages() {
        for word in text.split('`').skip(1).step_by(2) {
            let is_name = word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            // A sentence: no metric has so many words.
            if is_name && word.matches('_').count() >= 6 {
                assert!(known.contains(word), "{}: there is no test {word}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 50, "only {seen} names of tests were found");
    let page = std::fs::read_to_string(root().join("SECURITY.md")).expect("the page");
    let (_, table) = page.split_once("## Where each of these is tested").expect("SECURITY.md has the table");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what is said")).collect();
    assert!(rows.len() >= 20, "{rows:?}");
    for row in rows {
        let cell = row.rsplit(" | ").next().expect("a cell");
        assert!(cell.contains('`') || cell.contains("not tested"), "names no test: {row}");
    }
}

#[test]
fn the_network_policy_to_copy_selects_our_pods_and_opens_their_port() {
    let page = std::fs::read_to_string(root().join("docs/security.md")).expect("the page");
    let all = blocks(&page);
    let policy = all.iter().find(|(language, block)| *language == "yaml" && block.contains("kind: NetworkPolicy")).expect("a policy");
    let policy: serde_json::Value = serde_yaml::from_str(&policy.1).expect("it parses");
    assert_eq!(policy["spec"]["podSelector"]["matchExpressions"][0]["key"], qscaler_core::names::LABEL_WORKLOAD);
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], qscaler_core::names::sidecar::PORT);
}
