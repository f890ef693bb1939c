//! What the sidecar is told, through its environment. In: environment variables by way of [`Environment`]. Out: [`Settings`], whatever the environment is, and
//! one sentence per mistake that names the variable, what is wrong and what would be valid. Left to others: who writes them (`inject`).
//!
//! A sidecar that does not start holds up every container of its pod, so nothing here is an error: without a usable URL there is no broker, and what
//! cannot be read takes its default. Signals, processes and the kubelet's calls need neither.

use qscaler_broker::signing::PublicKeys;
use qscaler_broker_url::expand::references;
use qscaler_broker_url::{Management, Secret, TlsMaterial, attach};
use qscaler_core::config::DeadlinePolicy;
use qscaler_core::framework::{BusySource, KeyNames, Signal};
use qscaler_core::names::sidecar as names;
use qscaler_core::workload::{ControlAddress, SidecarConfig, WorkloadId};
use serde_json::{Map, Value, json};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Exit code for arguments that are not known: `EX_USAGE` of sysexits.h.
pub const EXIT_USAGE: u8 = 64;
/// A token that no path can have: without one from the webhook, no call is believed.
const NO_TOKEN: &str = "\n";
/// How long a task may run where it is not said: the annotation's own default.
const MAX_TASK_MS: u64 = 3_600_000;

/// Where variables come from: the process in `main`, a table in tests.
pub trait Environment {
    /// The value of this variable; None: not set.
    fn get(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// A broker's URL. Shown without what could be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlText(String);

impl UrlText {
    /// The whole URL, for connecting.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://…", self.0.split("://").next().unwrap_or_default())
    }
}

/// Everything the sidecar is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What the webhook decided.
    pub config: SidecarConfig,
    /// Where the worker's tasks come from; empty where that is not known, and then nothing in `config` asks it.
    pub broker: UrlText,
    /// Where control messages come from; None: nowhere, so that the controller hears nothing of this pod.
    pub control: Option<UrlText>,
    /// By whom control messages must be signed; None: it was not said, and unsigned ones are believed.
    pub control_keys: Option<Arc<PublicKeys>>,
    /// The pod's UID.
    pub pod_uid: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's address; None: the runtime gave none.
    pub pod_ip: Option<IpAddr>,
    /// What is wrong with a broker's URL, one sentence each; no value of a URL is repeated in them, for it may hold a password.
    pub broker_mistakes: Vec<String>,
    /// What else is wrong, likewise.
    pub mistakes: Vec<String>,
}

impl Settings {
    /// Where the workload's control messages come from and reports go: by its UID, where the webhook knew it.
    #[must_use]
    pub fn control_address(&self) -> ControlAddress {
        ControlAddress::new(&self.config.workload, &self.config.workload_uid)
    }

    /// Reads the environment. What is missing or wrong is named in the mistakes, all of it at once.
    #[must_use]
    pub fn read(environment: &impl Environment) -> Self {
        let (mut mistakes, mut broker_mistakes) = (Vec::new(), Vec::new());
        let value = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let mut required = |name: &str, valid: &str| {
            let value = value(name);
            if value.is_none() {
                mistakes.push(format!("{name} is not set; valid: {valid}"));
            }
            value.unwrap_or_default()
        };
        let config_text = required(names::ENV_CONFIG, "the JSON that the webhook writes");
        let pod_uid = required(names::ENV_POD_UID, "the pod's metadata.uid by the downward API");
        let pod_name = required(names::ENV_POD_NAME, "the pod's metadata.name by the downward API");
        let pod_ip = value(names::ENV_POD_IP).and_then(|text| {
            let parsed = text.parse();
            if parsed.is_err() {
                mistakes.push(format!("{} is {text:?}; valid: an IP address, or nothing", names::ENV_POD_IP));
            }
            parsed.ok()
        });
        let control_keys = value(names::ENV_CONTROL_KEYS).map(|text| {
            let keys = PublicKeys::read(&text);
            if keys == PublicKeys::default() {
                mistakes.push(format!(
                    "{} has no key, so no control message is believed; valid: what the webhook of this version writes",
                    names::ENV_CONTROL_KEYS
                ));
            }
            Arc::new(keys)
        });
        let mut config = read_config(&config_text, &mut mistakes);

        let certificates = TlsMaterial {
            ca: value(names::ENV_BROKER_CA),
            certificate: value(names::ENV_BROKER_CERT),
            key: value(names::ENV_BROKER_KEY).map(Secret::from),
        };
        let management = value(names::ENV_MANAGEMENT_URL).filter(|text| match Management::parse(text) {
            Ok(_) => true,
            Err(error) => {
                // Figures come from it, messages do not: the rest works without.
                mistakes.push(format!("{}: {error}", names::ENV_MANAGEMENT_URL));
                false
            }
        });
        let url = |name, text, mistakes: &mut Vec<String>| {
            url(name, text, mistakes).map(|UrlText(text)| UrlText(attach(&text, &certificates, management.as_deref())))
        };
        let broker = url(names::ENV_BROKER_URL, value(names::ENV_BROKER_URL), &mut broker_mistakes);
        let control = match value(names::ENV_CONTROL_BROKER_URL) {
            Some(text) => url(names::ENV_CONTROL_BROKER_URL, Some(text), &mut broker_mistakes),
            None => broker.clone(),
        };
        if broker.is_none() && matches!(config.busy, BusySource::CeleryEvents | BusySource::Broker | BusySource::BlockedPop) {
            config.busy = BusySource::Unknown;
        }
        // Messages are addressed by these.
        let addressed = !pod_uid.is_empty() && !config.workload.name.is_empty();
        let control = control.filter(|_| addressed);
        let broker = broker.unwrap_or_else(|| UrlText(String::new()));
        Self { config, broker, control, control_keys, pod_uid, pod_name, pod_ip, broker_mistakes, mistakes }
    }
}

