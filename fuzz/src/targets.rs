//! What strangers can send, and what is promised of each. In: bytes. Out: a word about the answer, so that new ones are noticed; or which promise is broken. Left
//! to others: making the bytes.

use qscaler_broker_url::{BrokerUrl, Management, Secret, TlsMaterial, attach, expand, parse as parse_url};
use qscaler_core::config::{ConfigError, Parsed, WorkerConfig, parse};
use qscaler_core::message::{ControlMessage, Report};
use qscaler_core::names::annotation;
use qscaler_core::workload::WorkloadId;
use qscaler_inject::{Allowed, Injection, Meshes, Outcome, Settings, Skip, WorkloadFacts, inject, preview, warnings};
use qscaler_webhook::admission::{Request, Whole, answer};
use qscaler_webhook::decide::Decider;
use qscaler_webhook::variables::PodText;
use qscaler_webhook::world::{NamespaceEntry, Workload, World};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What is done with one input: a word about the answer, or None where it is not even of the form that is read first (JSON).
pub type Try = Box<dyn FnMut(&[u8]) -> Result<Option<String>, String>>;

/// Something that strangers send.
pub struct Target {
    /// Name of its corpus.
    pub name: &'static str,
    /// Words that the code looks for.
    pub words: &'static [&'static str],
    /// Makes what tries inputs.
    pub state: fn() -> Try,
    /// This many of a hundred inputs are its share: what takes longer gets fewer.
    pub share: u64,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "urls", words: URL_WORDS, state: || Box::new(|input| url(input).map(Some)), share: 40 },
    Target { name: "annotations", words: ANNOTATION_WORDS, state: annotations, share: 25 },
    Target { name: "messages", words: MESSAGE_WORDS, state: || Box::new(message), share: 25 },
    Target { name: "reviews", words: REVIEW_WORDS, state: reviews, share: 10 },
];

const URL_WORDS: &[&str] = &[
    "amqp://",
    "amqps://",
    "pyamqp://",
    "redis://",
    "rediss://",
    "valkeys://",
    "sentinel://",
    "redis+sentinel://",
    "rediss-sentinel://",
    "unix://",
    "http://",
    "?ssl_cert_reqs=none",
    "?ssl=true",
    "&management=http://u:p@api:1/x",
    "?master_name=main",
    "?db=3",
    "?verify=verify_none",
    "&auth_mechanism=external",
    "user:p%40ss@",
    ":p@",
    "[::1]",
    "[fe80::1%25eth0]",
    ":6379",
    "/0",
    "//",
    "/%2F",
    "#main",
    "$(HOST)",
    "${HOST}",
    "$$(A)",
    ";",
    ",",
    "\n",
    "'",
    "\"",
];
const ANNOTATION_WORDS: &[&str] = &[
    "qscaler.dev/",
    "queue",
    "broker",
    "control-broker",
    "broker-tls",
    "management",
    "worker",
    "key-prefix",
    "priority-steps",
    "priority-separator",
    "container",
    "min-replicas",
    "max-replicas",
    "max-wait",
    "optimize-for",
    "messages-per-worker",
    "concurrency",
    "max-task-duration",
    "drain-deadline-policy",
    "signal",
    "busy",
    "vertical",
    "min-memory",
    "max-memory",
    "min-cpu",
    "max-cpu",
    "scaling",
    "paused",
    "dry-run",
    "pre-stop",
    "replace-pods",
    "share-processes",
    "env:URL",
    "secret:mq/url",
    "secret:mq-tls",
    "celery",
    "sidekiq",
    "redis-loop",
    "bullmq",
    "SIGTSTP,SIGTERM",
    "none",
    "http:8080/busy",
    "file:/tmp/busy",
    "10m",
    "1h30m",
    "0s",
    "1.5Gi",
    "500m",
    "0-9",
    "a,b,c",
    "in-place",
    "replace",
    "protect",
    "true",
    "false",
    "\n",
    "=",
    "\n=\n",
];
const MESSAGE_WORDS: &[&str] = &[
    "\"version\":1",
    "SIGKILL_QUEUE",
    "RESUME",
    "RELEASE",
    "parked",
    "held",
    "released",
    "closing",
    "boot",
    "idle",
    "busy",
    "unknown",
    "full",
    "readOnly",
    "peaks",
    "gaps",
    "controlKeys",
    "signature",
    "workerIds",
    "service",
    "epoch",
    "sequence",
    "last",
    "target",
    "leaseMs",
    "null",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
];
const REVIEW_WORDS: &[&str] = &[
    "metadata",
    "annotations",
    "qscaler.dev/injected",
    "qscaler.dev/queue",
    "ownerReferences",
    "ReplicaSet",
    "Deployment",
    "spec",
    "containers",
    "initContainers",
    "env",
    "envFrom",
    "value",
    "valueFrom",
    "secretKeyRef",
    "optional",
    "lifecycle",
    "preStop",
    "httpGet",
    "exec",
    "securityContext",
    "runAsUser",
    "runAsNonRoot",
    "resources",
    "limits",
    "requests",
    "cpu",
    "memory",
    "livenessProbe",
    "startupProbe",
    "terminationGracePeriodSeconds",
    "shareProcessNamespace",
    "hostPID",
    "hostNetwork",
    "nodeSelector",
    "os",
    "windows",
    "ports",
    "containerPort",
    "restartPolicy",
    "Always",
    "istio-proxy",
    "linkerd-proxy",
    "qscaler-sidecar",
    "imagePullSecrets",
    "null",
    "true",
    "1Gi",
    "100m",
    "-1",
    "$(URL)",
    "kill 1",
    "/init",
    "CREATE",
    "UPDATE",
    "~1",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
];

