//! Six things that go wrong in installations, planted on purpose, and mended. In: which. Out: what is broken, and shell lines that mend it. Left to others: whether doctor names
//! it (`run`).

use crate::servers::RedisServer;
use crate::stand::fleet::{Fleet, FleetOptions, STEP};
use crate::stand::kubectl::kubectl;
use crate::stand::{BrokerKind, SYSTEM_NAMESPACE, Stand};
use anyhow::{Context, Result, ensure};
use serde_json::json;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The annotation names a Secret that is not there.
    WrongSecret,
    /// Nobody serves admissions.
    WebhookDown,
    /// The broker does not answer.
    BrokerDown,
    /// The webhook's certificate is over, and nobody renews it.
    ExpiredCertificate,
    /// Pods that were made before their namespace opted in, and are not replaced by the user's will.
    BarePods,
    /// The broker's user may not ask for a queue's length.
    MissingRight,
}

/// The broker's user that lacks a right, and its password.
const NARROW: (&str, &str) = ("narrow", "of-this-test");

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::WrongSecret, Self::WebhookDown, Self::BrokerDown, Self::ExpiredCertificate, Self::BarePods, Self::MissingRight];

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongSecret => "wrong secret",
            Self::WebhookDown => "webhook down",
            Self::BrokerDown => "broker down",
            Self::ExpiredCertificate => "expired certificate",
            Self::BarePods => "bare pods",
            Self::MissingRight => "missing broker right",
        }
    }

    /// Namespace of its fleet, where it has one.
    #[must_use]
    pub fn fleet(self) -> Option<&'static str> {
        Some(self.namespace()).filter(|namespace| *namespace != SYSTEM_NAMESPACE)
    }

    /// Where it is.
    fn namespace(self) -> &'static str {
        match self {
            Self::WrongSecret => "fault-secret",
            Self::BrokerDown => "fault-broker",
            Self::BarePods => "fault-bare",
            Self::MissingRight => "fault-right",
            Self::WebhookDown | Self::ExpiredCertificate => SYSTEM_NAMESPACE,
        }
    }

    /// Words that the failed check has, with its mend: what is broken, and what a reader has to change.
    #[must_use]
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::WrongSecret => &["fault-secret/orders", "nowhere"],
            Self::WebhookDown => &["qscaler-webhook", "scale deployment"],
            Self::BrokerDown => &["fault-broker/orders", "BrokerReachable"],
            Self::ExpiredCertificate => &["has expired", "delete secret"],
            Self::BarePods => &["fault-bare/orders", "sidecar"],
            Self::MissingRight => &["fault-right/orders", "llen"],
        }
    }
}

/// What was broken, and how it is made good.
pub struct Planted {
    /// Lines for a shell that mend it, as the check says.
    pub mend: Vec<String>,
    fault: Fault,
    fleet: Option<Fleet>,
    server: Option<RedisServer>,
}

