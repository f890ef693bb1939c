//! `kubectl qscaler adopt NAME [KEY=VALUE…]`: puts a running Deployment into QScaler's hands without cutting a task. In: the Deployment, annotations. Out: its
//! namespace's label and its own annotations, never its pod template; then how far its pods are replaced, until all are. Left to others: replacing them, one by
//! one while they are idle (`controller`), which goes on whether anybody watches or not.
//!
//! A rollout would do the same at once, and cut what runs: the pods that it ends have no hold yet.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use qscaler_api::QWorker;
use qscaler_core::config::{Parsed, parse};
use qscaler_core::names::{DOMAIN, INJECTION_ENABLED, LABEL_INJECTION, MANAGER, condition};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

/// How often the status is looked at.
const LOOK: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct AdoptArgs {
    /// The Deployment's name
    name: String,
    /// Annotations without their `qscaler.dev/`, such as queue=orders broker=env:CELERY_BROKER_URL max-replicas=50; none where they are there already
    #[arg(value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Watch for at most this many seconds; what was begun goes on. 0: do not watch
    #[arg(long, default_value_t = 3600)]
    timeout: u64,
}

/// What will be done.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// The namespace lacks its label.
    label: bool,
    /// Annotations to set on the Deployment.
    annotate: BTreeMap<String, String>,
}

type Map = BTreeMap<String, String>;

/// Checks everything before anything is changed.
fn plan(given: &[String], own: &Map, template: &Map, labelled: bool) -> Result<Plan> {
    let mut annotate = Map::new();
    for pair in given {
        let Some((key, value)) = pair.split_once('=') else { bail!("{pair:?} is not KEY=VALUE, such as queue=orders") };
        let key = key.strip_prefix(DOMAIN).map_or(key, |rest| rest.trim_start_matches('/'));
        annotate.insert(format!("{DOMAIN}/{key}"), value.to_owned());
    }
    let mut all = own.clone();
    all.extend(annotate.clone());
    match parse(&all, template) {
        Parsed::NotOurs => bail!("it carries no annotation of {DOMAIN} yet: give at least queue=…, broker=… and max-replicas=…"),
        Parsed::Invalid(mistakes) => {
            bail!("nothing was changed:\n  {}", mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))
        }
        Parsed::Valid(_) => {}
    }
    annotate.retain(|key, value| own.get(key) != Some(value));
    Ok(Plan { label: !labelled, annotate })
}

/// The same as commands of kubectl.
fn commands(plan: &Plan, namespace: &str, name: &str) -> String {
    let mut out = String::new();
    if plan.label {
        out += &format!("kubectl label namespace {namespace} {LABEL_INJECTION}={INJECTION_ENABLED}\n");
    }
    if !plan.annotate.is_empty() {
        let pairs: Vec<String> = plan.annotate.iter().map(|(key, value)| format!("{key}={value}")).collect();
        out += &format!("kubectl -n {namespace} annotate deployment {name} --overwrite {}\n", pairs.join(" "));
    }
    if out.is_empty() { "nothing to change: the label and the annotations are there\n".to_owned() } else { out }
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Every pod is as a new one would be.
    Done,
    /// It goes on, in words.
    Goes(String),
    /// It needs somebody, in words.
    Stuck(String),
}

fn progress(conditions: &[Condition]) -> Progress {
    let of = |kind: &str| conditions.iter().find(|c| c.type_ == kind);
    if let Some(bad) = of(condition::READY).filter(|c| c.status == "False") {
        return Progress::Stuck(bad.message.clone());
    }
    if let Some(refused) = of(condition::INJECTED).filter(|c| c.status == "False" && c.reason == "Refused") {
        return Progress::Stuck(refused.message.clone());
    }
    let injected = of(condition::INJECTED).is_some_and(|c| c.status != "False");
    match of(condition::UP_TO_DATE) {
        None => Progress::Goes("the controller has not looked at it yet".to_owned()),
        Some(c) if c.status != "False" && injected => Progress::Done,
        Some(c) if c.status != "False" => Progress::Goes("its pods are being looked at".to_owned()),
        Some(c) if c.reason == condition::REASON_REPLACING => Progress::Goes(c.message.clone()),
        Some(c) => Progress::Stuck(c.message.clone()),
    }
}

