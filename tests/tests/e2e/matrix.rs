//! A row and a column of the matrix (`cargo xtask matrix` runs all of it): one framework meets every fault, every framework meets a scale-down wave. Faults
//! of the whole cluster hurt neighbours, so these tests run after all others, one by one, in a process of their own, which has brokers of its own.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use qscaler_tests::matrix::cell::Cell;
use qscaler_tests::matrix::fault::Fault;
use qscaler_tests::matrix::lab::{Lab, Subject};
use qscaler_tests::matrix::{round, rows, table, whole};
use qscaler_tests::stand::framework::CELERY_REDIS;

async fn remove(subjects: impl IntoIterator<Item = Subject>) -> Result<()> {
    try_join_all(subjects.into_iter().map(|subject| subject.fleet.remove())).await.map(drop)
}

fn verdict(cells: &[Cell]) -> Result<()> {
    let failed: Vec<String> = cells.iter().filter_map(|cell| Some(format!("{}: {}", cell.name(), cell.complaint()?))).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

#[tokio::test]
async fn one_framework_meets_every_fault_and_no_task_is_lost_doubled_or_cut() -> Result<()> {
    let lab = Lab::open().await?;
    let row = &CELERY_REDIS;
    let mut cells = round::control(&lab, &[row]).await;
    // Faults of one fleet: a fleet for each, all at once.
    let alone: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| !fault.is_global() && *fault != Fault::Control).collect();
    let wanted = alone.iter().map(|fault| (format!("e2e-mx-{}", fault.name()), row)).collect();
    let mut subjects = lab.fleets(wanted).await?;
    let all: Vec<&Subject> = subjects.iter().collect();
    cells.extend(round::run_until_hit(&lab, &all, &alone, "row").await);
    // Faults of the whole cluster: one after the other.
    remove(subjects.drain(1..)).await?;
    for fault in Fault::ALL.into_iter().filter(|fault| fault.is_global()) {
        cells.extend(round::run_until_hit(&lab, &[&subjects[0]], &[fault], "row").await);
    }
    remove(subjects).await?;
    cells.iter().for_each(|cell| println!("{}", table::line(cell)));
    verdict(&cells)
}

#[tokio::test]
async fn every_framework_meets_a_scale_down_wave_and_no_task_is_lost_doubled_or_cut() -> Result<()> {
    let (cells, _) = whole::run(&rows::chosen(&[]), &[Fault::Wave], |line| println!("{line}")).await?;
    verdict(&cells)
}
