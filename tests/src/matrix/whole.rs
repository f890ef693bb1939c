//! The whole matrix. In: rows and columns. Out: every cell, said as it comes, and where it was measured. Left to others: one round (`round`), the page (`table`).

use super::book::Place;
use super::cell::Cell;
use super::fault::Fault;
use super::lab::{Lab, Subject};
use super::rows::Row;
use super::table;
use super::{now, round};
use crate::servers;
use crate::stand::BrokerKind;
use crate::stand::kubectl::kubectl;
use anyhow::Result;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use std::collections::BTreeSet;
use tokio::process::Command;

/// Fleets that meet a fault side by side: of twelve, on two cores with other work, some were done or still starting when the fault came.
const AT_ONCE: usize = 6;
/// The same in the control arm, where every fleet starts and ends all its pods at once.
const CONTROL_AT_ONCE: usize = 4;

/// Runs it; `say` gets a line for each cell and step.
///
/// # Errors
/// The cluster or the fleets cannot be had. A round that fails is a cell that says so.
pub async fn run(rows: &[Row], faults: &[Fault], mut say: impl FnMut(String)) -> Result<(Vec<Cell>, Place)> {
    let lab = Lab::open().await?;
    let begin = now();
    let mut cells = Vec::new();
    if faults.contains(&Fault::Control) {
        say("control arm: the same workers without QScaler".to_owned());
        for some in rows.chunks(CONTROL_AT_ONCE) {
            let made = round::control(&lab, some).await;
            made.iter().for_each(|cell| say(table::line(cell)));
            cells.extend(made);
        }
    }
    let (mut place, mut packages) = (Place::new(), BTreeSet::new());
    for some in rows.chunks(AT_ONCE) {
        say(format!("{:>5.0} s  making {} fleets", now() - begin, some.len()));
        let wanted = some.iter().map(|row| (format!("mx-{}", row.slug), *row)).collect();
        let subjects = lab.fleets(wanted).await?;
        for (name, value) in self::place(&lab, subjects.iter().any(|subject| subject.row.broker == BrokerKind::RabbitMq)).await? {
            if place.iter().all(|(known, _)| *known != name) {
                place.push((name, value));
            }
        }
        packages.extend(try_join_all(subjects.iter().map(versions)).await?.into_iter().flatten());
        let all: Vec<&Subject> = subjects.iter().collect();
        let mut of_these = Vec::new();
        for (number, fault) in faults.iter().filter(|fault| **fault != Fault::Control).enumerate() {
            say(format!("{:>5.0} s  {}", now() - begin, fault.title()));
            let made = round::run_until_hit(&lab, &all, &vec![*fault; all.len()], &format!("r{number}")).await;
            made.iter().for_each(|cell| say(table::line(cell)));
            of_these.extend(made);
        }
        round::recount(&subjects, &mut of_these).await?;
        cells.extend(of_these);
        try_join_all(subjects.into_iter().map(|subject| subject.fleet.remove())).await?;
    }
    if !packages.is_empty() {
        place.push(("in the workers' images".to_owned(), packages.into_iter().collect::<Vec<_>>().join(", ")));
    }
    say(format!("{:>5.0} s  done", now() - begin));
    Ok((cells, place))
}

/// Date and versions, but for those of the workers; that of RabbitMQ where it was used.
///
/// # Errors
/// The API server does not answer.
pub async fn place(lab: &Lab, rabbitmq: bool) -> Result<Place> {
    let mut place: Place = vec![("date".into(), Timestamp::now().strftime("%Y-%m-%d").to_string())];
    let mut add = |name: &str, value: String| place.push((name.into(), value));
    add("QScaler", env!("CARGO_PKG_VERSION").to_owned());
    add("Kubernetes", lab.client.apiserver_version().await?.git_version);
    let nodes = Api::<Node>::all(lab.client.clone()).list(&ListParams::default()).await?.items;
    let number = nodes.len();
    if let Some(info) = nodes.into_iter().next().and_then(|node| node.status?.node_info) {
        let group = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 };
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        add(
            "nodes",
            format!("{number}, {processors} CPUs, kernel {}, {}, control groups v{group}", info.kernel_version, info.container_runtime_version),
        );
    }
    let redis = Command::new(servers::bin()?.join("redis-server")).arg("--version").output().await?;
    let text = String::from_utf8_lossy(&redis.stdout).into_owned();
    add("Redis", text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?").to_owned());
    if rabbitmq {
        add("RabbitMQ", lab.stand.rabbitmq_version().await?);
    }
    Ok(place)
}

/// `name version` of what this fleet's workers are made of.
///
/// # Errors
/// Its client does not answer.
pub async fn versions(subject: &Subject) -> Result<BTreeSet<String>> {
    let args = ["-n", &subject.fleet.name, "exec", "deployment/client", "--"];
    let text = kubectl(&[&args, subject.row.versions].concat(), None).await?;
    Ok(text.lines().map(str::to_owned).collect())
}
