//! The documentation as a reader uses it: every annotation in it is valid, every command line of ours is understood, every link leads somewhere.

use crate::Cli;
use clap::Parser;
use qscaler_core::config::{Parsed, parse};
use serde_yaml::Value;
use std::collections::BTreeMap;
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

#[test]
fn every_page_is_in_the_book() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).expect("the book has a summary");
    for (path, _) in pages() {
        let Ok(inside) = path.strip_prefix(root().join("docs")) else { continue };
        let name = inside.display().to_string();
        assert!(name == "SUMMARY.md" || summary.contains(&format!("]({name})")), "docs/SUMMARY.md has no {name}");
    }
}
