//! A round: fleets side by side, each with its fault. In: fleets, faults, a label. Out: a cell for each. Left to others: the faults (`strike`), what
//! should be (`cell`). A fault of the whole cluster has a round of its own, and strikes when every fleet is at work.

use super::cell::{Cell, Counts};
use super::exceptions;
use super::fault::Fault;
use super::lab::{Lab, PODS, Subject};
use super::rows::{self, Row};
use super::strike::{self, LEFT, Struck};
use super::{now, plan};
use crate::stand::cuts::Counted;
use crate::stand::fleet::{DEPLOYMENT, Fleet, STEP, describe, is_ready, name_of};
use crate::stand::kubectl::kubectl;
use crate::wait::wait_for;
use anyhow::{Result, anyhow, bail, ensure};
use futures::future::join_all;
use std::collections::BTreeSet;
use std::time::Duration;

/// A round whose ledger says nothing new for this long, in seconds, has come to its end: the longest task is shorter by far, and what a dead worker had
/// reserved has come back (`rows::VISIBILITY_TIMEOUT_S`).
const STILL: f64 = 180.0;
/// Between two looks at a fleet that works.
const LOOK: Duration = Duration::from_millis(500);
/// More tasks are sent this often to a fleet that was done before the others had begun; then the machine is too slow for this many.
const TOP_UPS: usize = 5;
/// What the status says of pods that stay though nothing runs: load that rose twice within a round makes the law keep them for a while. That is no matter of
/// drains.
const KEPT: [&str; 2] = [" 0 running, ", "; learned-hold: "];
/// A fault that met no running task is repeated this often.
const AGAIN: usize = 2;
/// Between a round's label and the number of its repetition; a label has no such sign.
const BETWEEN: char = '+';
/// The control arm's grace, seconds: shorter than its tasks, as the default of 30 s is for tasks of minutes.
const CONTROL_GRACE: u32 = 2;

/// How far a fleet came.
struct Outcome {
    struck: Result<Struck>,
    trouble: Option<anyhow::Error>,
}

/// Runs one round: fleet i meets fault i. Faults of the whole cluster must be the same for all.
pub async fn run(lab: &Lab, subjects: &[&Subject], faults: &[Fault], label: &str) -> Vec<Cell> {
    let begin = now();
    let beside = subjects.len();
    let prefixes: Vec<String> = faults.iter().map(|fault| format!("{label}-{}/", fault.name())).collect();
    let global = faults.first().copied().filter(|fault| fault.is_global());
    let before = join_all(subjects.iter().map(|subject| Counted::now(&subject.fleet))).await;
    let mut outcomes = match global {
        Some(fault) => globally(lab, subjects, fault, &prefixes[0]).await,
        None => {
            let each = subjects.iter().zip(faults).zip(&prefixes);
            join_all(each.map(|((subject, fault), prefix)| alone(lab, subject, *fault, prefix, beside))).await
        }
    };
    if let Some(fault) = global
        && let Err(error) = restore(lab, subjects, fault).await
    {
        outcomes.iter_mut().for_each(|outcome| outcome.trouble = Some(anyhow!("afterwards: {error:#}")));
    }
    let each = outcomes.into_iter().zip(subjects).zip(faults.iter().zip(prefixes)).zip(&before);
    join_all(each.map(|(((outcome, subject), (fault, prefix)), before)| cell(lab, subject, (*fault, prefix), outcome, before, begin))).await
}

/// The same, and again, at most [`AGAIN`] times, for fleets in which the fault met no running task: that round has measured nothing. The tasks of all rounds
/// are counted.
pub async fn run_until_hit(lab: &Lab, subjects: &[&Subject], faults: &[Fault], label: &str) -> Vec<Cell> {
    let mut cells = run(lab, subjects, faults, label).await;
    for number in 1..=AGAIN {
        let missed: Vec<usize> = (0..cells.len()).filter(|i| cells[*i].trouble.is_none() && cells[*i].hit.is_err()).collect();
        if missed.is_empty() {
            break;
        }
        let (some, their): (Vec<&Subject>, Vec<Fault>) = missed.iter().map(|i| (subjects[*i], faults[*i])).unzip();
        let again = run(lab, &some, &their, &format!("{label}{BETWEEN}{number}")).await;
        for (i, second) in missed.into_iter().zip(again) {
            cells[i] = cells[i].clone().then(second);
        }
    }
    cells
}

