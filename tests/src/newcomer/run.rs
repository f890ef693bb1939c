//! The way of a newcomer, step by step. In: a cluster without QScaler, a registry with a login, which frameworks, a folder to work in. Out: what became of each step. Left to
//! others: commands and annotations (`docs`), faults (`faults`), what is left (`left`), the outcome (`sum`).
//!
//! A step that goes wrong does not end the way, so that one run tells as much as it can; only without an installation there is no way.

use super::docs::{annotations, commands, file, page, with};
use super::faults::{Fault, Planted, plant};
use super::left;
use super::sum::{Step, Sum};
use crate::stand::fleet::{Fleet, FleetOptions, STEP, Task};
use crate::stand::framework::{ARQ, BRPOP, BULLMQ, CELERY_REDIS, DRAMATIQ_REDIS, Framework, HUEY, PIKA, RQ, SIDEKIQ};
use crate::stand::kubectl::kubectl;
use crate::stand::{SYSTEM_NAMESPACE, Stand};
use crate::wait::wait_for;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Headings of the page and what the test images have for them.
pub static FRAMEWORKS: [(&str, &Framework); 9] = [
    ("## Celery", &CELERY_REDIS),
    ("## RQ", &RQ),
    ("## Dramatiq", &DRAMATIQ_REDIS),
    ("## Huey", &HUEY),
    ("## arq", &ARQ),
    ("## Sidekiq", &SIDEKIQ),
    ("## BullMQ", &BULLMQ),
    ("## A consumer of RabbitMQ", &PIKA),
    ("## A loop over a Redis list", &BRPOP),
];
/// What doctor must see of a fault that was just planted, and that it is mended, within this.
const SEEN_WITHIN: Duration = Duration::from_secs(120);
/// Tasks that each framework gets, and how long each takes, seconds.
const TASKS: (usize, f64) = (4, 2.0);
/// The namespace of the pages' examples: the first framework's fleet lives there to the end.
const SHOP: &str = "shop";

/// The heading whose commands install from a registry with a login.
const LOGIN: &str = "## From a registry with a login";

