//! Command line of the certificate keeper. In: flags, or the same from the environment. Out: checked values. Left to others: what they do.

use clap::Parser;
use qscaler_runtime::log::{FILTER_DEFAULT, Format};
use std::net::SocketAddr;

/// Issues and rotates the certificate of the QScaler webhook.
#[derive(Clone, Debug, Parser)]
#[command(name = "qscaler-certs", version, about)]
pub struct Args {
    /// The namespace of the Secrets and of the webhook's Service.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of the webhook's Service.
    #[arg(long, env = "QSCALER_SERVICE", default_value = "qscaler-webhook")]
    pub service: String,
    /// Do what is due now, and end.
    #[arg(long, env = "QSCALER_ONCE")]
    pub once: bool,
    /// Where /livez, /readyz and /metrics are.
    #[arg(long, env = "QSCALER_ADMIN_ADDRESS", default_value = "[::]:8080")]
    pub admin_address: SocketAddr,
    /// json or text.
    #[arg(long, env = "QSCALER_LOG_FORMAT", default_value_t = Format::Json)]
    pub log_format: Format,
    /// A level, then target=level pairs.
    #[arg(long, env = "QSCALER_LOG", default_value = FILTER_DEFAULT)]
    pub log_filter: String,
}
