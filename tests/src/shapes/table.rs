//! Cells as a table and as JSON. In: cells, when and where they were measured. Out: Markdown for the docs, one line of JSON. Left to others: what is right (`cell`).

use super::cell::{Arm, Cell};
use super::exceptions;
use super::rows;
use super::trial::Trial;
use crate::matrix::book::{Book, Measured};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;

/// What one arm counted; `0 of 2`: nothing, and two running tasks were met.
fn counted(arm: &Arm) -> String {
    let c = arm.counts;
    if !arm.up {
        return "not up".to_owned();
    }
    let named = [(c.lost, "lost"), (c.doubled, "doubled"), (c.cut, "cut")];
    let some: Vec<String> = named.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    match (some.is_empty(), &arm.hit) {
        (false, _) => some.join(", "),
        (true, Some(hit)) => format!("0 of {}", hit.tasks),
        (true, None) => "0".to_owned(),
    }
}

fn text(cell: &Cell, notes: &mut Vec<&'static str>, words: &mut Vec<(String, String)>) -> String {
    let mut text = counted(&cell.ours);
    if cell.trial == Trial::Wave && cell.ours.up {
        match cell.parked_s {
            Some(seconds) => {
                let _ = write!(text, ", left after {seconds:.0} s");
            }
            None => text.push_str(", stayed"),
        }
    }
    let _ = write!(text, " (without: {})", counted(&cell.bare));
    if let Some(exception) = exceptions::of(&cell.shape, cell.trial) {
        let at = notes.iter().position(|reason| *reason == exception.reason).unwrap_or_else(|| {
            notes.push(exception.reason);
            notes.len() - 1
        });
        let _ = write!(text, " [{}]", at + 1);
    }
    if let Some(said) = &cell.said {
        words.push((cell.name(), said.clone()));
    }
    if cell.complaint().is_some() {
        text.push_str(" **failed**");
    }
    text
}

/// The page.
#[must_use]
pub fn markdown(book: &Book<Cell>) -> String {
    let (mut notes, mut words) = (Vec::new(), Vec::new());
    let runs = book.entries();
    let cells: Vec<&Cell> = runs.iter().flat_map(|(_, cells)| cells.iter().copied()).collect();
    let mut out = String::from("# Shapes: pods as people write them\n\n");
    out.push_str(
        "Each line is a worker's pod as it is found in the field; the worker itself is unchanged. On a real cluster a fleet of two such pods gets tasks, and beside it the same fleet in a namespace \
         without QScaler (\"without\"). Both have a grace of 120 s, longer than all tasks of a pod. In *scale-down wave* one pod works and one is idle when the count may fall: the cell says how soon the idle one was asked to \
         leave. In *deleted while busy* every pod with a task is deleted; in *rollout* all are replaced under load. In *due later, from zero* there is no pod when a task is sent that is due in 15 s. \
         A ledger has every start and end: `0 of 2` means that nothing was lost (never done), doubled (done twice) or cut (a run that began and never ended), and that two running tasks were met. \
         Where an idle pod stays or a task is cut, a condition or an Event must say why within a minute; these words are below the table.\n\n",
    );
    for (number, (made, measured)) in runs.iter().enumerate() {
        let names: Vec<String> = measured.iter().map(|cell| cell.name()).collect();
        let which = if number == 0 { "Made".to_owned() } else { format!("\nMeasured later, again ({}),", names.join(", ")) };
        let _ = writeln!(out, "{which} by `{}`. When and where:\n", made.command);
        for (name, value) in &made.place {
            let _ = writeln!(out, "- {name}: {value}");
        }
    }
    out.push_str("\n| pod |");
    for trial in Trial::ALL {
        let _ = write!(out, " {} |", trial.title());
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(Trial::ALL.len()));
    out.push('\n');
    for shape in rows::all() {
        let of = |trial: Trial| cells.iter().find(|cell| cell.shape == shape.slug() && cell.trial == trial);
        if Trial::ALL.iter().all(|trial| of(*trial).is_none()) {
            continue;
        }
        let _ = write!(out, "| `{}`: {} |", shape.slug(), shape.framework.name.replace('|', "\\|"));
        for trial in Trial::ALL {
            let _ = write!(out, " {} |", of(trial).map(|cell| text(cell, &mut notes, &mut words)).unwrap_or_default());
        }
        out.push('\n');
    }
    if !words.is_empty() {
        out.push_str("\nWhat was said, where something had to be:\n\n");
        for (name, said) in &words {
            let _ = writeln!(out, "- `{name}`: {said}");
        }
    }
    let open: Vec<(String, String)> = cells.iter().filter_map(|cell| Some((cell.name(), cell.complaint()?))).collect();
    if !open.is_empty() {
        out.push_str("\nOpen, as the cells marked **failed** are not as they should be:\n\n");
        for (name, why) in &open {
            let _ = writeln!(out, "- `{name}`: {why}");
        }
    }
    if !notes.is_empty() {
        out.push_str("\nCells that cannot be zero, and why:\n\n");
        for (number, reason) in notes.iter().enumerate() {
            let _ = writeln!(out, "- [{}] {reason}", number + 1);
        }
    }
    out
}