/// Goes the way; each step's line goes to `tell` at once. `registry`: with images and chart below `HOST/qscaler`. `parts`: only frameworks whose heading has one of these; none:
/// all. Files that a page has one write are written into the current folder.
///
/// # Errors
/// There is no cluster, a page has no such command any more, or the installation fails.
pub async fn run(registry: &Login<'_>, parts: &[String], tell: impl FnMut(&str)) -> Result<Sum> {
    let stand = Stand::get().await?;
    let mut way = Way { sum: Sum::default(), tell };
    let before = left::objects().await?;
    let start = page("docs/getting-started.md")?;
    let first = commands(&start, "# Getting started")?;

    let lines = commands(&start, LOGIN)?;
    let [login, namespace, own, theirs, install] = lines.as_slice() else { bail!("{LOGIN}: {} commands in place of 5", lines.len()) };
    std::fs::write("password.txt", format!("{}\n", registry.password)).context("password.txt")?;
    std::fs::write("values.yaml", registry.named(&file(&start, LOGIN)?)?).context("values.yaml")?;
    for line in [registry.logged_in(login)?, namespace.clone(), registry.secret(own, None)?] {
        way.shell(&line).await;
    }
    ensure!(way.shell(&registry.helm(install)?).await, "without an installation there is nothing to try");
    way.step("what the notes say: it becomes ready", ready()).await;
    way.shell(&first[2]).await;

    let mut shop = None;
    for &(heading, framework) in FRAMEWORKS.iter().filter(|(heading, _)| parts.is_empty() || parts.iter().any(|part| heading.contains(part.as_str())))
    {
        let name = if shop.is_none() { SHOP } else { framework.slug };
        let mut made = None;
        let title = format!("getting started: {}", heading.trim_start_matches("## "));
        way.step(&title, async {
            kubectl(&["create", "namespace", name], None).await?;
            shell(&registry.secret(theirs, Some(name))?).await?;
            made = Some(begin(stand, framework, name, &start, heading, &first[1]).await?);
            work(made.as_ref().context("a fleet")?).await
        })
        .await;
        if shop.is_none() {
            shop = made;
        } else if let Some(fleet) = made {
            fleet.discard().await?;
        }
    }
    for line in commands(&start, "## See that it works")? {
        way.shell(line.trim_end_matches(" --watch")).await;
    }

    for fault in Fault::ALL {
        if let Some(namespace) = fault.fleet() {
            // Before its pods: what is to be found is the fault, and not an image that nobody may pull.
            kubectl(&["create", "namespace", namespace], None).await?;
            shell(&registry.secret(theirs, Some(namespace))?).await?;
        }
        let said = way.fault(stand, fault).await;
        way.sum.fault(fault.name(), said);
    }

    let upgrade = page("docs/upgrade.md")?;
    let (forth, back) = (commands(&upgrade, "## Upgrade")?, commands(&upgrade, "## Go back")?);
    let newer = registry.helm(&forth[0])?;
    // A value that is another has every pod made anew, as another release would.
    for (command, doctor) in [(newer.clone() + " --set logFormat=text", &forth[1]), (back[0].clone(), &back[1])] {
        way.shell(&command).await;
        way.step("all parts become ready", ready()).await;
        // A leader that has just begun knows its brokers some seconds later; whoever reads a fault there looks again.
        way.step(doctor, async {
            wait_for("doctor has no fault", SEEN_WITHIN, || async { shell(doctor).await.map_err(|e| e.to_string()) }).await.map(drop)
        })
        .await;
        if let Some(fleet) = shop.as_ref() {
            way.step("tasks are done as before", work(fleet)).await;
        }
    }
    way.shell(&(newer + " --set cleanUp.enabled=true")).await;
    way.step("all parts become ready", ready()).await;

    for line in commands(&upgrade, "## Uninstall")? {
        way.shell(&line).await;
        if let (true, Some(fleet)) = (line.contains("rollout restart"), shop.as_ref()) {
            way.step("the pods of before have left", gone(fleet)).await;
        }
    }
    for line in commands(&page("docs/injection.md")?, "## Uninstall")? {
        way.shell(&line.replace("NAME", SHOP)).await;
    }
    way.sum.left_behind = remains(&before).await?;
    Ok(way.sum)
}

/// The registry in place of those that the pages name, and who may pull from it.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// `HOST:PORT`, by HTTP.
    pub host: &'a str,
    /// Who.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
}

impl Login<'_> {
    fn named(&self, text: &str) -> Result<String> {
        let theirs = ["registry.example.com", "ghcr.io"].into_iter().find(|name| text.contains(name)).unwrap_or("registry.example.com");
        with(text, &[(theirs, self.host)])
    }

    /// A command of Helm's.
    fn helm(&self, command: &str) -> Result<String> {
        Ok(self.named(command)? + " --plain-http")
    }

    /// The login.
    fn logged_in(&self, command: &str) -> Result<String> {
        with(&self.helm(command)?, &[("NAME", self.user)])
    }

    /// The command that makes the Secret; in this namespace in place of the page's.
    fn secret(&self, command: &str, namespace: Option<&str>) -> Result<String> {
        let command = with(&self.named(command)?, &[("NAME", self.user)])?;
        namespace.map_or(Ok(command.clone()), |namespace| with(&command, &[(&format!("-n {SHOP} "), &format!("-n {namespace} "))]))
    }
}

struct Way<T> {
    sum: Sum,
    tell: T,
}

impl<T: FnMut(&str)> Way<T> {
    /// One step; whether it went well.
    async fn step(&mut self, name: &str, work: impl Future<Output = Result<()>>) -> bool {
        let begin = Instant::now();
        let wrong = work.await.err().map(|error| format!("{error:#}"));
        let step = Step { step: name.to_owned(), seconds: (begin.elapsed().as_secs_f64() * 10.0).round() / 10.0, wrong };
        (self.tell)(&step.line());
        let well = step.wrong.is_none();
        self.sum.step(step);
        well
    }

    /// One command as a reader types it.
    async fn shell(&mut self, line: &str) -> bool {
        self.step(line, async { shell(line).await.map(drop) }).await
    }

