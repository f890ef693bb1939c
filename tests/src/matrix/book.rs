//! Cells as they are kept beside the page. In: cells of a run, what earlier runs left. Out: all cells, each with the run that measured it. Left to others:
//! the page (`table`). A cell that was measured again takes the place of the older one, and the page says which run it is of.

use super::cell::{Cell, Counts, Hit};
use super::fault::Fault;
use crate::stand::framework::Framework;
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where and when a matrix was measured: names and versions, in the order they are shown.
pub type Place = Vec<(String, String)>;

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The command.
    pub command: String,
    /// When and where.
    pub place: Place,
}

/// What a book keeps: something measured, which a later measurement of the same takes the place of.
pub trait Measured {
    /// What was measured: equal for two measurements of the same.
    fn name(&self) -> String;
}

/// A measurement and the number of its run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kept<E> {
    run: usize,
    #[serde(flatten)]
    entry: E,
}

/// A cell of the matrix as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    row: String,
    fault: String,
    counts: Counts,
    /// What was met; none: it was not hit.
    hit: Option<Hit>,
    /// Why it was not hit, or what else went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    wrong: Vec<String>,
    /// Cuts that the controller counted; earlier runs did not compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counted: Option<u64>,
    seconds: f64,
}

/// Runs and what they measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Book<E> {
    runs: Vec<Made>,
    cells: Vec<Kept<E>>,
}

impl<E> Default for Book<E> {
    fn default() -> Self {
        Self { runs: Vec::new(), cells: Vec::new() }
    }
}

impl<E: Measured + Clone + Serialize + DeserializeOwned> Book<E> {
    /// What is kept in this file.
    ///
    /// # Errors
    /// It cannot be read, or is no such book.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}: only what a whole run has written can be updated", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no book of cells", path.display()))
    }

    /// Keeps it in this file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("a book is always JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    /// With what one more run measured in place of older ones; a run of which nothing is left is forgotten.
    #[must_use]
    pub fn and(mut self, made: Made, measured: Vec<E>) -> Self {
        let run = self.runs.len();
        self.runs.push(made);
        self.cells.retain(|old| !measured.iter().any(|new| new.name() == old.entry.name()));
        self.cells.extend(measured.into_iter().map(|entry| Kept { run, entry }));
        let used: Vec<usize> = (0..self.runs.len()).filter(|run| self.cells.iter().any(|cell| cell.run == *run)).collect();
        self.runs = used.iter().map(|run| self.runs[*run].clone()).collect();
        for cell in &mut self.cells {
            cell.run = used.iter().position(|run| *run == cell.run).unwrap_or_default();
        }
        self
    }

    /// The runs, each with what it measured.
    #[must_use]
    pub fn entries(&self) -> Vec<(&Made, Vec<&E>)> {
        let of = |run: usize| self.cells.iter().filter(|kept| kept.run == run).map(|kept| &kept.entry).collect();
        self.runs.iter().enumerate().map(|(run, made)| (made, of(run))).collect()
    }
}

#[cfg(test)]
impl<E: Measured + Clone + Serialize + DeserializeOwned> Book<E> {
    /// The book beside a page in `docs/`, after a look that the page is made of it; with `UPDATE_GOLDEN` the page is written anew.
    pub(crate) fn of_page(name: &str, markdown: impl Fn(&Self) -> String) -> Self {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let (book, page) = (Self::read(&docs.join(format!("{name}.json"))).unwrap(), docs.join(format!("{name}.md")));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&page, markdown(&book)).unwrap();
        }
        assert!(std::fs::read_to_string(page).unwrap() == markdown(&book), "the page is not of these cells: UPDATE_GOLDEN=1");
        book
    }
}

impl Book<Entry> {
    /// With the cells of one more run in place of older ones.
    #[must_use]
    pub fn with(self, made: Made, cells: &[Cell]) -> Self {
        let entry = |cell: &Cell| Entry {
            row: cell.row.to_owned(),
            fault: cell.fault.name().to_owned(),
            counts: cell.counts,
            hit: cell.hit.clone().ok(),
            wrong: cell.hit.as_ref().err().into_iter().chain(&cell.trouble).cloned().collect(),
            counted: cell.counted,
            seconds: cell.seconds,
        };
        self.and(made, cells.iter().map(entry).collect())
    }

