//! Whether ARCHITECTURE.md leads to where it says. In: its text, and the paths and texts of the tree. Out: each name in backticks that leads nowhere. It
//! leaves links to the tests of the documentation.
//!
//! A name is a path (`tests/tests/e2e`) where it has a slash and begins with a folder of the tree, and a Rust path (`core::drain::fleet`) where it has a
//! double colon and begins with a crate's folder: module after module as files, at the end perhaps an item that the last file names.

use std::collections::BTreeMap;

use super::source::{code, is_word, mentions};

/// Names that lead nowhere; `files`: every file of the tree, and its text if it is Rust.
pub(super) fn broken_names(page: &str, files: &BTreeMap<String, String>) -> Vec<String> {
    let is_there = |path: &str| {
        files.contains_key(path) || files.range(format!("{path}/")..).next().is_some_and(|(file, _)| file.starts_with(&format!("{path}/")))
    };
    let names = page.split('`').skip(1).step_by(2);
    let broken = names.filter(|name| {
        if name.contains("::") {
            let segments: Vec<&str> = name.split("::").collect();
            let is_crate = files.contains_key(&format!("{}/Cargo.toml", segments[0]));
            return is_crate && segments.iter().all(|s| s.chars().all(is_word)) && !leads(&segments, files);
        }
        let folder = name.split_once('/').map(|(folder, _)| folder);
        folder.is_some_and(|folder| !folder.is_empty() && is_there(folder)) && !is_there(name.trim_end_matches('/'))
    });
    broken.map(|name| format!("ARCHITECTURE.md names `{name}`, which is not there")).collect()
}

/// Whether a Rust path leads to a module, or to an item that its last module names.
fn leads(segments: &[&str], files: &BTreeMap<String, String>) -> bool {
    let mut folder = format!("{}/src", segments[0]);
    let mut file = format!("{folder}/lib.rs");
    for (at, segment) in segments.iter().enumerate().skip(1) {
        let module = [format!("{folder}/{segment}.rs"), format!("{folder}/{segment}/mod.rs")].into_iter().find(|path| files.contains_key(path));
        match module {
            Some(module) => (file, folder) = (module, format!("{folder}/{segment}")),
            None => return at + 1 == segments.len() && files.get(&file).is_some_and(|text| mentions(&code(text), segment).next().is_some()),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_nowhere_is_found() {
        let files: BTreeMap<String, String> = [
            ("core/Cargo.toml", ""),
            ("core/src/lib.rs", "//! A drive.\npub mod drain;"),
            ("core/src/drain/mod.rs", "mod plan; pub use plan::{Plan, decide};"),
            ("core/src/drain/plan.rs", ""),
            ("tests/tests/e2e/main.rs", ""),
        ]
        .map(|(path, text)| (path.to_owned(), text.to_owned()))
        .into();
        let good =
            "`core::drain::plan` `core::drain::decide` `core::drain` `tests/tests/e2e` `QueueStats::sample` `qscaler.dev/marks` `/scale` `core`";
        assert_eq!(broken_names(good, &files), Vec::<String>::new());
        let bad = broken_names("`core::drive` `core::drain::plan::gone` `tests/tests/e3e` `core/src/main.rs`", &files);
        assert_eq!(bad.len(), 4, "{bad:?}");
    }
}
