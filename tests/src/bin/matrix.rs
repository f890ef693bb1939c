//! The matrix, inside the cluster's network. In: `--framework PART`, `--fault PART` (both may be repeated), `--json`, `--report FILE`,
//! `--update`. Out: a line per cell, the page and beside it its cells (`.json`), and with `--json` a last line. `cargo xtask matrix` brings up the cluster and QScaler before, and takes them down after.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, bail, ensure};
use qscaler_tests::matrix::book::{Book, Made};
use qscaler_tests::matrix::fault::Fault;
use qscaler_tests::matrix::rows;
use qscaler_tests::matrix::{table, whole};
use std::path::PathBuf;

struct Options {
    frameworks: Vec<String>,
    faults: Vec<Fault>,
    json: bool,
    report: Option<PathBuf>,
    update: bool,
    command: String,
}

fn options() -> Result<Options> {
    let mut options =
        Options { frameworks: Vec::new(), faults: Vec::new(), json: false, report: None, update: false, command: "cargo xtask matrix".to_owned() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--framework" => {
                let part = value()?;
                let names: Vec<&str> = rows::chosen(&[]).iter().map(|row| row.slug).collect();
                ensure!(!rows::chosen(std::slice::from_ref(&part)).is_empty(), "--framework {part}: valid is any part of {}", names.join(", "));
                options.command.push_str(&format!(" --framework {part}"));
                options.frameworks.push(part);
            }
            "--fault" => {
                let part = value()?;
                let found: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| fault.name().contains(&part)).collect();
                let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
                ensure!(!found.is_empty(), "--fault {part}: valid is any part of {}", names.join(", "));
                options.command.push_str(&format!(" --fault {part}"));
                options.faults.extend(found);
            }
            "--json" => options.json = true,
            "--update" => options.update = true,
            "--report" => options.report = Some(value()?.into()),
            other => bail!("unknown argument {other}; valid: --framework, --fault, --json, --report, --update"),
        }
    }
    if options.faults.is_empty() {
        options.faults = Fault::ALL.to_vec();
    }
    options.faults.sort();
    options.faults.dedup();
    Ok(options)
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = options()?;
    let rows = rows::chosen(&options.frameworks);
    let kept = options.report.as_ref().map(|report| report.with_extension("json"));
    let book = match &kept {
        Some(kept) if options.update => Book::read(kept)?,
        _ => Book::default(),
    };
    let (cells, place) = whole::run(&rows, &options.faults, |line| println!("{line}")).await?;
    let book = book.with(Made { command: options.command, place }, &cells);
    if let (Some(report), Some(kept)) = (&options.report, &kept) {
        book.write(kept)?;
        std::fs::write(report, table::markdown(&book)).with_context(|| format!("cannot write {}", report.display()))?;
        println!("the table is in {}", report.display());
    }
    let failed = cells.iter().filter(|cell| cell.complaint().is_some()).count();
    if options.json {
        println!("{}", table::summary(&book.cells()));
    }
    ensure!(failed == 0, "{failed} of {} cells are not as they should be", cells.len());
    Ok(())
}
