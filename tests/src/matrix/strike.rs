//! The faults themselves. In: fleets at work. Out: the fault, and when and where it struck. Left to others: getting fleets to work and counting (`round`).

use super::cell::Hit;
use super::fault::Fault;
use super::lab::{Lab, PODS, Run, Subject};
use super::observe::Seen;
use super::{now, plan, process};
use crate::stand::BrokerKind;
use crate::stand::fleet::{DEPLOYMENT, STEP, name_of};
use crate::stand::kubectl::kubectl;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail, ensure};
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;
use qscaler_core::names::sidecar::CONTAINER as SIDECAR;
use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

/// A task must go on for so long when a fault begins, in seconds: starting kubectl takes a part of it, more on a busy machine.
pub const LEFT: f64 = 6.0;
/// The same where the sidecar must first have been told of the pod's end.
const LEFT_HELD: f64 = 10.0;
/// How long a broker is away: longer than it takes to start, so that clients do notice.
const OUTAGE: Duration = Duration::from_secs(3);
/// How often a parked pod is looked for: it stays so for about a second.
const QUICK: Duration = Duration::from_millis(20);
/// Numbers of tasks that are sent while a fault goes on begin here, beyond those of plans.
const FIRST_FEED: usize = 10;
/// So often more tasks are sent during one fault at most: two of 15 s for each, for three workers.
const FEEDS_MAX: usize = 60;
/// Between two looks at how many are left.
const FEED_LOOK: Duration = Duration::from_millis(500);
/// A task that has run for so many seconds is in RabbitMQ's figures, which are 6 s old at most where it gathers them each second, as the stand's does. Before that a freeze gate may have stopped its worker for a look,
/// and one whose sidecar is killed then stands still: what that means is in docs/frameworks.md, and is no matter of this fault.
const SEEN_AFTER: f64 = 7.0;
/// What a sidecar's log says once the hold has begun.
const HELD: &str = "\"now\":\"Held\"";
/// The sidecar lives on for so long after that: a second signal is taken for the first by some workers when it comes at once (RQ: within a second).
const HELD_FOR: Duration = Duration::from_secs(2);

/// When and where a fault struck.
#[derive(Clone, Debug, PartialEq)]
pub enum Struck {
    /// Pods were made to leave from then on: tasks in them were met.
    Pods {
        /// Seconds since the Unix epoch.
        since: f64,
        /// What shows that it happened.
        proof: String,
    },
    /// The count was lowered from then on: tasks that ran in the fleet while a pod left were met.
    Wave {
        /// Seconds since the Unix epoch.
        since: f64,
    },
    /// It happened at one moment: tasks that ran then were met, in the whole fleet or in one pod.
    Moment {
        /// Seconds since the Unix epoch.
        at: f64,
        /// The pod; None: any of the fleet.
        host: Option<String>,
        /// What shows that it happened.
        proof: String,
    },
}

impl Struck {
    /// Which tasks it met.
    ///
    /// # Errors
    /// None, and why.
    pub fn hit(&self, runs: &[Run], pods: &[Seen]) -> Result<Hit, String> {
        let left = |since: f64| {
            let asked = move |seen: &&Seen| seen.asked_at.is_some_and(|at| at + 1.0 >= since);
            pods.iter().filter(asked).filter_map(|seen| Some((name_of(&seen.pod), seen.asked_at?))).collect::<Vec<_>>()
        };
        let (tasks, proof) = match self {
            Self::Pods { since, proof } => {
                let left = left(*since);
                // The API gives whole seconds: the task ran through all of that second.
                let met = |run: &&Run| left.iter().any(|(name, at)| *name == run.host && run.covers(at.max(*since), at + 1.0));
                (runs.iter().filter(met).count(), format!("{proof}; {} pods asked to leave", left.len()))
            }
            Self::Wave { since } => {
                let left = left(*since);
                let met = |run: &&Run| left.iter().any(|(_, at)| run.covers(*at, at + 1.0));
                (runs.iter().filter(met).count(), format!("{} pods left by a lower count", left.len()))
            }
            Self::Moment { at, host, proof } => {
                let met = |run: &&Run| run.covers(*at, *at) && host.as_ref().is_none_or(|host| *host == run.host);
                (runs.iter().filter(met).count(), proof.clone())
            }
        };
        if tasks == 0 { Err(format!("no task ran when it struck ({proof})")) } else { Ok(Hit { tasks, proof }) }
    }
}

