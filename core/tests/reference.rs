//! The reference pages of names: annotations and Events, from the words in `core/src/names.rs`; and that the page of conditions has every condition. `UPDATE_GOLDEN=1` rewrites them.

use qscaler_core::names::annotation;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const NAMES: &str = include_str!("../src/names.rs");

fn docs(page: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page)
}

/// Value and documentation of every text constant of a module of `names`.
fn constants(module: &str) -> Vec<(String, String)> {
    let (_, rest) = NAMES.split_once(&format!("pub mod {module} {{\n")).expect("names has this module");
    let (body, _) = rest.split_once("\n}\n").expect("a module ends");
    let (mut found, mut words) = (Vec::new(), Vec::new());
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            words.push(text.trim());
        } else if line.starts_with("pub const") {
            if let Some(value) = line.split_once(": &str = \"").and_then(|(_, rest)| rest.strip_suffix("\";")) {
                found.push((value.to_owned(), words.join(" ")));
            }
            words.clear();
        }
    }
    assert!(found.len() > 5, "the constants of {module} are not read: {found:?}");
    found
}

fn check(page: &str, text: &str) {
    let path = docs(page);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("the page can be written");
    }
    assert_eq!(std::fs::read_to_string(&path).expect("UPDATE_GOLDEN=1 writes it"), text, "{page}: UPDATE_GOLDEN=1 writes it");
}

#[test]
fn the_page_of_annotations_has_every_annotation() {
    let all = constants("annotation");
    let described =
        |name: &str| all.iter().find(|(value, _)| value == name).map_or_else(|| panic!("{name} has no words"), |(_, words)| words.clone());
    let mut page = "# Annotations\n\nOn the Deployment's metadata; the same key on the pod template wins. What each does in full, with its default, is in the README's table.\n\n| annotation | meaning |\n|---|---|\n".to_owned();
    for name in annotation::ALL {
        let _ = writeln!(page, "| `{name}` | {} |", described(name).replace('|', "\\|"));
    }
    page.push_str("\nWritten by the system on pods, and never read as yours:\n\n| annotation | meaning |\n|---|---|\n");
    for name in annotation::SYSTEM {
        let _ = writeln!(page, "| `{name}` | {} |", described(name).replace('|', "\\|"));
    }
    check("reference/annotations.md", &page);
    let readme = std::fs::read_to_string(docs("../README.md")).expect("the README can be read");
    for name in annotation::ALL {
        let key = name.rsplit('/').next().unwrap_or(name);
        assert!(readme.contains(&format!("`{key}`")), "the README's table has no {key}");
    }
}

#[test]
fn the_page_of_events_has_every_event() {
    let mut page = "# Events\n\nOn the Deployment, or on a pod where the note names one; `kubectl events --for deployment/NAME` shows them, `kubectl qscaler explain NAME` the last.\n\n| reason | meaning |\n|---|---|\n".to_owned();
    for (value, words) in constants("event") {
        let _ = writeln!(page, "| `{value}` | {} |", words.replace('|', "\\|"));
    }
    check("reference/events.md", &page);
}

#[test]
fn the_page_of_conditions_has_every_condition() {
    let page = std::fs::read_to_string(docs("conditions.md")).expect("the page can be read");
    for (value, words) in constants("condition") {
        // Some constants are reasons of a condition.
        assert!(page.contains(&value), "docs/conditions.md has no {value}: {words}");
    }
}
