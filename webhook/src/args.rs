//! Command line of the webhook. In: flags, or the same from the environment. Out: checked values. Left to others: what they do.

use clap::Parser;
use qscaler_core::units::{Bytes, Millicores, UnitError};
use qscaler_inject::Settings;
use qscaler_runtime::log::{FILTER_DEFAULT, Format};
use std::net::SocketAddr;
use std::path::PathBuf;

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
}

fn cpu(text: &str) -> Result<Millicores, UnitError> {
    Millicores::parse(text)
}

fn memory(text: &str) -> Result<Bytes, UnitError> {
    Bytes::parse(text)
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
        })
    }
}