/// A fault that meets one fleet alone. The fleet has tasks that run.
///
/// # Errors
/// It could not be done.
pub async fn one(lab: &Lab, subject: &Subject, fault: Fault, prefix: &str) -> Result<Struck> {
    let (fleet, since) = (&subject.fleet, now());
    let ns = &fleet.name;
    match fault {
        Fault::Wave => {
            // The maximum too: after a burst the law keeps pods that arrivals times service time may still need, and a wave is to meet running tasks.
            for bound in ["min-replicas", "max-replicas"] {
                fleet.annotate(bound, "1").await?;
            }
            Ok(Struck::Wave { since })
        }
        Fault::Rollout => {
            kubectl(&["-n", ns, "rollout", "restart", "deployment", DEPLOYMENT], None).await?;
            // An old pod leaves when a new one is ready, which takes as long as it takes: until then there is work.
            let status = ["-n", ns, "rollout", "status", "deployment", DEPLOYMENT, "--timeout=300s"];
            fed(subject, prefix, kubectl(&status, None)).await?;
            Ok(Struck::Pods { since, proof: "rollout complete".into() })
        }
        Fault::Delete => {
            let hosts = busy_hosts(subject, prefix, LEFT).await?;
            let mut args = vec!["-n", ns, "delete", "pod", "--wait=false"];
            args.extend(hosts.iter().map(String::as_str));
            kubectl(&args, None).await?;
            Ok(Struck::Pods { since, proof: format!("{} busy pods deleted", hosts.len()) })
        }
        Fault::Eviction => {
            let hosts = busy_hosts(subject, prefix, LEFT).await?;
            let pods: Api<Pod> = Api::namespaced(lab.client.clone(), ns);
            for host in &hosts {
                pods.evict(host, &EvictParams::default()).await.with_context(|| format!("the eviction of {host} was not accepted"))?;
            }
            Ok(Struck::Pods { since, proof: format!("{} evictions of busy pods accepted", hosts.len()) })
        }
        Fault::Protect => protect(lab, subject, prefix).await,
        Fault::SidecarKilledHeld => killed_held(lab, subject, prefix).await,
        Fault::SidecarKilledParked => killed_parked(lab, subject, prefix).await,
        other => bail!("{} is no fault of one fleet", other.name()),
    }
}

/// Sends more tasks whenever few are left, until `until` is over; never leaves a sending half done.
async fn fed<T>(subject: &Subject, prefix: &str, until: impl Future<Output = Result<T>>) -> Result<T> {
    let over = Cell::new(false);
    let until = async {
        let result = until.await;
        over.set(true);
        result
    };
    let feed = async {
        for number in FIRST_FEED..FIRST_FEED + FEEDS_MAX {
            loop {
                if over.get() {
                    return Ok(());
                }
                let (sent, runs) = subject.runs(prefix).await?;
                if sent - runs.iter().filter(|run| run.done.is_some()).count().min(sent) < PODS as usize {
                    break;
                }
                tokio::time::sleep(FEED_LOOK).await;
            }
            subject.send(&plan::more(prefix, number, 1)).await?;
        }
        anyhow::Ok(())
    };
    let (result, fed) = futures::join!(until, feed);
    fed?;
    result
}

async fn busy_hosts(subject: &Subject, prefix: &str, left: f64) -> Result<Vec<String>> {
    let mut hosts: Vec<String> = subject.running(prefix, left).await?.into_iter().map(|run| run.host).collect();
    hosts.sort();
    hosts.dedup();
    ensure!(!hosts.is_empty(), "no task goes on for {left} s");
    Ok(hosts)
}

/// Two waves of plain `/scale` calls, as another scaler makes them.
async fn protect(lab: &Lab, subject: &Subject, prefix: &str) -> Result<Struck> {
    let fleet = &subject.fleet;
    fleet.annotate("scaling", "protect").await?;
    let since = now();
    for wave in 1..=2 {
        // Until QScaler has seen the annotation it may raise the count once more.
        wait_for("the count stays as another scaler wrote it", STEP, || async {
            fleet.scale(1).await.map_err(|e| e.to_string())?;
            let asked = lab.observer.of(&fleet.name).iter().filter(|s| s.asked_at.is_some_and(|at| at + 1.0 >= since)).count();
            let active = fleet.pods().await.map_err(|e| e.to_string())?.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).count();
            if active == 1 && asked >= 2 * wave { Ok(()) } else { Err(format!("{active} active pods, {asked} asked to leave")) }
        })
        .await?;
        if wave == 1 {
            fleet.scale(PODS).await?;
            wait_for("the pods of the second wave", STEP, || async {
                let ready = fleet.pods().await.map_err(|e| e.to_string())?.iter().filter(|p| crate::stand::fleet::is_ready(p)).count();
                if ready == PODS as usize { Ok(()) } else { Err(format!("{ready} Ready")) }
            })
            .await?;
            subject.send(&plan::more(prefix, 2, 1)).await?;
            wait_for("the second wave's tasks run", STEP, || async {
                let running = subject.running(prefix, LEFT).await.map_err(|e| e.to_string())?;
                if running.is_empty() { Err("none".to_owned()) } else { Ok(()) }
            })
            .await?;
        }
    }
    Ok(Struck::Pods { since, proof: "/scale written to 1, to 3 and to 1 again".into() })
}

