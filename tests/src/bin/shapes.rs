//! The shapes, inside the cluster's network. In: `--shape PART`, `--trial PART` (both may be repeated), `--json`, `--report FILE`, `--update`, `--keep-bare`. Out: a line per
//! cell, the page and beside it its cells (`.json`), and with `--json` a last line. `cargo xtask shapes` brings up the cluster and QScaler before, and takes them down after.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail, ensure};
use qscaler_tests::matrix::book::{Book, Made, Measured};
use qscaler_tests::shapes::cell::Cell;
use qscaler_tests::shapes::rows;
use qscaler_tests::shapes::run::{self, Kept};
use qscaler_tests::shapes::shape::Shape;
use qscaler_tests::shapes::table;
use qscaler_tests::shapes::trial::Trial;
use std::path::PathBuf;

struct Options {
    shapes: Vec<String>,
    trials: Vec<Trial>,
    json: bool,
    report: Option<PathBuf>,
    update: bool,
    keep_bare: bool,
    command: String,
}

fn options() -> Result<Options> {
    let mut options = Options {
        shapes: Vec::new(),
        trials: Vec::new(),
        json: false,
        report: None,
        update: false,
        keep_bare: false,
        command: "cargo xtask shapes".to_owned(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--shape" => {
                let part = value()?;
                let names: Vec<&str> = rows::all().map(Shape::slug).collect();
                ensure!(!rows::chosen(std::slice::from_ref(&part)).is_empty(), "--shape {part}: valid is any part of {}", names.join(", "));
                options.command.push_str(&format!(" --shape {part}"));
                options.shapes.push(part);
            }
            "--trial" => {
                let part = value()?;
                let found: Vec<Trial> = Trial::ALL.into_iter().filter(|trial| trial.name().contains(&part)).collect();
                let names: Vec<&str> = Trial::ALL.iter().map(|trial| trial.name()).collect();
                ensure!(!found.is_empty(), "--trial {part}: valid is any part of {}", names.join(", "));
                options.command.push_str(&format!(" --trial {part}"));
                options.trials.extend(found);
            }
            "--json" => options.json = true,
            "--update" => options.update = true,
            "--keep-bare" => {
                options.command.push_str(" --keep-bare");
                options.keep_bare = true;
            }
            "--report" => options.report = Some(value()?.into()),
            other => bail!("unknown argument {other}; valid: --shape, --trial, --json, --report, --update, --keep-bare"),
        }
    }
    if options.trials.is_empty() {
        options.trials = Trial::ALL.to_vec();
    }
    options.trials.sort();
    options.trials.dedup();
    Ok(options)
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = options()?;
    let data = options.report.as_ref().map(|report| report.with_extension("json"));
    let book: Book<Cell> = match &data {
        Some(data) if options.update => Book::read(data)?,
        _ => Book::default(),
    };
    let measured: Vec<&Cell> = book.entries().into_iter().flat_map(|(_, cells)| cells).collect();
    let kept: Kept = measured.into_iter().filter(|_| options.keep_bare).map(|cell| (cell.name(), cell.bare.clone())).collect();
    let (cells, place) = run::run(&rows::chosen(&options.shapes), &options.trials, &kept, |line| println!("{line}")).await?;
    let (number, failed) = (cells.len(), cells.iter().filter(|cell| cell.complaint().is_some()).count());
    let book = book.and(Made { command: options.command, place }, cells);
    if let (Some(report), Some(data)) = (&options.report, &data) {
        book.write(data)?;
        std::fs::write(report, table::markdown(&book)).with_context(|| format!("cannot write {}", report.display()))?;
        println!("the table is in {}", report.display());
    }
    if options.json {
        let cells: Vec<&Cell> = book.entries().into_iter().flat_map(|(_, cells)| cells).collect();
        println!("{}", table::summary(&cells));
    }
    ensure!(failed == 0, "{failed} of {number} cells are not as they should be");
    Ok(())
}