/// A secret that no message may show: it stands where a password is put into every URL that has a place for one.
const PASSWORD: &str = "hunter2hunter2";

fn url(input: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(input);
    let management = Management::parse(&text).map_or_else(|error| error.part, |at| if at.prefix.is_empty() { "at" } else { "below" });
    let _ = (expand::references(&text).count(), expand::expand(&text, |name| (name.len() < 8).then_some("x")));
    if expand::expand(&expand::escape(&text), |_| Some("x")) != text {
        return Err("an escaped text is not what it was".to_owned());
    }
    let parsed = match parse_url(&text) {
        Ok(parsed) => parsed,
        // A URL in which nothing but a password is put must not show it, whatever else is wrong with it.
        Err(error) => {
            // A name in `$(NAME)` is repeated by intent.
            if let Some((scheme, rest)) = text.split_once("://").filter(|_| !text.contains('$')) {
                let shown = parse_url(&format!("{scheme}://:{PASSWORD}@{rest}")).err().map(|error| error.to_string()).unwrap_or_default();
                if shown.contains(PASSWORD) {
                    return Err(format!("an error shows the password: {shown}"));
                }
            }
            return Ok(format!("{} {} {management}", error.part, kind_of(&error.problem)));
        }
    };
    let material = TlsMaterial { ca: Some("CA; ?#@".into()), certificate: Some("C".into()), key: Some(Secret::from(PASSWORD.to_owned())) };
    let attached = attach(&text, &material, None);
    let again = parse_url(&attached).map_err(|error| format!("with certificates it is no URL any more: {error}"))?;
    if again.place() != parsed.place() || again.hosts() != parsed.hosts() {
        return Err(format!("with certificates {} is {}", parsed.place(), again.place()));
    }
    if format!("{again:?}{}", again.place()).contains(PASSWORD) {
        return Err("a key is shown".to_owned());
    }
    Ok(match parsed {
        BrokerUrl::Redis(url) => format!("redis {} {} {} {}", url.tls.is_some(), url.sentinel, url.addresses.len(), url.master.is_some()),
        BrokerUrl::Amqp(url) => format!("amqp {} {} {} {}", url.tls.is_some(), url.external, url.addresses.len(), url.management.tls),
    })
}

/// Longest key that an API server takes: a domain, a slash, a name.
const KEY_MAX: usize = 253 + 1 + 63;

