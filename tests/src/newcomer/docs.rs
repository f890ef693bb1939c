//! Commands and annotations as the pages have them. In: a page's text and a heading. Out: lines for a shell, and annotations. A page that no longer has them is an error: what
//! is tried is what is written. Left to others: doing it (`run`).

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;

/// The text of a page of this tree, such as `docs/upgrade.md`.
///
/// # Errors
/// It cannot be read.
pub fn page(path: &str) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))
}

/// The commands of the first block after this heading (or any other line that begins so): continued lines joined, comments left out.
///
/// # Errors
/// There is none before the next heading.
pub fn commands(page: &str, heading: &str) -> Result<Vec<String>> {
    let block = block(page, heading, &["", "sh"])?;
    let joined = block.join("\n").replace("\\\n", " ");
    let bare = |line: &str| line.split(" # ").next().unwrap_or(line).trim().to_owned();
    let lines: Vec<String> = joined.lines().map(bare).filter(|line| !line.is_empty()).collect();
    ensure!(!lines.is_empty(), "the block after {heading:?} is empty");
    Ok(lines)
}

/// The annotations `qscaler.dev/…` of the first manifest after this heading, without the prefix.
///
/// # Errors
/// There is none before the next heading.
pub fn annotations(page: &str, heading: &str) -> Result<BTreeMap<String, String>> {
    let block = block(page, heading, &["yaml"])?;
    let found = block.iter().filter_map(|line| line.trim().strip_prefix("qscaler.dev/")?.split_once(':'));
    let found: BTreeMap<String, String> = found.map(|(key, value)| (key.to_owned(), value.trim().trim_matches('"').to_owned())).collect();
    ensure!(!found.is_empty(), "the manifest after {heading:?} has no annotation of ours");
    Ok(found)
}

/// The first YAML block after this heading, as it stands: a file that a reader writes.
///
/// # Errors
/// There is none before the next heading.
pub fn file(page: &str, heading: &str) -> Result<String> {
    Ok(block(page, heading, &["yaml"])?.join("\n") + "\n")
}

/// The lines of the first fenced block in one of these languages after a line that begins so.
fn block<'p>(page: &'p str, heading: &str, languages: &[&str]) -> Result<Vec<&'p str>> {
    let mut lines = page.lines().skip_while(|line| !line.starts_with(heading));
    lines.next().with_context(|| format!("no line begins with {heading:?}"))?;
    let mut open: Option<(bool, Vec<&str>)> = None;
    for line in lines {
        match (line.trim().strip_prefix("```"), open.as_mut()) {
            (Some(language), None) => open = Some((languages.contains(&language.trim()), Vec::new())),
            (Some(_), Some((true, found))) => return Ok(std::mem::take(found)),
            (Some(_), Some(_)) => open = None,
            (None, Some((_, found))) => found.push(line),
            (None, None) if line.starts_with("## ") || line.starts_with("# ") => break,
            (None, None) => {}
        }
    }
    anyhow::bail!("no block in {languages:?} follows {heading:?}")
}

/// The command with names of one's own in place of those on the page; each must be there.
///
/// # Errors
/// One is not there: the page says something else than before.
pub fn with(command: &str, names: &[(&str, &str)]) -> Result<String> {
    names.iter().try_fold(command.to_owned(), |text, (from, to)| {
        ensure!(text.contains(from), "{command:?} has no {from:?}");
        Ok(text.replace(from, to))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n```yaml\na: 1\n```\n## Install\nwords\n```sh\nhelm install x \\\n  --set a=b # why\n\nkubectl get pods\n```\n## Celery\n```yaml\nmetadata:\n  annotations:\n    qscaler.dev/queue: orders\n    qscaler.dev/min-replicas: \"0\"\n```\n## Last\nnothing\n";

    #[test]
    fn the_commands_after_a_heading_are_what_a_reader_would_type() {
        assert_eq!(commands(PAGE, "## Install").unwrap(), ["helm install x    --set a=b", "kubectl get pods"]);
        for missing in ["## Celery", "## Last", "## Nowhere"] {
            assert!(commands(PAGE, missing).is_err(), "{missing}");
        }
    }

    #[test]
    fn the_annotations_after_a_heading_are_those_of_its_manifest() {
        let found = annotations(PAGE, "## Celery").unwrap();
        assert_eq!(found, [("min-replicas".to_owned(), "0".to_owned()), ("queue".to_owned(), "orders".to_owned())].into());
        assert!(annotations(PAGE, "## Install").is_err(), "the next heading's is not its own");
        assert_eq!(file(PAGE, "# A").unwrap(), "a: 1\n");
    }

    #[test]
    fn a_name_that_the_page_does_not_have_is_an_error() {
        assert_eq!(with("kubectl -n shop get qworkers", &[("shop", "mine")]).unwrap(), "kubectl -n mine get qworkers");
        assert!(with("kubectl get qworkers", &[("shop", "mine")]).is_err());
    }

    #[test]
    fn the_pages_of_this_tree_have_every_command_that_is_tried() {
        assert!(commands(&page("README.md").unwrap(), "## Use it").unwrap()[0].starts_with("helm install qscaler oci://ghcr.io/qscaler"));
        let start = page("docs/getting-started.md").unwrap();
        let first = commands(&start, "# Getting started").unwrap();
        assert_eq!(first[0], commands(&page("README.md").unwrap(), "## Use it").unwrap()[0], "two pages, two installations");
        assert_eq!(first[1..], ["kubectl label namespace shop qscaler.dev/injection=enabled", "kubectl qscaler doctor"]);
        assert!(commands(&start, "## See that it works").unwrap().iter().all(|line| line.contains("shop")));
        for (heading, framework) in super::super::run::FRAMEWORKS {
            let found = annotations(&start, heading).unwrap();
            assert!(found.contains_key("queue") && found.contains_key("max-replicas"), "{heading}: {found:?}");
            let worker = framework.annotations.iter().find(|(key, _)| *key == "worker").map(|(_, value)| *value);
            assert_eq!(found.get("worker").map(String::as_str), worker, "{heading}");
        }
        let upgrade = page("docs/upgrade.md").unwrap();
        assert!(commands(&upgrade, "## Upgrade").unwrap()[0].starts_with("helm upgrade qscaler oci://ghcr.io/qscaler/charts/qscaler"));
        assert!(commands(&upgrade, "## Go back").unwrap()[0].starts_with("helm rollback qscaler"));
        assert!(commands(&upgrade, "## Uninstall").unwrap().iter().any(|line| line.starts_with("helm uninstall qscaler")));
        assert!(commands(&page("docs/injection.md").unwrap(), "## Uninstall").unwrap()[0].starts_with("kubectl delete crd"));
    }
}