async fn killed_held(lab: &Lab, subject: &Subject, prefix: &str) -> Result<Struck> {
    let ns = &subject.fleet.name;
    let host = wait_for("a task has run for a while", STEP, || async {
        let running = subject.running(prefix, LEFT_HELD).await.map_err(|e| e.to_string())?;
        let of_running = running.len();
        let old = running.into_iter().find(|run| now() - run.start >= SEEN_AFTER);
        old.map(|run| run.host).ok_or_else(|| format!("{of_running} tasks go on for {LEFT_HELD} s"))
    })
    .await?;
    kubectl(&["-n", ns, "delete", "pod", &host, "--wait=false"], None).await?;
    wait_for(&format!("{host} is held"), STEP, || async {
        let log = kubectl(&["-n", ns, "logs", &host, "-c", SIDECAR], None).await.map_err(|e| e.to_string())?;
        if log.contains(HELD) { Ok(()) } else { Err(format!("its log does not say {HELD}")) }
    })
    .await?;
    tokio::time::sleep(HELD_FOR).await;
    let seen = lab.observer.pod(ns, &host).with_context(|| format!("{host} is not watched"))?;
    let id = seen.sidecar().and_then(|c| c.container_id.clone()).with_context(|| format!("{host} has no sidecar"))?;
    let at = now();
    let pid = process::kill(&id)?;
    wait_killed(lab, ns, &host).await?;
    Ok(Struck::Moment { at, host: Some(host.clone()), proof: format!("sidecar of {host}, process {pid}, killed while it held the end of its pod") })
}

async fn wait_killed(lab: &Lab, ns: &str, pod: &str) -> Result<()> {
    wait_for(&format!("{pod}: the kubelet says that its sidecar was killed"), STEP, || async {
        match lab.observer.pod(ns, pod) {
            Some(seen) if seen.sidecar_killed_at.is_some() => Ok(()),
            Some(seen) => Err(format!("gone: {}, {:?}", seen.gone, seen.sidecar().map(|c| &c.state))),
            None => Err("not seen".into()),
        }
    })
    .await
}

async fn killed_parked(lab: &Lab, subject: &Subject, prefix: &str) -> Result<Struck> {
    let ns = &subject.fleet.name;
    subject.fleet.annotate("min-replicas", "1").await?;
    let begin = now();
    let (host, pid, at) = loop {
        let parked = lab.observer.of(ns).into_iter().find(|seen| seen.is_parked() && seen.marked_at.is_some_and(|at| at >= begin));
        if let Some(seen) = parked
            && let Some(id) = seen.sidecar().and_then(|c| c.container_id.clone())
        {
            let host = name_of(&seen.pod);
            break (host, process::kill(&id)?, now());
        }
        ensure!(now() - begin < STEP.as_secs_f64(), "no pod was parked within {} s", STEP.as_secs());
        tokio::time::sleep(QUICK).await;
    };
    let ending = lab.observer.pod(ns, &host).and_then(|seen| seen.asked_at).is_some_and(|asked| asked < at.floor());
    ensure!(!ending, "{host} was ending already when its sidecar was killed");
    wait_killed(lab, ns, &host).await?;
    // Work for a worker whose sidecar has forgotten that it was parked.
    subject.send(&plan::more(prefix, 1, 1)).await?;
    Ok(Struck::Moment { at, host: None, proof: format!("sidecar of {host}, process {pid}, killed while {host} had the mark of a parked pod") })
}