/// Lines `key=value`; those after an empty line are the pod template's.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('=')).filter(|(key, _)| key.len() <= KEY_MAX);
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Patch { patch, warnings } => format!("patch {} {}", patch.0.len(), warnings.len()),
        Outcome::Complete { patch, warnings } => format!("complete {} {}", patch.0.len(), warnings.len()),
        Outcome::Skip(skip) => skip.label().to_owned(),
        Outcome::Refuse(refusal) => refusal.label().to_owned(),
    }
}

fn orders() -> WorkloadId {
    WorkloadId { namespace: "shop".into(), name: "orders".into() }
}

fn annotations() -> Try {
    let template = json!({"metadata": {"labels": {"app": "orders"}}, "spec": {"containers": [
        {"name": "worker", "image": "w", "env": [{"name": "URL", "value": "redis://r/0"}]}, {"name": "log", "image": "l"}]}});
    let settings = Settings::default();
    Box::new(move |input| {
        let text = String::from_utf8_lossy(input);
        let (workload, pod) = text.split_once("\n\n").unwrap_or((&text, ""));
        let (workload, pod) = (pairs(workload), pairs(pod));
        let answer = match parse(&workload, &pod) {
            Parsed::NotOurs => Ok("not ours".to_owned()),
            Parsed::Invalid(errors) if errors.is_empty() => Err("invalid, and not said why".to_owned()),
            Parsed::Invalid(errors) => {
                // The first that is wrong, how many are, and not with which of endless keys: every set of mistakes would be a new answer, so that what is kept grew to
                // the longest inputs, which take a thousand times as long.
                let known = |error: &ConfigError| annotation::ALL.iter().find(|known| **known == error.key).copied().unwrap_or_default();
                let first = errors.first().map(|error| (known(error), error.problem.split([' ', '(']).next().unwrap_or_default()));
                Ok(format!("invalid {first:?} {}", errors.len()))
            }
            Parsed::Valid(config) => {
                bounds(&config)?;
                let object = json!({"metadata": {"name": "orders", "annotations": workload}, "spec": {"template": template}});
                let said = warnings("Deployment", &orders(), &object, &Value::Null, &WorkloadFacts::default(), &settings).len();
                let made = preview(&template, &config, &Injection::preview(&settings, orders(), Allowed::default()));
                // Without the path that is looked at, of which there are endless ones.
                let busy = std::mem::discriminant(&config.busy);
                Ok(format!("{} {busy:?} {} {} {said}", config.worker, config.signals.len(), outcome(&made)))
            }
        };
        answer.map(Some)
    })
}

/// What the rest of the code relies on in a checked configuration.
fn bounds(config: &WorkerConfig) -> Result<(), String> {
    let holds = [
        ("queues", !config.queues.is_empty()),
        ("replicas", config.min_replicas <= config.max_replicas && config.max_replicas > 0),
        ("concurrency", config.concurrency > 0),
        ("memory", config.min_memory.zip(config.max_memory).is_none_or(|(min, max)| min <= max)),
        ("cpu", config.min_cpu.zip(config.max_cpu).is_none_or(|(min, max)| min <= max)),
    ];
    holds.iter().find(|(_, holds)| !holds).map_or(Ok(()), |(what, _)| Err(format!("a valid configuration with impossible {what}")))
}

/// Whether it is JSON at all: of what is not, nothing more is asked, and nothing comes of changing it further.
fn is_json(input: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(input).is_ok()
}

/// An error without numbers, and without what stands in quotes: that may be of the input, and endless. A field that is missing is one of ours.
fn kind_of(error: &impl ToString) -> String {
    let text = error.to_string();
    let (own, mut quoted) = (text.contains("missing field"), false);
    let keep = |c: &char| {
        let quote = matches!(c, '`' | '"' | '\'');
        quoted ^= quote;
        (own || !quoted && !quote) && !c.is_ascii_digit()
    };
    text.chars().filter(keep).take(80).collect()
}