async fn cell(lab: &Lab, subject: &Subject, (fault, prefix): (Fault, String), outcome: Outcome, before: &Counted, begin: f64) -> Cell {
    let pods = lab.observer.of(&subject.fleet.name);
    let mut trouble = outcome.trouble.map(|error| format!("{error:#}"));
    let (counts, hit) = match subject.runs(&prefix).await {
        Ok((sent, runs)) => {
            let hit = outcome.struck.as_ref().map_err(|error| format!("{error:#}")).and_then(|struck| struck.hit(&runs, &pods));
            (Counts::of(sent, &runs, &[]), hit)
        }
        Err(error) => {
            trouble.get_or_insert(format!("{error:#}"));
            (Counts::default(), Err("no ledger".to_owned()))
        }
    };
    let counted = Some(before.since(&subject.fleet, counts.cut as u64).await);
    Cell { row: subject.row.slug, fault, prefixes: vec![prefix], counts, hit, counted, trouble, seconds: now() - begin }
}

/// Counts again, when everything is over: a task that ran once more long after its round is seen too.
///
/// # Errors
/// The ledger does not answer.
pub async fn recount(subjects: &[Subject], cells: &mut [Cell]) -> Result<()> {
    for cell in cells.iter_mut().filter(|cell| cell.fault != Fault::Control) {
        for subject in subjects.iter().filter(|subject| subject.row.slug == cell.row) {
            let mut counts = Counts::default();
            for prefix in &cell.prefixes {
                let (sent, runs) = subject.runs(prefix).await?;
                counts = counts.and(Counts::of(sent, &runs, &[]));
            }
            if counts.sent > 0 {
                cell.counts = counts;
            }
        }
    }
    Ok(())
}

// === one fleet by itself ===

async fn alone(lab: &Lab, subject: &Subject, fault: Fault, prefix: &str, beside: usize) -> Outcome {
    let struck = async {
        set_out(lab, subject, fault, prefix, beside).await?;
        strike::one(lab, subject, fault, prefix).await
    }
    .await;
    let trouble = end(subject, fault, prefix).await.err();
    Outcome { struck, trouble }
}

/// The fleet whole, idle and injected; then its tasks sent, and one of them running.
async fn set_out(lab: &Lab, subject: &Subject, fault: Fault, prefix: &str, beside: usize) -> Result<()> {
    if fault.is_in_a_wave() {
        // Rounds follow each other every minute or so, and a load that returns as soon as that teaches QScaler to let no pod go: no wave would come.
        subject.fleet.renew().await?;
    }
    whole(lab, subject).await?;
    let name = prefix.trim_end_matches('/');
    // A fault of the whole cluster waits for the wave, and more tasks are sent meanwhile.
    let outlasting = if fault.is_global() { 0.0 } else { rows::idle_seen_after(subject.row) };
    let tasks = if fault.is_in_a_wave() { plan::falling(name, beside, outlasting) } else { plan::full(name, beside) };
    subject.send(&tasks).await?;
    at_work(subject, prefix, 1).await
}

async fn whole(lab: &Lab, subject: &Subject) -> Result<()> {
    let fleet = &subject.fleet;
    fleet.annotate("scaling", "managed").await?;
    for bound in ["max-replicas", "min-replicas"] {
        fleet.annotate(bound, &PODS.to_string()).await?;
    }
    fleet.wait_ready(PODS as usize).await?;
    wait_for(&format!("{}: every pod carries the sidecar", fleet.name), STEP, || async {
        let bare = lab.observer.of(&fleet.name).iter().filter(|seen| !seen.gone && !seen.is_injected()).count();
        if bare == 0 { Ok(()) } else { Err(format!("{bare} do not")) }
    })
    .await
}

