//! What the sidecar is told, through its environment. In: environment variables by way of [`Environment`]. Out: checked [`Settings`], or one
//! sentence per mistake that names the variable, what is wrong and what would be valid. Left to others: who writes them (`webhook`).

use qscaler_core::names::sidecar as names;
use qscaler_core::workload::SidecarConfig;
use std::fmt;
use std::net::IpAddr;

/// Exit code for a bad environment: `EX_USAGE` of sysexits.h.
pub const EXIT_USAGE: u8 = 64;

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
pub struct BrokerUrl(String);

impl BrokerUrl {
    /// The whole URL, for connecting.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://…", self.0.split("://").next().unwrap_or_default())
    }
}

/// Everything the sidecar is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What the webhook decided.
    pub config: SidecarConfig,
    /// Where the worker's tasks come from.
    pub broker: BrokerUrl,
    /// Where control messages come from.
    pub control: BrokerUrl,
    /// The pod's UID.
    pub pod_uid: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's address; None: the runtime gave none.
    pub pod_ip: Option<IpAddr>,
}

/// Mistakes in the environment, one sentence each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct SettingsError(pub Vec<String>);

impl Settings {
    /// Reads and checks the environment.
    ///
    /// # Errors
    /// Every mistake at once. No value of a URL is repeated in them: it may hold a password.
    pub fn read(environment: &impl Environment) -> Result<Self, SettingsError> {
        let mut mistakes = Vec::new();
        let mut required = |name: &str, valid: &str| {
            let value = environment.get(name).filter(|value| !value.is_empty());
            if value.is_none() {
                mistakes.push(format!("{name} is not set; valid: {valid}"));
            }
            value.unwrap_or_default()
        };
        let config_text = required(names::ENV_CONFIG, "the JSON that the webhook writes");
        let broker_text = required(names::ENV_BROKER_URL, "the worker's broker URL");
        let pod_uid = required(names::ENV_POD_UID, "the pod's metadata.uid by the downward API");
        let pod_name = required(names::ENV_POD_NAME, "the pod's metadata.name by the downward API");

        let broker = url(names::ENV_BROKER_URL, broker_text, &mut mistakes);
        let control = match environment.get(names::ENV_CONTROL_BROKER_URL).filter(|value| !value.is_empty()) {
            Some(text) => url(names::ENV_CONTROL_BROKER_URL, text, &mut mistakes),
            None => broker.clone(),
        };
        let pod_ip = environment.get(names::ENV_POD_IP).filter(|value| !value.is_empty()).and_then(|text| {
            let parsed = text.parse();
            if parsed.is_err() {
                mistakes.push(format!("{} is {text:?}; valid: an IP address, or nothing", names::ENV_POD_IP));
            }
            parsed.ok()
        });
        let config = match serde_json::from_str::<SidecarConfig>(&config_text) {
            Ok(config) => check(config, &mut mistakes),
            Err(_) if config_text.is_empty() => None,
            Err(error) => {
                mistakes.push(format!("{} does not parse: {error}; valid: the JSON that the webhook of this version writes", names::ENV_CONFIG));
                None
            }
        };
        match (config, broker, control) {
            (Some(config), Some(broker), Some(control)) if mistakes.is_empty() => Ok(Self { config, broker, control, pod_uid, pod_name, pod_ip }),
            _ => Err(SettingsError(mistakes)),
        }
    }
}

fn url(name: &str, text: String, mistakes: &mut Vec<String>) -> Option<BrokerUrl> {
    if text.is_empty() {
        return None;
    }
    match qscaler_broker::open_stats(&text) {
        Ok(_) => Some(BrokerUrl(text)),
        Err(error) => {
            mistakes.push(format!("{name}: {error}"));
            None
        }
    }
}

fn check(config: SidecarConfig, mistakes: &mut Vec<String>) -> Option<SidecarConfig> {
    let before = mistakes.len();
    let mut fail = |key: &str, problem: &str, valid: &str| mistakes.push(format!("{}: {key} {problem}; valid: {valid}", names::ENV_CONFIG));
    if config.version != 1 {
        fail("version", &format!("is {}", config.version), "1");
    }
    if config.container.is_empty() {
        fail("container", "is empty", "the name of the worker's container");
    }
    // The token is one path segment, and short ones could be guessed.
    if config.hook_token.len() < 16 || !config.hook_token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        fail("hookToken", "is no token (its value is not shown)", "16 or more letters, digits, - and _");
    }
    (mistakes.len() == before).then_some(config)
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

    #[test]
    fn a_good_environment_is_read() {
        let settings = Settings::read(&good()).unwrap();
        assert_eq!(settings.config.container, "worker");
        assert_eq!(settings.control, settings.broker);
        assert_eq!(settings.pod_ip, Some("10.0.0.7".parse().unwrap()));
    }

    #[test]
    fn the_control_broker_may_be_another_one() {
        let mut table = good();
        table.0.insert(names::ENV_CONTROL_BROKER_URL, "amqps://mq/vhost".to_owned());
        let settings = Settings::read(&table).unwrap();
        assert_eq!(settings.control.as_str(), "amqps://mq/vhost");
    }

    #[test]
    fn every_mistake_is_said_at_once_and_none_shows_a_password() {
        let mut table = good();
        table.0.remove(names::ENV_POD_UID);
        table.0.insert(names::ENV_BROKER_URL, "mysql://u:hunter2@h".to_owned());
        table.0.insert(names::ENV_POD_IP, "x".to_owned());
        let text = Settings::read(&table).unwrap_err().to_string();
        for part in [names::ENV_POD_UID, names::ENV_BROKER_URL, names::ENV_POD_IP, "amqp://"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!format!("{:?}", Settings::read(&good()).unwrap()).contains("secret"));
    }

    #[test]
    fn a_token_that_could_be_guessed_is_refused() {
        let mut table = good();
        let config = table.0[names::ENV_CONFIG].replace("0123456789abcdef", "a/b");
        table.0.insert(names::ENV_CONFIG, config);
        assert!(Settings::read(&table).unwrap_err().to_string().contains("hookToken"));
    }
}