/// Breaks it.
///
/// # Errors
/// The cluster refuses, or a server does not start.
pub async fn plant(stand: &'static Stand, fault: Fault) -> Result<Planted> {
    let mut planted = Planted { mend: Vec::new(), fault, fleet: None, server: None };
    let name = fault.namespace();
    let options = FleetOptions::managed(name, BrokerKind::Redis, 0, 1);
    let own = || RedisServer::start_persistent_at(stand.host.parse().context("QSCALER_HOST_IP")?, None);
    let scale = |part: &str, replicas: u32| format!("kubectl -n {SYSTEM_NAMESPACE} scale deployment qscaler-{part} --replicas={replicas}");
    match fault {
        Fault::WrongSecret => {
            planted.fleet = Some(Fleet::begin(stand, options.with("broker", "secret:nowhere/url")).await?);
            planted.mend.push(format!("kubectl -n {name} annotate deployment orders --overwrite qscaler.dev/broker=env:BROKER_URL"));
        }
        Fault::WebhookDown => {
            scaled("webhook", 0).await?;
            planted.mend.push(scale("webhook", 2));
        }
        Fault::BrokerDown => {
            let mut server = own()?;
            let fleet = Fleet::begin(stand, FleetOptions { url: Some(server.url(0)), ..options }).await?;
            fleet.wait_condition("BrokerReachable", "True", STEP).await?;
            server.stop();
            (planted.fleet, planted.server) = (Some(fleet), Some(server));
        }
        Fault::ExpiredCertificate => {
            scaled("certs", 0).await?;
            // One that still runs would make another at once.
            let limit = format!("--timeout={}s", STEP.as_secs());
            kubectl(&["-n", SYSTEM_NAMESPACE, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=certs", &limit], None).await?;
            let of = |variable: &str| -> Result<String> {
                let path = std::env::var_os(variable).with_context(|| format!("{variable} is not set: run `cargo xtask newcomer`"))?;
                Ok(std::fs::read_to_string(path)?)
            };
            let data = json!({"stringData": {"tls.crt": of("QSCALER_EXPIRED_CERTIFICATE")?, "tls.key": of("QSCALER_EXPIRED_KEY")?}}).to_string();
            kubectl(&["-n", SYSTEM_NAMESPACE, "patch", "secret", "qscaler-webhook-tls", "--type=merge", "--patch", &data], None).await?;
            planted.mend.extend([scale("certs", 1), format!("kubectl -n {SYSTEM_NAMESPACE} delete secret qscaler-webhook-tls")]);
        }
        Fault::BarePods => {
            let bare = FleetOptions { labelled: false, replicas: 1, ..FleetOptions::managed(name, BrokerKind::Redis, 1, 1) };
            let fleet = Fleet::create(stand, bare.with("paused", "true")).await?;
            kubectl(&["label", "namespace", name, "qscaler.dev/injection=enabled"], None).await?;
            planted.fleet = Some(fleet);
            planted.mend.push(format!("kubectl -n {name} annotate deployment orders --overwrite qscaler.dev/paused=false"));
        }
        Fault::MissingRight => {
            let server = own()?;
            let (user, password) = NARROW;
            rights(&server, &["on", &format!(">{password}"), "~*", "&*", "+@all", "-llen"])?;
            let url = server.url(0).replace("redis://", &format!("redis://{user}:{password}@"));
            planted.fleet = Some(Fleet::begin(stand, FleetOptions { url: Some(url), ..options }).await?);
            planted.server = Some(server);
        }
    }
    Ok(planted)
}

impl Planted {
    /// What no shell line mends: servers of this process.
    ///
    /// # Errors
    /// One does not start, or refuses.
    pub fn mend_server(&mut self) -> Result<()> {
        match (self.fault, self.server.as_mut()) {
            (Fault::BrokerDown, Some(server)) => server.restart(),
            (Fault::MissingRight, Some(server)) => rights(server, &["+llen"]),
            _ => Ok(()),
        }
    }

    /// Takes its fleet away.
    ///
    /// # Errors
    /// The API server refuses, or its pods do not leave.
    pub async fn remove(self) -> Result<()> {
        match self.fleet {
            Some(fleet) => fleet.remove().await,
            None => Ok(()),
        }
    }
}

async fn scaled(part: &str, replicas: u32) -> Result<()> {
    let deployment = format!("qscaler-{part}");
    kubectl(&["-n", SYSTEM_NAMESPACE, "scale", "deployment", &deployment, &format!("--replicas={replicas}")], None).await.map(drop)
}

fn rights(server: &RedisServer, rules: &[&str]) -> Result<()> {
    let output = server.cli(0).args(["ACL", "SETUSER", NARROW.0]).args(rules).output()?;
    ensure!(output.status.success(), "ACL SETUSER: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_and_words_of_its_own() {
        for (at, fault) in Fault::ALL.iter().enumerate() {
            assert!(!fault.name().is_empty() && fault.words().len() > 1, "{fault:?}");
            assert!(Fault::ALL[..at].iter().all(|other| other.name() != fault.name() && other.words() != fault.words()), "{fault:?}");
        }
    }
}