    /// The runs, each with the cells that it measured, in the order of rows and columns. Cells of rows or columns that are no more are left out.
    #[must_use]
    pub fn runs(&self) -> Vec<(&Made, Vec<Cell>)> {
        let cells = |entries: Vec<&Entry>| {
            let mut cells: Vec<Cell> = entries.into_iter().filter_map(Entry::cell).collect();
            cells.sort_by_key(|cell| cell.fault);
            cells
        };
        self.entries().into_iter().map(|(made, entries)| (made, cells(entries))).collect()
    }

    /// All cells.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        self.runs().into_iter().flat_map(|(_, cells)| cells).collect()
    }
}

impl Measured for Entry {
    fn name(&self) -> String {
        format!("{}/{}", self.row, self.fault)
    }
}

impl Entry {
    fn cell(&self) -> Option<Cell> {
        let mut wrong = self.wrong.iter().cloned();
        let hit = self.hit.clone().map_or_else(|| Err(wrong.next().unwrap_or_default()), Ok);
        Some(Cell {
            row: Framework::find(&self.row)?.slug,
            fault: Fault::ALL.into_iter().find(|fault| fault.name() == self.fault)?,
            prefixes: Vec::new(),
            counts: self.counts,
            hit,
            trouble: wrong.next(),
            counted: self.counted,
            seconds: self.seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(command: &str) -> Made {
        Made { command: command.to_owned(), place: vec![("date".to_owned(), "2026-01-01".to_owned())] }
    }

    fn cell(row: &'static str, fault: Fault, done: usize, hit: Result<Hit, String>, trouble: Option<&str>) -> Cell {
        let counts = Counts { sent: 3, done, ..Counts::default() };
        Cell { row, fault, prefixes: Vec::new(), counts, hit, counted: None, trouble: trouble.map(str::to_owned), seconds: 1.5 }
    }

    fn hit() -> Result<Hit, String> {
        Ok(Hit { tasks: 1, proof: "p".to_owned() })
    }

    #[test]
    fn a_cell_that_is_measured_again_takes_the_place_of_the_older_one_and_keeps_its_run() {
        let first = [cell("celery", Fault::Wave, 3, hit(), None), cell("rq", Fault::Wave, 3, Err("why".into()), Some("trouble"))];
        let book = Book::default().with(made("whole"), &first).with(made("a part"), &[cell("rq", Fault::Wave, 2, hit(), None)]);
        let runs = book.runs();
        let seen: Vec<(&str, Vec<(String, usize)>)> =
            runs.iter().map(|(made, cells)| (made.command.as_str(), cells.iter().map(|c| (c.name(), c.counts.done)).collect())).collect();
        assert_eq!(seen, [("whole", vec![("celery/wave".to_owned(), 3)]), ("a part", vec![("rq/wave".to_owned(), 2)])]);
        let again = book.with(made("the same part"), &[cell("rq", Fault::Wave, 1, hit(), None)]);
        assert_eq!(again.runs().iter().map(|(made, _)| made.command.as_str()).collect::<Vec<_>>(), ["whole", "the same part"]);
    }

    #[test]
    fn what_is_read_back_complains_of_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("matrix.json");
        let cells = [
            cell("celery", Fault::Wave, 3, hit(), None),
            cell("celery", Fault::Drain, 3, hit(), Some("trouble")),
            cell("celery", Fault::Eviction, 3, Err("why".into()), None),
            cell("celery", Fault::Delete, 3, Err("why".into()), Some("trouble")),
        ];
        Book::default().with(made("whole"), &cells).write(&file).unwrap();
        let said = |cells: &[Cell]| cells.iter().map(|c| (c.name(), c.complaint())).collect::<std::collections::BTreeMap<_, _>>();
        assert_eq!(said(&Book::read(&file).unwrap().cells()), said(&cells));
        let error = Book::<Entry>::read(&folder.path().join("none.json")).unwrap_err().to_string();
        assert!(error.contains("none.json") && error.contains("a whole run"), "{error}");
    }
}