    /// Plants a fault, waits for doctor's word, mends it, and waits until doctor has nothing of it to say; gives the word.
    async fn fault(&mut self, stand: &'static Stand, fault: Fault) -> Option<String> {
        let (mut planted, mut said): (Option<Planted>, _) = (None, None);
        let name = fault.name();
        self.step(&format!("{name}: doctor says what it is"), async {
            planted = Some(plant(stand, fault).await?);
            said = Some(wait_for(&format!("{name}: a failed check"), SEEN_WITHIN, || failed_with(fault.words())).await?);
            Ok(())
        })
        .await;
        let mut planted = planted?;
        self.step(&format!("{name}: its mend mends it"), async {
            planted.mend_server()?;
            for line in &planted.mend {
                shell(line).await?;
            }
            wait_for(&format!("{name}: no failed check"), SEEN_WITHIN, || async {
                match failed_with(fault.words()).await {
                    Ok(still) => Err(still),
                    Err(_) => Ok(()),
                }
            })
            .await?;
            ready().await?;
            planted.remove().await
        })
        .await;
        said
    }
}

/// A fleet as the page has it, in a namespace that opts in by the page's command.
async fn begin(stand: &'static Stand, framework: &'static Framework, name: &str, start: &str, heading: &str, label: &str) -> Result<Fleet> {
    shell(&with(label, &[(SHOP, name)])?).await?;
    let mut options = FleetOptions::of(framework, name, 0, 3);
    // The queue's name and the URL's variable are the application's own; what is in its row is how this application differs from the page's.
    let own: BTreeSet<&str> = framework.annotations.iter().map(|(key, _)| *key).chain(["queue", "broker"]).collect();
    options.annotations.retain(|key, _| own.contains(key.as_str()) || key == "min-replicas");
    options.annotations.extend(annotations(start, heading)?.into_iter().filter(|(key, _)| !own.contains(key.as_str())));
    options.annotations.insert("min-replicas".into(), "0".into());
    Fleet::begin(stand, options).await
}

/// Tasks come, pods come, and no task is cut: beside those that came before.
async fn work(fleet: &Fleet) -> Result<()> {
    fleet.wait_condition("Ready", "True", STEP).await?;
    let first = fleet.tally().await?.sent;
    let plan: Vec<Task> = (first..first + TASKS.0).map(|n| Task { task: format!("t{n}"), at: 0.0, seconds: TASKS.1, mib: 0 }).collect();
    fleet.send(&plan).await?;
    let tally = fleet.wait_done(first + TASKS.0, STEP).await?;
    ensure!(tally.cut == 0, "{} tasks were cut", tally.cut);
    Ok(())
}

/// All parts of QScaler are ready.
async fn ready() -> Result<()> {
    for part in ["certs", "webhook", "controller"] {
        let deployment = format!("deployment/qscaler-{part}");
        kubectl(&["-n", SYSTEM_NAMESPACE, "rollout", "status", &deployment, &format!("--timeout={}s", STEP.as_secs())], None).await?;
    }
    Ok(())
}

/// No pod of the fleet ends any more.
async fn gone(fleet: &Fleet) -> Result<()> {
    wait_for("the old pods", STEP, || async {
        let pods = fleet.pods().await.map_err(|e| e.to_string())?;
        let leaves = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
        if leaves == 0 { Ok(()) } else { Err(format!("{leaves} pods end")) }
    })
    .await
}

/// What is left once what takes its time has had it.
async fn remains(before: &BTreeSet<String>) -> Result<Vec<String>> {
    let look = || async {
        let mut found = left::behind(before, &left::objects().await?);
        found.extend(left::on_pods(SHOP).await?);
        anyhow::Ok(found)
    };
    let clean = wait_for("nothing left", SEEN_WITHIN, || async {
        let found = look().await.map_err(|e| e.to_string())?;
        if found.is_empty() { Ok(()) } else { Err(found.join(", ")) }
    });
    if clean.await.is_ok() { Ok(Vec::new()) } else { look().await }
}

