//! Cells as a table and as JSON. In: cells, when and where they were measured. Out: Markdown for the docs, one line of JSON. Left to others: what is right (`cell`).

use super::book::{Book, Entry};
use super::cell::Cell;
use super::exceptions;
use super::fault::Fault;
use crate::stand::framework::FRAMEWORKS;
use serde_json::{Value, json};
use std::fmt::Write;

fn mark(number: usize) -> String {
    format!("[{number}]")
}

/// What a cell shows: `0` and the running tasks that were met, or what was counted.
fn text(cell: &Cell, notes: &mut Vec<&'static str>) -> String {
    let c = cell.counts;
    let met = cell.hit.as_ref().map_or(0, |hit| hit.tasks);
    if cell.fault == Fault::Control {
        return match cell.complaint() {
            None => format!("**{} cut** of {met}", c.cut),
            Some(_) => "failed".to_owned(),
        };
    }
    let mut text = match (cell.is_zero(), &cell.hit) {
        (_, Err(_)) => "not hit".to_owned(),
        (true, Ok(_)) => format!("0 of {met}"),
        (false, Ok(_)) => {
            let named = [(c.lost, "lost"), (c.doubled, "doubled"), (c.cut, "cut")];
            named.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
        }
    };
    if let Some(exception) = exceptions::of(cell.row, cell.fault) {
        let at = notes.iter().position(|reason| *reason == exception.reason).unwrap_or_else(|| {
            notes.push(exception.reason);
            notes.len() - 1
        });
        let _ = write!(text, " {}", mark(at + 1));
    }
    if cell.complaint().is_some() {
        text.push_str(" **failed**");
    }
    text
}

/// The page.
#[must_use]
pub fn markdown(book: &Book<Entry>) -> String {
    let (mut notes, cells) = (Vec::new(), book.cells());
    let rows: Vec<_> = FRAMEWORKS.iter().filter(|row| cells.iter().any(|cell| cell.row == row.slug)).collect();
    let mut out = String::from("# The matrix: every framework meets every fault\n\n");
    out.push_str(
        "Each cell is one round on a real cluster: a fleet of three unchanged workers gets tasks of 4 s and more, and while they run the fault comes. Every task \
         writes to a ledger when it is sent, begins and ends; the cell says how many tasks were lost (never done), doubled (done twice) or cut (a run that \
         began and never ended). `0 of 3` means: none, and 3 tasks ran when and where the fault struck. A round whose fault met no running task is repeated, and its tasks \
         count too; a cell that was never hit fails. Every wave begins with a Deployment that QScaler knows nothing about.\n\n",
    );
    for (number, (made, measured)) in book.runs().into_iter().enumerate() {
        let which = match number {
            0 => "Made".to_owned(),
            _ => format!("\nMeasured later, again ({}),", measured.iter().map(Cell::name).collect::<Vec<_>>().join(", ")),
        };
        let _ = writeln!(out, "{which} by `{}`. When and where:\n", made.command);
        for (name, value) in &made.place {
            let _ = writeln!(out, "- {name}: {value}");
        }
    }
    out.push_str("\n| fault |");
    for row in &rows {
        let _ = write!(out, " {} |", row.name);
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(rows.len()));
    out.push('\n');
    for fault in Fault::ALL.iter().filter(|fault| cells.iter().any(|cell| cell.fault == **fault)) {
        let _ = write!(out, "| {} |", fault.title());
        for row in &rows {
            let cell = cells.iter().find(|cell| cell.row == row.slug && cell.fault == *fault);
            let _ = write!(out, " {} |", cell.map(|cell| text(cell, &mut notes)).unwrap_or_default());
        }
        out.push('\n');
    }
    out.push_str(
        "\nThe first line is the control arm: the same workers without QScaler, a grace shorter than their tasks, and a plain `/scale` call.\n",
    );
    if rows.iter().any(|row| !row.note.is_empty()) {
        out.push_str("\nWhat a user of a framework must know:\n\n");
        for row in rows.iter().filter(|row| !row.note.is_empty()) {
            let _ = writeln!(out, "- {}: {}", row.name, row.note);
        }
    }
    if !notes.is_empty() {
        out.push_str("\nCells that cannot be zero, and why:\n\n");
        for (i, reason) in notes.iter().enumerate() {
            let _ = writeln!(out, "- {} {reason}", mark(i + 1));
        }
    }
    out
}