fn url(name: &str, text: Option<String>, mistakes: &mut Vec<String>) -> Option<UrlText> {
    let Some(text) = text else {
        mistakes.push(format!("{name} is empty: the variable, or the key of the Secret or ConfigMap, that it refers to was not there when this container started; mend the reference and restart the pods"));
        return None;
    };
    let unresolved = unresolved(&text);
    if !unresolved.is_empty() {
        let variables = unresolved.join(", ");
        mistakes.push(format!(
            "{name}: the worker's environment had no {variables} when this container started; valid: a variable of its env or envFrom, or secret:NAME/KEY"
        ));
        return None;
    }
    match qscaler_broker::open_stats(&text) {
        Ok(_) => Some(UrlText(text)),
        Err(error) => {
            mistakes.push(format!("{name}: {error}"));
            None
        }
    }
}

/// The variables that the kubelet could not resolve: it leaves `$(NAME)` as it is then.
fn unresolved(text: &str) -> Vec<&str> {
    let is_variable = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    references(text).filter(is_variable).collect()
}

/// What holds where nothing is said.
fn defaults() -> SidecarConfig {
    SidecarConfig {
        version: 1,
        workload: WorkloadId { namespace: String::new(), name: String::new() },
        workload_uid: Default::default(),
        template_hash: String::new(),
        container: String::new(),
        worker: String::new(),
        queues: Vec::new(),
        key_names: KeyNames::default(),
        // The kubelet's own.
        signals: vec![Signal::Term],
        busy: BusySource::Unknown,
        concurrency: 1,
        max_task_duration_ms: MAX_TASK_MS,
        drain_deadline_policy: DeadlinePolicy::default(),
        share_processes: true,
        hook_token: String::new(),
    }
}