fn message(input: &[u8]) -> Result<Option<String>, String> {
    let control = match ControlMessage::decode(input) {
        Ok(message) if ControlMessage::decode(&message.encode()).ok().as_ref() != Some(&message) => {
            return Err("a message is not read as it was written".to_owned());
        }
        Ok(message) => format!("{:?} {}", message.kind, message.target.is_some()),
        Err(error) => kind_of(&error),
    };
    let report = match Report::decode(input) {
        Ok(report) if Report::decode(&report.encode()).is_err() => return Err("a report cannot be read as it was written".to_owned()),
        Ok(report) => {
            let parts = [report.service.is_some(), report.active_tasks.is_some(), report.worker_ids.is_some(), report.last, report.cut.is_some()];
            format!("{:?} {:?} {:?} {parts:?} {}", report.state, report.busy, report.access, report.gaps.len().min(3))
        }
        Err(error) => kind_of(&error),
    };
    Ok(is_json(input).then(|| format!("{control} {report}")))
}

fn reviews() -> Try {
    let annotations: BTreeMap<String, String> = [
        ("queue", "orders"),
        ("broker", "env:URL"),
        ("control-broker", "secret:mq/control"),
        ("max-replicas", "5"),
        ("pre-stop", "replace"),
        ("vertical", "initial"),
    ]
    .map(|(key, value)| (format!("qscaler.dev/{key}"), value.to_owned()))
    .into();
    let config = match parse(&annotations, &BTreeMap::new()) {
        Parsed::Valid(config) => config,
        _ => return Box::new(|_| Err("the annotations of the fuzz target are not valid".to_owned())),
    };
    let world = World::new(None);
    world.put_workload(orders(), Workload { uid: "d".into(), annotations });
    world.put_namespace("shop", NamespaceEntry { enabled: true, root: true, meshes: Meshes { istio: true, linkerd: true, kuma: true } });
    let settings = Settings { pull_secrets: vec!["pull".into()], ..Settings::default() };
    let decider = Decider { world: Arc::new(world), settings: Arc::new(settings.clone()), own_namespace: "qscaler-system".into() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    Box::new(move |input| {
        let request = match Request::<Whole>::parse(input) {
            Ok(request) => request,
            Err(error) => return Ok(is_json(input).then(|| kind_of(&error))),
        };
        let said = decider
            .workload_warnings(&request.kind.kind, request.namespace.as_deref().unwrap_or_default(), &request.object.0, &request.old_object)
            .len();
        let runtime = runtime.as_ref().map_err(ToString::to_string)?;
        // As the server reads it for pods: variables stay text.
        let text = Request::<PodText>::parse(input).map_err(|error| format!("as a pod it is none: {error}"))?;
        let decision = runtime.block_on(decider.pod(&text, Duration::from_millis(1)));
        let bytes = answer(&request.uid, decision.patch.as_ref(), &decision.warnings).map_err(|error| format!("no answer: {error}"))?;
        let read: Value = serde_json::from_slice(&bytes).map_err(|error| format!("the answer is no JSON: {error}"))?;
        if read["response"]["allowed"] != true || read["response"]["uid"] != *request.uid {
            return Err("a pod is refused, or the uid is not echoed".to_owned());
        }
        // The same object as a pod of a workload of ours, however its owner is written.
        let injection =
            Injection { hook_token: "0123".into(), ..Injection::preview(&settings, orders(), Allowed { root: true, ..Allowed::default() }) };
        let made = inject(&request.object.0, &config, &injection);
        for patch in [decision.patch.as_ref(), patch_of(&made)].into_iter().flatten() {
            let mut after = request.object.0.clone();
            json_patch::patch(&mut after, patch).map_err(|error| format!("the patch does not apply: {error}"))?;
            if matches!(made, Outcome::Patch { .. }) && !matches!(inject(&after, &config, &injection), Outcome::Skip(Skip::AlreadyInjected)) {
                return Err("injected twice, it is changed twice".to_owned());
            }
        }
        Ok(Some(format!("{} {said} {}", decision.outcome, outcome(&made))))
    })
}

fn patch_of(outcome: &Outcome) -> Option<&json_patch::Patch> {
    match outcome {
        Outcome::Patch { patch, .. } | Outcome::Complete { patch, .. } => Some(patch),
        Outcome::Skip(_) | Outcome::Refuse(_) => None,
    }
}
