//! Command line of the webhook. In: flags, or the same from the environment. Out: checked values. Left to others: what they do.

use clap::Parser;
use qscaler_core::names::BROKER_CA_FILE;
use qscaler_core::units::{Bytes, Millicores, UnitError};
use qscaler_inject::Settings;
use qscaler_runtime::log::{FILTER_DEFAULT, Format};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Injects the QScaler sidecar into pods of annotated Deployments.
#[derive(Clone, Debug, Parser)]
#[command(name = "qscaler-webhook", version, about)]
pub struct Args {
    /// The namespace that this runs in; its pods are never touched.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Where admission requests come in.
    #[arg(long, env = "QSCALER_LISTEN", default_value = "[::]:10250")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are.
    #[arg(long, env = "QSCALER_ADMIN_ADDRESS", default_value = "[::]:8080")]
    pub admin_address: SocketAddr,
    /// json or text.
    #[arg(long, env = "QSCALER_LOG_FORMAT", default_value_t = Format::Json)]
    pub log_format: Format,
    /// A level, then target=level pairs.
    #[arg(long, env = "QSCALER_LOG", default_value = FILTER_DEFAULT)]
    pub log_filter: String,
    /// Serve this certificate chain instead of the one in the Secret.
    #[arg(long, env = "QSCALER_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of --tls-cert.
    #[arg(long, env = "QSCALER_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// How long the webhook goes on serving, not ready any more, after the signal to end.
    #[arg(long, env = "QSCALER_DRAIN_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub drain_seconds: u64,
    /// The injected image.
    #[arg(long, env = "QSCALER_SIDECAR_IMAGE", default_value_t = Settings::default().image)]
    pub sidecar_image: String,
    /// Its pull policy.
    #[arg(long, env = "QSCALER_SIDECAR_PULL_POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub sidecar_pull_policy: String,
    /// Its CPU request.
    #[arg(long, env = "QSCALER_SIDECAR_CPU_REQUEST", default_value = "5m", value_parser = cpu)]
    pub sidecar_cpu_request: Millicores,
    /// Its CPU limit; absent: only where all containers of the pod have one.
    #[arg(long, env = "QSCALER_SIDECAR_CPU_LIMIT", value_parser = cpu)]
    pub sidecar_cpu_limit: Option<Millicores>,
    /// Its memory request.
    #[arg(long, env = "QSCALER_SIDECAR_MEMORY_REQUEST", default_value = "16Mi", value_parser = memory)]
    pub sidecar_memory_request: Bytes,
    /// Its memory limit.
    #[arg(long, env = "QSCALER_SIDECAR_MEMORY_LIMIT", default_value = "64Mi", value_parser = memory)]
    pub sidecar_memory_limit: Bytes,
    /// A Secret of the pods' own namespaces by which the image may be pulled; several: one option each.
    #[arg(long = "sidecar-pull-secret", env = "QSCALER_SIDECAR_PULL_SECRETS", value_delimiter = ',')]
    pub sidecar_pull_secrets: Vec<String>,
    /// A public key (Ed25519 in base64) by which control messages may be signed, beside the one that the Secret of the certificate has; several: one option each.
    #[arg(long = "control-key", env = "QSCALER_CONTROL_KEYS", value_delimiter = ',')]
    pub control_keys: Vec<String>,
    /// A file of authorities (PEM) for all brokers, which sidecars get as text; read once, at the start.
    #[arg(long, env = BROKER_CA_FILE)]
    pub broker_ca_file: Option<PathBuf>,
}

fn cpu(text: &str) -> Result<Millicores, UnitError> {
    Millicores::parse(text)
}

fn memory(text: &str) -> Result<Bytes, UnitError> {
    Bytes::parse(text)
}

/// The certificates of a file, and nothing else that may be in it, such as a key: pods get them as text. What cannot be read, or has none, is said and left out:
/// a pod is injected all the same, and its sidecar says whom it does not trust.
fn authorities(file: &Path) -> Option<String> {
    let problem = match std::fs::read_to_string(file).map(|text| certificates(&text)) {
        Ok(found) if !found.is_empty() => return Some(found),
        Ok(_) => "it has no certificate in PEM".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::error!(file = %file.display(), problem, "{BROKER_CA_FILE} cannot be used: sidecars do not trust the brokers that it is for; valid: a file of PEM certificates");
    None
}

fn certificates(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = text.split(BEGIN).skip(1).filter_map(|rest| rest.split_once(END));
    blocks.map(|(body, _)| format!("{BEGIN}{body}{END}\n")).collect()
}

/// A limit below its request, which the API server would refuse in every pod.
#[derive(Debug, thiserror::Error)]
#[error("the sidecar's {what} limit ({limit}) is below its request ({request}); valid: at least {request}")]
pub struct LimitBelowRequest {
    what: &'static str,
    limit: String,
    request: String,
}

impl Args {
    /// What sidecars have in common.
    ///
    /// # Errors
    /// When a limit is below its request.
    pub fn settings(&self) -> Result<Settings, LimitBelowRequest> {
        let below =
            |what, limit: &dyn ToString, request: &dyn ToString| LimitBelowRequest { what, limit: limit.to_string(), request: request.to_string() };
        if self.sidecar_memory_limit < self.sidecar_memory_request {
            return Err(below("memory", &self.sidecar_memory_limit, &self.sidecar_memory_request));
        }
        if let Some(limit) = self.sidecar_cpu_limit.filter(|limit| *limit < self.sidecar_cpu_request) {
            return Err(below("CPU", &limit, &self.sidecar_cpu_request));
        }
        Ok(Settings {
            image: self.sidecar_image.clone(),
            pull_policy: self.sidecar_pull_policy.clone(),
            cpu_request: self.sidecar_cpu_request,
            cpu_limit: self.sidecar_cpu_limit,
            memory_request: self.sidecar_memory_request,
            memory_limit: self.sidecar_memory_limit,
            pull_secrets: self.sidecar_pull_secrets.clone(),
            broker_authorities: self.broker_ca_file.as_deref().and_then(authorities),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_of_brokers_are_a_file_of_certificates_or_nothing() {
        let folder = tempfile::tempdir().expect("a folder for this test");
        let folder = folder.path();
        let (good, bad) = (folder.join("ca.crt"), folder.join("key"));
        let certificate = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";
        std::fs::write(&good, format!("# ours\n{certificate}-----BEGIN PRIVATE KEY-----\nk\n-----END PRIVATE KEY-----\n{certificate}"))
            .expect("a file");
        std::fs::write(&bad, "-----BEGIN PRIVATE KEY-----\n").expect("a file");
        let settings = |file: &Path| {
            let text = file.display().to_string();
            Args::parse_from(["qscaler-webhook", "--namespace=q", "--broker-ca-file", &text]).settings().expect("settings").broker_authorities
        };
        assert_eq!(settings(&good), Some(certificate.repeat(2)));
        assert_eq!((settings(&bad), settings(&folder.join("missing"))), (None, None), "a key is never copied into pods");
    }
}