/// The first failed check that has all of these words, with its mend; Err: the failed checks there are.
async fn failed_with(words: &[&str]) -> Result<String, String> {
    let output = Command::new("kubectl").args(["qscaler", "doctor", "-o", "json"]).output().await.map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    pick(&told, words)
}

fn pick(told: &Value, words: &[&str]) -> Result<String, String> {
    let failed = told["checks"].as_array().into_iter().flatten().filter(|check| check["state"] == "failed");
    let said: Vec<String> =
        failed.map(|c| format!("{}: {}", c["check"].as_str().unwrap_or_default(), c["fix"].as_str().unwrap_or_default())).collect();
    said.iter().find(|said| words.iter().all(|word| said.contains(word))).cloned().ok_or_else(|| format!("failed checks: {}", said.join(" | ")))
}

/// Runs a line as a reader's shell does; gives what it printed.
async fn shell(line: &str) -> Result<String> {
    let output = Command::new("sh").args(["-c", line]).stdin(std::process::Stdio::null()).kill_on_drop(true).output().await.context("no sh")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{}\n{out}{err}", output.status);
    }
    Ok(out.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pages_commands_are_tried_with_the_registry_of_the_test() {
        let own = Login { host: "127.0.0.1:5000", user: "someone", password: "let-me-in" };
        let start = page("docs/getting-started.md").unwrap();
        let lines = commands(&start, LOGIN).unwrap();
        let readme = commands(&page("README.md").unwrap(), "## Use it").unwrap();
        assert_eq!(lines[4], readme[0].replace("ghcr.io", "registry.example.com") + " -f values.yaml", "what is tried is what the README says");
        assert_eq!(
            own.helm(&lines[4]).unwrap(),
            "helm install qscaler oci://127.0.0.1:5000/qscaler/charts/qscaler --namespace qscaler-system --create-namespace -f values.yaml --plain-http"
        );
        assert_eq!(
            own.logged_in(&lines[0]).unwrap(),
            "helm registry login 127.0.0.1:5000 --username someone --password-stdin < password.txt --plain-http"
        );
        let secret = |namespace: &str| {
            format!(
                "kubectl -n {namespace} create secret docker-registry registry --docker-server=127.0.0.1:5000 --docker-username=someone \
                 --docker-password=\"$(cat password.txt)\""
            )
        };
        assert_eq!(own.secret(&lines[2], None).unwrap(), secret("qscaler-system"));
        assert_eq!(own.secret(&lines[3], Some("rq")).unwrap(), secret("rq"));
        let values = own.named(&file(&start, LOGIN).unwrap()).unwrap();
        assert!(values.contains("repository: 127.0.0.1:5000/qscaler/qscaler-sidecar") && !values.contains("example.com"), "{values}");
        let upgrade = commands(&page("docs/upgrade.md").unwrap(), "## Upgrade").unwrap();
        assert!(own.helm(&upgrade[0]).unwrap().starts_with("helm upgrade qscaler oci://127.0.0.1:5000/qscaler/charts/qscaler --namespace"));
    }

    #[test]
    fn a_fault_is_found_only_in_a_failed_check_that_has_all_of_its_words() {
        let checks = json!({"checks": [
            {"check": "fault-secret/orders: fine", "state": "ok"},
            {"check": "fault-secret/orders: Ready is False (BrokerUnknown)", "state": "failed", "fix": "no Secret nowhere"},
            {"check": "another", "state": "warning", "fix": "fault-bare/orders sidecar"},
        ], "ok": false});
        assert_eq!(pick(&checks, Fault::WrongSecret.words()).unwrap(), "fault-secret/orders: Ready is False (BrokerUnknown): no Secret nowhere");
        assert!(pick(&checks, Fault::BarePods.words()).is_err(), "a warning is no failure");
        assert!(pick(&checks, Fault::BrokerDown.words()).unwrap_err().contains("no Secret nowhere"));
    }

    #[tokio::test]
    async fn a_command_that_fails_says_what_it_printed() {
        assert_eq!(shell("echo a; echo b").await.unwrap(), "a\nb\n");
        let wrong = shell("echo why >&2; exit 3").await.unwrap_err().to_string();
        assert!(wrong.contains("why") && wrong.contains('3'), "{wrong}");
    }
}