/// Waits until tasks run in this many pods at least, and go on for a while.
///
/// # Errors
/// They do not in time.
pub async fn at_work(subject: &Subject, prefix: &str, pods: usize) -> Result<()> {
    wait_for(&format!("{}: tasks of {prefix} run in {pods} pods", subject.fleet.name), STEP, || async {
        let running = subject.running(prefix, LEFT).await.map_err(|e| e.to_string())?;
        let hosts: BTreeSet<String> = running.into_iter().map(|run| run.host).collect();
        if hosts.len() >= pods { Ok(()) } else { Err(format!("in {}", hosts.len())) }
    })
    .await
}

/// Waits until every task is done, or until there has been nothing new for `still` seconds: neither in the ledger nor a pod that is Ready for the first time.
/// A pod that starts is waited for, at most [`STEP`] longer: on a busy machine tasks that went back into the queue wait for it. `look` is asked each time, and
/// its error ends the wait.
///
/// # Errors
/// `look` gives one, or the ledger or the API server does not answer.
pub async fn settled(subject: &Subject, prefix: &str, still: f64, look: impl AsyncFn() -> Result<()>) -> Result<Counts> {
    let (mut seen, mut since) = (0, now());
    let mut started = BTreeSet::new();
    loop {
        look().await?;
        let (sent, runs) = subject.runs(prefix).await?;
        let counts = Counts::of(sent, &runs, &[]);
        if !counts.is_unsettled() {
            return Ok(counts);
        }
        let pods = subject.fleet.pods().await?;
        started.extend(pods.iter().filter(|pod| is_ready(pod)).map(name_of));
        let starting = pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_none() && !started.contains(&name_of(pod)));
        let size = runs.len() + counts.done + started.len();
        if size != seen {
            (seen, since) = (size, now());
        }
        if now() - since > still + if starting { STEP.as_secs_f64() } else { 0.0 } {
            return Ok(counts);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn still(fleet: &Fleet, counts: Counts) -> anyhow::Error {
    let Counts { sent, done, cut, .. } = counts;
    anyhow!("{}: {done} of {sent} tasks done and nothing new for {STILL} s; {cut} runs without an end", fleet.name)
}

/// Lets pods that are ending and have no task any more end now, as a person would who sees them stay.
///
/// # Errors
/// The API server refuses.
pub async fn end_at_once(fleet: &Fleet) -> Result<()> {
    for pod in fleet.pods().await?.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
        kubectl(&["-n", &fleet.name, "delete", "pod", &name_of(pod), "--grace-period=1", "--wait=false", "--ignore-not-found"], None).await?;
    }
    Ok(())
}

/// Every task done, and after a wave the count where the wave was to lead.
async fn end(subject: &Subject, fault: Fault, prefix: &str) -> Result<()> {
    let fleet = &subject.fleet;
    let exception = exceptions::of(subject.row.slug, fault);
    if fault == Fault::Protect {
        // One pod may have the rest of the queue to itself; that would only take longer.
        fleet.scale(PODS).await?;
    }
    let counts = settled(subject, prefix, STILL, async || Ok(())).await?;
    if counts.is_unsettled() && !exception.is_some_and(|allowed| (counts.lost == 0 || allowed.lost) && (counts.cut == 0 || allowed.cut)) {
        let pods = fleet.pods().await.map(|pods| describe(&pods)).unwrap_or_default();
        return Err(still(fleet, counts).context(pods));
    }
    if exception.is_some_and(|allowed| allowed.stays) {
        return end_at_once(fleet).await;
    }
    if !fault.is_in_a_wave() {
        return Ok(());
    }
    wait_for(&format!("{}: the wave's end, one pod or pods that are kept for load that has come back before", fleet.name), STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        let status = fleet.qworker().await.ok().flatten().map(|w| w["status"]["reason"].to_string()).unwrap_or_default();
        let one = pods.len() == 1 && is_ready(&pods[0]);
        if one || KEPT.iter().all(|part| status.contains(part)) { Ok(()) } else { Err(format!("{}; {status}", describe(&pods))) }
    })
    .await
}

// === the whole cluster ===