/// Does it, and says how far it is. True: every pod has the sidecar.
///
/// # Errors
/// There is no such Deployment, the annotations have mistakes, or the API server refuses.
pub(crate) async fn run(
    client: &Client,
    deployments: &Api<Deployment>,
    workers: &Api<QWorker>,
    args: &AdoptArgs,
    out: &mut impl Write,
) -> Result<bool> {
    let name = &args.name;
    let found = deployments.get_opt(name).await.context("cannot read Deployments")?;
    let Some(found) = found else { bail!("no Deployment {name} in this namespace: see kubectl get deployments") };
    let namespace = found.metadata.namespace.clone().unwrap_or_default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let labels = namespaces.get(&namespace).await.with_context(|| format!("cannot read namespace {namespace}"))?.metadata.labels;
    let labelled = labels.as_ref().and_then(|l| l.get(LABEL_INJECTION)).is_some_and(|value| value == INJECTION_ENABLED);
    let template = found.spec.template.metadata.as_ref().and_then(|m| m.annotations.clone()).unwrap_or_default();
    let plan = plan(&args.annotations, &found.metadata.annotations.clone().unwrap_or_default(), &template, labelled)
        .with_context(|| format!("Deployment {namespace}/{name}"))?;
    write!(out, "{}", commands(&plan, &namespace, name))?;
    if args.dry_run {
        writeln!(out, "Nothing was changed. Without --dry-run its pods are then replaced one by one as each falls idle; no task is cut.")?;
        return Ok(true);
    }
    let params = PatchParams { field_manager: Some(format!("kubectl-{MANAGER}")), ..PatchParams::default() };
    // The annotations first: a pod that is made between the two is bare, which is mended, and never half known.
    if !plan.annotate.is_empty() {
        let patch = json!({ "metadata": { "uid": found.metadata.uid, "annotations": plan.annotate } });
        deployments.patch(name, &params, &Patch::Merge(patch)).await.with_context(|| format!("cannot annotate Deployment {name}"))?;
    }
    if plan.label {
        let patch = json!({ "metadata": { "labels": { LABEL_INJECTION: INJECTION_ENABLED } } });
        namespaces.patch(&namespace, &params, &Patch::Merge(patch)).await.with_context(|| format!("cannot label namespace {namespace}"))?;
    }
    watch(workers, args, out).await
}

async fn watch(workers: &Api<QWorker>, args: &AdoptArgs, out: &mut impl Write) -> Result<bool> {
    let (begun, mut said) = (Instant::now(), String::new());
    loop {
        let worker = workers.get_opt(&args.name).await.context("cannot read QWorkers: is QScaler installed? kubectl qscaler doctor")?;
        let progress = progress(&worker.and_then(|w| w.status).map(|s| s.conditions).unwrap_or_default());
        let words = match &progress {
            Progress::Done => "every pod has the sidecar; no task was cut for it".to_owned(),
            Progress::Goes(words) => words.clone(),
            Progress::Stuck(words) => format!("needs you: {words}"),
        };
        if words != said {
            writeln!(out, "{words}")?;
            out.flush()?;
            said = words;
        }
        if progress == Progress::Done {
            return Ok(true);
        }
        if begun.elapsed() >= Duration::from_secs(args.timeout) {
            writeln!(out, "It goes on by itself: kubectl qscaler explain {} says how far.", args.name)?;
            return Ok(args.timeout == 0);
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(key, value)| (format!("{DOMAIN}/{key}"), (*value).to_owned())).collect()
    }

    fn given(pairs: &[&str]) -> Vec<String> {
        pairs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_is_checked_before_anything_is_changed() {
        let good = ["queue=orders", "qscaler.dev/broker=env:URL", "max-replicas=50", "worker=celery"];
        let plan_of = |pairs: &[&str], own: &Map| plan(&given(pairs), own, &Map::new(), false);
        let plan = plan_of(&good, &Map::new()).unwrap();
        assert_eq!(plan.annotate, map(&[("queue", "orders"), ("broker", "env:URL"), ("max-replicas", "50"), ("worker", "celery")]));
        assert_eq!(
            commands(&plan, "shop", "orders"),
            "kubectl label namespace shop qscaler.dev/injection=enabled\nkubectl -n shop annotate deployment orders --overwrite \
             qscaler.dev/broker=env:URL qscaler.dev/max-replicas=50 qscaler.dev/queue=orders qscaler.dev/worker=celery\n"
        );
        for (pairs, words) in [
            (&["queue"][..], "is not KEY=VALUE"),
            (&[], "carries no annotation"),
            (&["queue=orders", "broker=env:URL", "max-replicas=many"], "max-replicas"),
            (&["queue=orders", "broker=env:URL", "max-replicas=5", "wroker=celery"], "wroker"),
        ] {
            let error = format!("{:#}", plan_of(pairs, &Map::new()).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
        // What is there already is not written again.
        let own = map(&[("queue", "orders"), ("broker", "env:URL"), ("max-replicas", "50")]);
        assert_eq!(plan_of(&["queue=orders", "max-wait=30s"], &own).unwrap().annotate, map(&[("max-wait", "30s")]));
    }

    #[test]
    fn it_ends_only_when_every_pod_has_the_sidecar() {
        let one = |kind: &str, status: &str, reason: &str| Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: format!("{kind} {reason}"),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let goes = |conditions: &[Condition]| matches!(progress(conditions), Progress::Goes(_));
        assert!(goes(&[]));
        assert!(goes(&[one("Ready", "True", "Managed"), one("Injected", "False", "NotInjected"), one("UpToDate", "False", "Replacing")]));
        assert!(goes(&[one("Injected", "False", "NotInjected"), one("UpToDate", "True", "UpToDate")]));
        assert_eq!(progress(&[one("Injected", "True", "Injected"), one("UpToDate", "True", "UpToDate")]), Progress::Done);
        for stuck in [
            &[one("Ready", "False", "InvalidConfig")][..],
            &[one("Injected", "False", "Refused"), one("UpToDate", "False", "Replacing")],
            &[one("Injected", "False", "NotInjected"), one("UpToDate", "False", "DisruptionBudget")],
        ] {
            assert!(matches!(progress(stuck), Progress::Stuck(_)), "{stuck:?}");
        }
    }
}
