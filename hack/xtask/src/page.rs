//! A page of measured cells in the docs, and beside it its data. In: a page's name and a user's choices. Out: the arguments of the program that measures. Left to
//! others: measuring, writing (`qscaler-tests`).

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::source_root;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the page goes; none: to the docs, or, where it is a part and takes no older one's place, to `target`.
    pub report: Option<PathBuf>,
    /// Not everything is measured.
    pub part: bool,
    /// Cells take the place of an earlier run's.
    pub update: bool,
    /// End with one JSON object.
    pub json: bool,
}

/// Arguments for the program that writes the page `NAME.md`; `chosen` are flags with their values.
///
/// # Errors
/// The page's folder cannot be made.
pub fn words<const N: usize>(name: &str, options: &Options, chosen: [(&str, Vec<String>); N]) -> Result<Vec<String>> {
    let folder = if options.part && !options.update { "target" } else { "docs" };
    let report = options.report.clone().unwrap_or_else(|| format!("{folder}/{name}.md").into());
    let report = if report.is_absolute() { report } else { source_root().join(report) };
    if let Some(folder) = report.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut words: Vec<String> = vec!["--report".into(), report.to_string_lossy().into_owned()];
    words.extend(chosen.into_iter().flat_map(|(flag, values)| values.into_iter().flat_map(move |value| [flag.to_owned(), value])));
    words.extend(options.update.then(|| "--update".to_owned()));
    words.extend(options.json.then(|| "--json".to_owned()));
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(part: bool, update: bool) -> String {
        words("shapes", &Options { part, update, ..Options::default() }, [("--shape", vec!["tee".to_owned()])]).unwrap().join(" ")
    }

    #[test]
    fn a_part_does_not_replace_the_whole_page_unless_it_updates_it() {
        assert!(page(true, false).ends_with("/target/shapes.md --shape tee"));
        assert!(page(true, true).ends_with("/docs/shapes.md --shape tee --update"));
        assert!(page(false, false).contains("/docs/shapes.md"));
    }
}