/// A fleet that does not get to work is left out of the strike, and its cell says why.
async fn globally(lab: &Lab, subjects: &[&Subject], fault: Fault, prefix: &str) -> Vec<Outcome> {
    let ready: Vec<Result<()>> = match fault {
        Fault::WebhookDown => {
            let ready = join_all(subjects.iter().map(|subject| whole(lab, subject))).await;
            match lab.system.webhook_down().await {
                Ok(()) => ready,
                Err(error) => subjects.iter().map(|_| Err(anyhow!("{error:#}"))).collect(),
            }
        }
        _ => subjects.iter().map(|_| Ok(())).collect(),
    };
    let begun = join_all(subjects.iter().zip(&ready).map(|(subject, ready)| async move {
        if ready.is_err() {
            return Ok(());
        }
        set_out(lab, subject, fault, prefix, subjects.len()).await?;
        if fault.is_in_a_wave() { wave_begins(lab, subject, prefix).await } else { Ok(()) }
    }))
    .await;
    let ready: Vec<Result<()>> = ready.into_iter().zip(begun).map(|(ready, begun)| ready.and(begun)).collect();
    let there: Vec<&Subject> = subjects.iter().zip(&ready).filter(|(_, ready)| ready.is_ok()).map(|(subject, _)| *subject).collect();
    let struck = match all_at_work(&there, prefix).await {
        Ok(()) => strike::everywhere(lab, &there, fault, prefix).await.map_err(|error| format!("{error:#}")),
        Err(error) => Err(format!("{error:#}")),
    };
    let hit = struck.is_ok();
    let ends = join_all(subjects.iter().zip(&ready).map(|(subject, ready)| async move {
        match (ready, fault, hit) {
            // Its tasks, if any were sent, are counted as they are.
            (Err(_), _, _) => Ok(()),
            (Ok(()), Fault::WebhookDown, true) => blocked_while_bare(subject, prefix).await,
            _ => end(subject, fault, prefix).await,
        }
    }));
    let ends = ends.await;
    let outcome = |(ready, end): (Result<()>, Result<()>)| Outcome {
        struck: ready.and_then(|()| struck.clone().map_err(anyhow::Error::msg)),
        trouble: end.err(),
    };
    ready.into_iter().zip(ends).map(outcome).collect()
}

/// Lets the count fall, and waits until it begins to: a pod is marked, or has left, or the count is lower.
async fn wave_begins(lab: &Lab, subject: &Subject, prefix: &str) -> Result<()> {
    let (fleet, since) = (&subject.fleet, now());
    fleet.annotate("min-replicas", "1").await?;
    wait_for(&format!("{}: a wave begins during {prefix}", fleet.name), STEP, || async {
        let after = |at: Option<f64>| at.is_some_and(|at| at + 1.0 >= since);
        let begun = lab.observer.of(&fleet.name).iter().any(|seen| after(seen.marked_at) || after(seen.asked_at));
        if begun { Ok(()) } else { Err("no pod is marked or leaves".to_owned()) }
    })
    .await
}

/// Every fleet has a task that goes on for a while, all at one time.
async fn all_at_work(subjects: &[&Subject], prefix: &str) -> Result<()> {
    let name = prefix.trim_end_matches('/');
    for number in 1..=TOP_UPS {
        let looks = join_all(subjects.iter().map(|subject| subject.running(prefix, LEFT))).await;
        let looks = looks.into_iter().collect::<Result<Vec<_>>>()?;
        let idle: Vec<&&Subject> = subjects.iter().zip(&looks).filter(|(_, running)| running.is_empty()).map(|(subject, _)| subject).collect();
        if idle.is_empty() {
            return Ok(());
        }
        let more = plan::more(name, number, subjects.len());
        let sent = join_all(idle.iter().map(|subject| async {
            subject.send(&more).await?;
            at_work(subject, prefix, 1).await
        }));
        sent.await.into_iter().collect::<Result<Vec<()>>>()?;
    }
    bail!("the fleets are never all at work at one time: the machine is too slow for {} of them", subjects.len())
}

/// With a pod in the fleet that has no sidecar the count must stay, though a lower one is wanted.
async fn blocked_while_bare(subject: &Subject, prefix: &str) -> Result<()> {
    let fleet = &subject.fleet;
    let counts = settled(subject, prefix, STILL, async || {
        let replicas = fleet.replicas().await?;
        ensure!(replicas >= PODS as i32, "{}: the count was lowered to {replicas} though a pod has no sidecar", fleet.name);
        Ok(())
    })
    .await?;
    if counts.is_unsettled() {
        return Err(still(fleet, counts));
    }
    fleet.wait_condition("ScaleDownBlocked", "True", STEP).await.map(drop)
}