/// The last line. `cut` is the sum over cells that are no exceptions; those are named with their own counts. Everything else is over all cells.
#[must_use]
pub fn summary(cells: &[&Cell]) -> Value {
    let shapes: BTreeSet<&str> = cells.iter().map(|cell| cell.shape.as_str()).collect();
    let plain = |count: fn(&Cell) -> usize| {
        cells.iter().filter(|cell| exceptions::of(&cell.shape, cell.trial).is_none()).map(|cell| count(cell)).sum::<usize>()
    };
    let excepted = cells.iter().filter_map(|cell| {
        let exception = exceptions::of(&cell.shape, cell.trial)?;
        let c = cell.ours.counts;
        Some(json!({"cell": cell.name(), "reason": exception.reason, "lost": c.lost, "doubled": c.doubled, "cut": c.cut, "without": cell.bare.counts.cut}))
    });
    let named = |is: fn(&Cell) -> bool| cells.iter().filter(|cell| is(cell)).map(|cell| cell.name()).collect::<Vec<_>>();
    json!({
        "shapes": shapes.len(),
        "cells": cells.len(),
        "cut": plain(|cell| cell.ours.counts.cut),
        "lost": plain(|cell| cell.ours.counts.lost),
        "doubled": plain(|cell| cell.ours.counts.doubled),
        "cut_uncounted": cells.iter().map(|cell| cell.uncounted()).sum::<usize>(),
        "worse_than_without": named(|cell| cell.is_worse() && exceptions::of(&cell.shape, cell.trial).is_none()).len(),
        "silent": named(Cell::is_silent),
        "without_cut": cells.iter().map(|cell| cell.bare.counts.cut).sum::<usize>(),
        "met": cells.iter().filter_map(|cell| cell.ours.hit.as_ref()).map(|hit| hit.tasks).sum::<usize>(),
        "exceptions": excepted.collect::<Vec<_>>(),
        "failed": cells.iter().filter_map(|cell| Some(json!({"cell": cell.name(), "why": cell.complaint()?}))).collect::<Vec<_>>(),
    })
}

/// A cell in one line, for a log.
#[must_use]
pub fn line(cell: &Cell) -> String {
    let one = |arm: &Arm| {
        let c = arm.counts;
        let met = arm.hit.as_ref().map_or(0, |hit| hit.tasks);
        let trouble = arm.trouble.as_ref().map(|why| format!(" ({})", why.replace('\n', " "))).unwrap_or_default();
        format!("{} sent, {} done, {} lost, {} doubled, {} cut, {met} met{trouble}", c.sent, c.done, c.lost, c.doubled, c.cut)
    };
    let left = cell.parked_s.map(|seconds| format!("; left after {seconds:.0} s")).unwrap_or_default();
    let said = cell.said.as_ref().map(|said| format!("; said: {said}")).unwrap_or_default();
    let verdict = cell.complaint().map_or_else(|| "ok".to_owned(), |why| format!("FAILED: {why}"));
    format!(
        "{:<26} {}; without: {}; {} counted{left}{said}; {:.0} s: {verdict}",
        cell.name(),
        one(&cell.ours),
        one(&cell.bare),
        cell.counted,
        cell.seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::book::Made;
    use crate::matrix::cell::{Counts, Hit};
    use crate::shapes::cell::name;

    fn cell(shape: &str, trial: Trial, cut: usize) -> Cell {
        let arm = |cut| Arm {
            up: true,
            counts: Counts { sent: 3, done: 3, cut, ..Counts::default() },
            hit: Some(Hit { tasks: 2, proof: "p".into() }),
            trouble: None,
        };
        Cell { shape: shape.into(), trial, ours: arm(cut), bare: arm(0), counted: 0, parked_s: Some(3.0), rose_to: None, said: None, seconds: 1.0 }
    }

    #[test]
    fn the_summary_counts_what_is_worse_uncounted_and_silent() {
        let cells = [cell("tee", Trial::Wave, 0), cell("tee", Trial::Delete, 2)];
        let sum = summary(&cells.iter().collect::<Vec<_>>());
        let numbers = ["shapes", "cells", "cut", "cut_uncounted", "worse_than_without"].map(|key| sum[key].as_u64().unwrap());
        assert_eq!((numbers, &sum["silent"]), ([1, 2, 2, 2, 1], &json!(["tee/delete"])));
        assert_eq!(sum["failed"][0]["cell"], "tee/delete");
    }

    #[test]
    fn the_page_in_the_docs_has_every_cell_and_is_made_of_the_cells_beside_it() {
        let book = Book::of_page("shapes", markdown);
        let measured: BTreeSet<String> = book.entries().into_iter().flat_map(|(_, cells)| cells.into_iter().map(Cell::name)).collect();
        let all = rows::all()
            .flat_map(|shape| Trial::ALL.into_iter().filter(|trial| *trial != Trial::Zero || shape.zero).map(|trial| name(shape.slug(), trial)));
        assert_eq!(measured, all.collect());
    }

    #[test]
    fn the_page_shows_both_arms() {
        let made = Made { command: "cargo xtask shapes".into(), place: vec![("Kubernetes".into(), "v1".into())] };
        let page = markdown(&Book::default().and(made, vec![cell("tee", Trial::Wave, 0), cell("tee", Trial::Delete, 1)]));
        assert!(page.contains("0 of 2, left after 3 s (without: 0 of 2)") && page.contains("1 cut (without: 0 of 2) **failed**"), "{page}");
        assert!(page.contains("- Kubernetes: v1"));
        assert!(page.contains("- `tee/delete`: 0 lost, 0 doubled, 1 cut of 3"), "{page}");
    }
}