/// A fault that meets every fleet at once. Each has tasks that run, and is in a wave if the fault wants that.
///
/// # Errors
/// It could not be done.
pub async fn everywhere(lab: &Lab, subjects: &[&Subject], fault: Fault, prefix: &str) -> Result<Struck> {
    let since = now();
    match fault {
        Fault::Drain => drain().await.map(|proof| Struck::Pods { since, proof }),
        Fault::ControllerKilled => {
            let killed = lab.system.kill_leader().await?;
            let at = now();
            let restarts = lab.system.wait_restarted(&killed).await?;
            let proof = format!("{}, process {}, killed; its restart count is {restarts}", killed.pod, killed.process);
            Ok(Struck::Moment { at, host: None, proof })
        }
        Fault::LeaderChange => {
            let before = lab.system.send_leader_away().await?;
            let at = now();
            let after = lab.system.wait_other_leader(&before).await?;
            Ok(Struck::Moment { at, host: None, proof: format!("the lease went from {before} to {after}") })
        }
        Fault::BrokerRestarted => {
            let mut kinds: Vec<BrokerKind> = Vec::new();
            for kind in subjects.iter().map(|s| s.row.broker) {
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            let stand = lab.stand;
            let restarts = kinds.iter().map(|kind| {
                let kind = *kind;
                async move {
                    let (before, after) = tokio::task::spawn_blocking(move || stand.restart_broker(kind, OUTAGE)).await??;
                    anyhow::Ok(format!("{} process {before} killed, {after} started {} s later", kind.name(), OUTAGE.as_secs()))
                }
            });
            let proof = try_join_all(restarts).await?.join(", ");
            Ok(Struck::Moment { at: since, host: None, proof })
        }
        Fault::WebhookDown => {
            let bare = join_all(subjects.iter().map(|subject| replaced_bare(lab, subject, prefix))).await;
            let names = bare.into_iter().collect::<Result<Vec<String>>>()?;
            Ok(Struck::Pods { since, proof: format!("no webhook; busy pods deleted, their replacements have no sidecar ({})", names.join(", ")) })
        }
        other => bail!("{} is no fault of the whole cluster", other.name()),
    }
}

/// Drains the only node of the workers' pods; it takes pods again afterwards.
async fn drain() -> Result<String> {
    let node = kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"], None).await?;
    let drained = kubectl(&["drain", &node, &format!("--pod-selector=app={DEPLOYMENT}"), "--timeout=240s"], None).await;
    kubectl(&["uncordon", &node], None).await?;
    let evicted = drained?.lines().filter(|line| line.contains("evicted")).count();
    Ok(format!("kubectl drain evicted {evicted} pods of the cluster"))
}

/// Deletes a busy pod and waits for its replacement, which nobody injects.
async fn replaced_bare(lab: &Lab, subject: &Subject, prefix: &str) -> Result<String> {
    let ns = &subject.fleet.name;
    let host = busy_hosts(subject, prefix, LEFT).await?.swap_remove(0);
    kubectl(&["-n", ns, "delete", "pod", &host, "--wait=false"], None).await?;
    let name = wait_for(&format!("{ns}: a pod without sidecar"), STEP, || async {
        let bare = lab.observer.of(ns).into_iter().find(|seen| !seen.gone && !seen.is_injected());
        bare.map(|seen| name_of(&seen.pod)).ok_or_else(|| "none".to_owned())
    })
    .await?;
    // A wave is due, and must wait.
    subject.fleet.annotate("min-replicas", "1").await?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(host: &str, start: f64, done: Option<f64>) -> Run {
        Run { task: "t".into(), host: host.into(), start, done }
    }

    fn asked(name: &str, at: f64) -> Seen {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        Seen { pod, asked_at: Some(at), marked_at: None, sidecar_killed_at: None, gone: false }
    }

    #[test]
    fn a_task_is_met_only_in_a_pod_that_was_asked_to_leave_while_it_ran() {
        let struck = Struck::Pods { since: 9.5, proof: String::new() };
        let pods = [asked("a", 10.0), asked("old", 3.0)];
        assert_eq!(struck.hit(&[run("a", 5.0, Some(20.0)), run("b", 5.0, Some(20.0))], &pods).map(|h| h.tasks), Ok(1));
        for miss in [run("a", 5.0, Some(10.5)), run("a", 10.5, Some(20.0)), run("old", 1.0, Some(20.0))] {
            assert!(struck.hit(&[miss], &pods).is_err());
        }
    }

    #[test]
    fn a_wave_meets_whatever_ran_in_the_fleet_while_a_pod_left() {
        let struck = Struck::Wave { since: 9.0 };
        assert!(struck.hit(&[run("b", 5.0, None)], &[asked("a", 10.0)]).is_ok());
        assert!(struck.hit(&[run("b", 5.0, Some(9.0))], &[asked("a", 10.0)]).is_err());
        assert!(struck.hit(&[run("b", 5.0, None)], &[]).is_err());
    }

    #[test]
    fn a_moment_meets_what_ran_then_and_there() {
        let there = Struck::Moment { at: 10.0, host: Some("a".into()), proof: String::new() };
        assert!(there.hit(&[run("a", 5.0, Some(10.1))], &[]).is_ok());
        assert!(there.hit(&[run("b", 5.0, Some(10.1))], &[]).is_err());
        let anywhere = Struck::Moment { at: 10.0, host: None, proof: String::new() };
        assert!(anywhere.hit(&[run("b", 5.0, Some(10.1))], &[]).is_ok());
        assert!(anywhere.hit(&[run("b", 11.0, None)], &[]).is_err());
    }
}