/// The cluster as it was.
async fn restore(lab: &Lab, subjects: &[&Subject], fault: Fault) -> Result<()> {
    match fault {
        Fault::ControllerKilled | Fault::LeaderChange => lab.system.wait_controllers().await,
        Fault::WebhookDown => {
            lab.system.webhook_up().await?;
            // Pods without sidecar are replaced by the user, as their condition says; nothing runs in them any more.
            let renewed = join_all(subjects.iter().map(|subject| async {
                let ns = &subject.fleet.name;
                subject.fleet.annotate("min-replicas", &PODS.to_string()).await?;
                // Again, should the API server not have reached the webhook yet when the first new pod was made.
                wait_for(&format!("{ns}: every pod carries the sidecar again"), STEP, || async {
                    for words in [["restart", "deployment", DEPLOYMENT], ["status", "deployment", DEPLOYMENT]] {
                        let mut args = vec!["-n", ns, "rollout"];
                        args.extend(words);
                        kubectl(&args, None).await.map_err(|e| e.to_string())?;
                    }
                    let asked = |seen: &&super::observe::Seen| !seen.gone && seen.asked_at.is_none() && !seen.is_injected();
                    let bare = lab.observer.of(ns).iter().filter(asked).count();
                    if bare == 0 { Ok(()) } else { Err(format!("{bare} do not")) }
                })
                .await
            }));
            renewed.await.into_iter().collect::<Result<Vec<()>>>().map(drop)
        }
        _ => Ok(()),
    }
}

// === the control arm ===

/// The same without QScaler: a fleet of its own for each row, made and removed here.
pub async fn control(lab: &Lab, rows: &[Row]) -> Vec<Cell> {
    let beside = rows.len();
    join_all(rows.iter().copied().map(|row| async move {
        let begin = now();
        let name = format!("mx-control-{}", row.slug);
        let cell = |counts, hit, trouble| Cell {
            row: row.slug,
            fault: Fault::Control,
            prefixes: vec!["control/".to_owned()],
            counts,
            hit,
            counted: None,
            trouble,
            seconds: now() - begin,
        };
        match control_cut(lab, row, &name, beside).await {
            Ok((counts, hit)) => cell(counts, hit, None),
            Err(error) => cell(Counts::default(), Err(String::new()), Some(format!("{error:#}"))),
        }
    }))
    .await
}

async fn control_cut(lab: &Lab, row: Row, name: &str, beside: usize) -> Result<(Counts, Result<super::cell::Hit, String>)> {
    let fleet = Fleet::create(lab.stand, rows::unmanaged(row, name, PODS, CONTROL_GRACE)).await?;
    let subject = Subject::new(row, fleet);
    let result = control_wave(lab, &subject, name, beside).await;
    subject.fleet.remove().await?;
    result
}

async fn control_wave(lab: &Lab, subject: &Subject, name: &str, beside: usize) -> Result<(Counts, Result<super::cell::Hit, String>)> {
    subject.send(&plan::full("control", beside)).await?;
    // Of three pods two leave: with two at work, one of these at least.
    at_work(subject, "control/", PODS as usize - 1).await?;
    let since = now();
    subject.fleet.scale(1).await?;
    let left = wait_for(&format!("{name}: one pod left"), STEP, || async {
        let pods = subject.fleet.pods().await.map_err(|e| e.to_string())?;
        if pods.len() == 1 { Ok(pods) } else { Err(describe(&pods)) }
    })
    .await?;
    let live: Vec<String> = left.iter().map(name_of).collect();
    let (sent, runs) = subject.runs("control/").await?;
    let mut counts = Counts::of(sent, &runs, &live);
    // What waits in the queue is not lost; what is left to say here is how many runs were cut.
    (counts.lost, counts.doubled) = (0, 0);
    let hit = Struck::Pods { since, proof: "plain /scale to 1".into() }.hit(&runs, &lab.observer.of(name));
    Ok((counts, hit))
}