/// The last line: sums over every cell that is neither of the control arm nor an exception; those are named with their own counts.
#[must_use]
pub fn summary(cells: &[Cell]) -> Value {
    let managed: Vec<&Cell> = cells.iter().filter(|cell| cell.fault != Fault::Control).collect();
    let plain = |count: fn(&Cell) -> usize| {
        managed.iter().filter(|cell| exceptions::of(cell.row, cell.fault).is_none()).map(|cell| count(cell)).sum::<usize>()
    };
    let excepted = managed.iter().filter_map(|cell| {
        let exception = exceptions::of(cell.row, cell.fault)?;
        let c = cell.counts;
        Some(json!({"cell": cell.name(), "reason": exception.reason, "lost": c.lost, "doubled": c.doubled, "cut": c.cut}))
    });
    let failed = cells.iter().filter_map(|cell| Some(json!({"cell": cell.name(), "why": cell.complaint()?})));
    json!({
        "cells": managed.len(),
        "lost": plain(|cell| cell.counts.lost),
        "doubled": plain(|cell| cell.counts.doubled),
        "cut": plain(|cell| cell.counts.cut),
        "exceptions": excepted.collect::<Vec<_>>(),
        "control_cut": cells.iter().filter(|cell| cell.fault == Fault::Control).map(|cell| cell.counts.cut).sum::<usize>(),
        "met": managed.iter().filter_map(|cell| cell.hit.as_ref().ok()).map(|hit| hit.tasks).sum::<usize>(),
        "failed": failed.collect::<Vec<_>>(),
    })
}

/// A cell in one line, for a log.
#[must_use]
pub fn line(cell: &Cell) -> String {
    let c = cell.counts;
    let hit = match &cell.hit {
        Ok(hit) => format!("{} running tasks met; {}", hit.tasks, hit.proof),
        Err(why) => format!("not hit: {why}"),
    };
    let counted = cell.counted.map(|counted| format!(" ({counted} counted)")).unwrap_or_default();
    let verdict = cell.complaint().map_or_else(|| "ok".to_owned(), |why| format!("FAILED: {why}"));
    format!(
        "{:<44} {} sent, {} done, {} lost, {} doubled, {} cut{counted}; {hit}; {:.0} s: {verdict}",
        cell.name(),
        c.sent,
        c.done,
        c.lost,
        c.doubled,
        c.cut,
        cell.seconds
    )
}

#[cfg(test)]
mod tests {
    use super::super::book::Made;
    use super::super::cell::{Counts, Hit};
    use super::*;
    use std::collections::BTreeSet;

    fn cell(row: &'static str, fault: Fault, doubled: usize, cut: usize) -> Cell {
        let counts = Counts { sent: 5, done: 5, lost: 0, doubled, cut };
        Cell { row, fault, prefixes: Vec::new(), counts, hit: Ok(Hit { tasks: 2, proof: "p".into() }), counted: None, trouble: None, seconds: 1.0 }
    }

    #[test]
    fn sums_leave_out_exceptions_and_the_control_arm_which_are_named() {
        let cells = [cell("celery", Fault::Control, 0, 2), cell("celery", Fault::Wave, 0, 0), cell("celery-late", Fault::BrokerRestarted, 1, 0)];
        let sum = summary(&cells);
        assert_eq!(
            (&sum["cells"], &sum["lost"], &sum["doubled"], &sum["cut"], &sum["control_cut"]),
            (&json!(2), &json!(0), &json!(0), &json!(0), &json!(2))
        );
        assert_eq!(sum["exceptions"][0]["cell"], "celery-late/broker-restarted");
        assert_eq!(sum["failed"], json!([]));
        assert_eq!(summary(&[cell("celery", Fault::Wave, 0, 1)])["failed"][0]["cell"], "celery/wave");
    }

    #[test]
    fn the_page_shows_counts_and_the_reason_of_each_exception() {
        let cells = [cell("celery-late", Fault::BrokerRestarted, 1, 0), cell("celery", Fault::Wave, 0, 0)];
        let made = |command: &str| Made { command: command.into(), place: vec![("Kubernetes".into(), "v1".into())] };
        let page = markdown(&Book::default().with(made("cargo xtask matrix"), &cells).with(made("a part"), &cells[1..]));
        assert!(page.contains("Made by `cargo xtask matrix`") && page.contains("again (celery/wave), by `a part`"), "{page}");
        assert!(page.contains("1 doubled [1]") && page.contains(&format!("- [1] {}", exceptions::EXCEPTIONS[0].reason)));
        assert!(page.contains("0 of 2") && page.contains("- Kubernetes: v1"));
    }

    #[test]
    fn the_page_in_the_docs_has_every_cell_as_it_should_be_and_is_made_of_the_cells_beside_it() {
        let book = Book::of_page("matrix", markdown);
        let cells = book.cells();
        let names: BTreeSet<String> = cells.iter().map(Cell::name).collect();
        assert_eq!((cells.len(), names.len()), (FRAMEWORKS.len() * Fault::ALL.len(), cells.len()));
        let sum = summary(&cells);
        assert_eq!((&sum["lost"], &sum["doubled"], &sum["cut"], &sum["failed"]), (&json!(0), &json!(0), &json!(0), &json!([])));
    }
}