/// Reads the configuration field by field: one that this version does not know how to read costs no more than itself.
fn read_config(text: &str, mistakes: &mut Vec<String>) -> SidecarConfig {
    let mut fail = |key: &str, problem: &str, valid: &str| mistakes.push(format!("{}: {key} {problem}; valid: {valid}", names::ENV_CONFIG));
    let given = match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(given) => given,
        Err(error) => {
            if !text.is_empty() {
                fail("the text", &format!("does not parse: {error}"), "the JSON object that the webhook of this version writes");
            }
            Map::new()
        }
    };
    let mut config = defaults();
    let mut whole = json!(config);
    for (key, value) in given {
        let before = whole.get(&key).cloned();
        whole[&key] = value;
        match serde_json::from_value(whole.clone()) {
            Ok(read) => config = read,
            Err(error) => {
                fail(&key, &format!("cannot be read: {error}"), "what the webhook of this version writes");
                whole[&key] = before.unwrap_or_default();
            }
        }
    }
    if config.version != 1 {
        fail("version", &format!("is {}", config.version), "1");
    }
    if config.workload.name.is_empty() {
        fail("workload", "is not said", "namespace and name of the Deployment");
    }
    if config.container.is_empty() {
        fail("container", "is not said", "the name of the worker's container");
    }
    // The token is one path segment, and short ones could be guessed.
    if config.hook_token.len() < 16 || !config.hook_token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        fail("hookToken", "is no token (its value is not shown)", "16 or more letters, digits, - and _");
        config.hook_token = NO_TOKEN.to_owned();
    }
    config
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    pub(crate) struct Table(pub(crate) BTreeMap<&'static str, String>);

    impl Environment for Table {
        fn get(&self, name: &str) -> Option<String> {
            self.0.get(name).cloned()
        }
    }

    pub(crate) fn good() -> Table {
        let config = serde_json::json!({
            "version": 1, "workload": {"namespace": "shop", "name": "orders"}, "workloadUid": "w-uid", "templateHash": "abc", "container": "worker",
            "worker": "celery", "queues": ["celery"], "signals": ["SIGTERM"], "busy": "celeryEvents", "concurrency": 1,
            "maxTaskDurationMs": 3_600_000, "drainDeadlinePolicy": "wait", "shareProcesses": true, "hookToken": "0123456789abcdef",
        });
        Table(BTreeMap::from([
            (names::ENV_CONFIG, config.to_string()),
            (names::ENV_BROKER_URL, "redis://:secret@redis:6379/0".to_owned()),
            (names::ENV_POD_UID, "p-uid".to_owned()),
            (names::ENV_POD_NAME, "orders-abc-1".to_owned()),
            (names::ENV_POD_IP, "10.0.0.7".to_owned()),
        ]))
    }

    fn read_without(name: &str) -> Settings {
        let mut table = good();
        table.0.remove(name);
        Settings::read(&table)
    }

    fn read_with(name: &'static str, value: &str) -> Settings {
        let mut table = good();
        table.0.insert(name, value.to_owned());
        Settings::read(&table)
    }

    #[test]
    fn a_good_environment_is_read() {
        let settings = Settings::read(&good());
        assert_eq!(settings.config.container, "worker");
        assert_eq!(settings.control.as_ref(), Some(&settings.broker));
        assert_eq!(settings.pod_ip, Some("10.0.0.7".parse().unwrap()));
        assert!(settings.mistakes.is_empty() && settings.broker_mistakes.is_empty());
    }

    #[test]
    fn the_control_broker_may_be_another_one_and_one_of_the_two_may_be_wrong() {
        let settings = read_with(names::ENV_CONTROL_BROKER_URL, "amqps://mq/vhost");
        assert_eq!(settings.control.unwrap().as_str(), "amqps://mq/vhost");
        let settings = read_with(names::ENV_CONTROL_BROKER_URL, "nonsense");
        assert!(settings.control.is_none() && settings.config.busy == BusySource::CeleryEvents);
        let mut table = good();
        table.0.insert(names::ENV_BROKER_URL, "nonsense".to_owned());
        table.0.insert(names::ENV_CONTROL_BROKER_URL, "redis://r".to_owned());
        let settings = Settings::read(&table);
        assert!(settings.control.is_some() && settings.config.busy == BusySource::Unknown && settings.broker_mistakes.len() == 1);
    }

    #[test]
    fn keys_of_the_controller_are_asked_for_where_they_are_given_and_those_that_cannot_be_read_open_nothing() {
        assert_eq!(Settings::read(&good()).control_keys, None);
        let given = read_with(names::ENV_CONTROL_KEYS, &"A".repeat(43));
        assert!(given.mistakes.is_empty() && given.control_keys.unwrap().names() == ["AAAAAAAA"]);
        let nonsense = read_with(names::ENV_CONTROL_KEYS, "nonsense");
        assert!(nonsense.mistakes[0].contains("QSCALER_CONTROL_KEYS has no key"), "{:?}", nonsense.mistakes);
        assert!(!nonsense.control_keys.unwrap().check(b"{}").is_believed());
    }

    #[test]
    fn certificates_and_the_management_api_go_with_the_url_and_are_not_shown() {
        let mut table = good();
        table.0.insert(names::ENV_BROKER_URL, "amqps://u:p@mq".to_owned());
        table.0.insert(names::ENV_BROKER_CA, "CA".to_owned());
        table.0.insert(names::ENV_BROKER_CERT, "CERT".to_owned());
        table.0.insert(names::ENV_BROKER_KEY, "hunter2".to_owned());
        table.0.insert(names::ENV_MANAGEMENT_URL, "https://api/rabbit".to_owned());
        let settings = Settings::read(&table);
        let Ok(qscaler_broker_url::BrokerUrl::Amqp(url)) = qscaler_broker_url::parse(settings.broker.as_str()) else { panic!("{settings:?}") };
        assert_eq!(url.management.place(), "https://api:443/rabbit");
        assert_eq!(url.tls.unwrap().material.key.unwrap().expose(), "hunter2");
        assert!(!format!("{settings:?}").contains("hunter2"));
        table.0.insert(names::ENV_MANAGEMENT_URL, "api".to_owned());
        let settings = Settings::read(&table);
        assert!(settings.mistakes.len() == 1 && settings.control.is_some() && settings.mistakes[0].contains("http://HOST:PORT"), "{settings:?}");
    }

    #[test]
    fn without_a_usable_url_the_rest_is_read_and_nothing_asks_the_broker() {
        for (settings, says) in [
            (read_without(names::ENV_BROKER_URL), "QSCALER_BROKER_URL is empty"),
            (read_with(names::ENV_BROKER_URL, ""), "QSCALER_BROKER_URL is empty"),
            (read_with(names::ENV_BROKER_URL, "$(TYPO)"), "had no TYPO when"),
            (read_with(names::ENV_BROKER_URL, "redis://:$(PASS)@$(HOST):6379"), "had no PASS, HOST when"),
            (read_with(names::ENV_BROKER_URL, "mysql://u:hunter2@h"), "QSCALER_BROKER_URL: "),
            (read_with(names::ENV_BROKER_URL, "no url at all"), "QSCALER_BROKER_URL: "),
        ] {
            assert!(settings.control.is_none() && settings.mistakes.is_empty(), "{settings:?}");
            assert!(settings.broker_mistakes.len() == 1 && settings.broker_mistakes[0].contains(says), "{:?}", settings.broker_mistakes);
            assert_eq!((settings.config.container.as_str(), &settings.config.signals[..]), ("worker", &[Signal::Term][..]));
            assert_eq!(settings.config.busy, BusySource::Unknown);
            assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
        }
        assert!(!format!("{:?}", Settings::read(&good())).contains("secret"));
    }

    #[test]
    fn every_mistake_is_said_at_once() {
        let mut table = good();
        table.0.remove(names::ENV_POD_UID);
        table.0.insert(names::ENV_POD_IP, "x".to_owned());
        let settings = Settings::read(&table);
        let text = settings.mistakes.join("; ");
        assert!(text.contains(names::ENV_POD_UID) && text.contains(names::ENV_POD_IP), "{text}");
        assert!(settings.control.is_none(), "nobody could address this pod");
    }

    #[test]
    fn what_cannot_be_read_of_the_configuration_costs_no_more_than_itself() {
        let config = good().0[names::ENV_CONFIG].clone();
        let with = |from: &str, to: &str| {
            assert!(config.contains(from));
            read_with(names::ENV_CONFIG, &config.replace(from, to))
        };
        let newer = with("\"celeryEvents\"", "{\"telepathy\": 1}");
        assert!(newer.config.busy == BusySource::Unknown && newer.config.container == "worker" && newer.control.is_some());
        assert!(newer.mistakes.len() == 1 && newer.mistakes[0].contains("busy"), "{:?}", newer.mistakes);
        let signal = with("[\"SIGTERM\"]", "[\"SIGHUP\"]");
        assert!(signal.config.signals == [Signal::Term] && signal.mistakes[0].contains("signals"));
        let unknown = with("\"version\":1", "\"version\":1,\"future\":[]");
        assert!(unknown.mistakes.is_empty() && unknown.config == Settings::read(&good()).config);
        for text in ["", "{", "[]", "null"] {
            let settings = read_with(names::ENV_CONFIG, text);
            assert!(settings.control.is_none() && !settings.mistakes.is_empty() && settings.config.container.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_token_that_could_be_guessed_lets_nobody_in() {
        let config = good().0[names::ENV_CONFIG].clone();
        for token in ["", "a/b", "short"] {
            let settings = read_with(names::ENV_CONFIG, &config.replace("0123456789abcdef", token));
            assert!(settings.mistakes[0].contains("hookToken") && settings.config.hook_token == NO_TOKEN, "{settings:?}");
        }
    }
}
