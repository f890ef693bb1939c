//! Inputs to begin with. In: folders of the tree. Out: bytes of each target's inputs, always in the same order. Left to others: changing them.

use std::path::{Path, PathBuf};

/// Folder of this crate.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The corpus of a target: each file of its folder, and what the other crates' tests have. A file of the folder with `---` lines holds several.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for file in files(&here().join("corpus").join(target)) {
        let text = std::fs::read(&file).unwrap_or_default();
        match std::str::from_utf8(&text) {
            Ok(text) => all.extend(text.split("\n---\n").map(|one| one.trim_end_matches('\n').as_bytes().to_vec())),
            Err(_) => all.push(text),
        }
    }
    if target == "messages" {
        all.extend(files(&here().join("../core/tests/messages")).iter().filter_map(|file| std::fs::read(file).ok()));
    }
    all
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    all.sort();
    all
}
