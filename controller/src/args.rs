//! Command line and environment of `qscaler-controller`. In: arguments. Out: checked values. Left to others: acting on them.

use crate::show::page;
use clap::Parser;
use qscaler_core::units::Millicores;
use qscaler_inject::Settings;
use qscaler_runtime::log::Format;
use std::net::SocketAddr;

/// Scales queue workers by their queues, drains before it removes, and sizes pods by what they used.
#[derive(Debug, Clone, Parser)]
#[command(name = "qscaler-controller", version)]
pub struct Args {
    /// Namespace that this controller runs in: where its Lease is.
    #[arg(long, env = "POD_NAMESPACE", default_value = "qscaler-system")]
    pub namespace: String,
    /// Name of this process among several controllers.
    #[arg(long, env = "POD_NAME", default_value_t = default_identity())]
    pub identity: String,
    /// Whether several controllers elect one that works.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Where /livez, /readyz, /metrics and /debug/decisions are served.
    #[arg(long, default_value = "[::]:8080")]
    pub admin_address: SocketAddr,
    /// Where a page that shows the fleet is served: an address of this pod alone, for `kubectl port-forward`. None: nowhere.
    #[arg(long, env = "QSCALER_PAGE_ADDRESS", value_parser = page::loopback)]
    pub page_address: Option<SocketAddr>,
    /// Image of the sidecar that the webhook gives to new pods: pods with another are replaced, one by one while they are idle.
    #[arg(long)]
    pub sidecar_image: Option<String>,
    /// Its CPU request, as the webhook has it: a LimitRange may leave no room for it.
    #[arg(long, default_value = "5m", value_parser = Millicores::parse)]
    pub sidecar_cpu_request: Millicores,
    /// Its CPU limit, as the webhook has it.
    #[arg(long, value_parser = Millicores::parse)]
    pub sidecar_cpu_limit: Option<Millicores>,
    /// Takes back what an uninstallation leaves behind (marks on pods, the Lease, the Secrets that certs has made), and ends. Does nothing while the release
    /// is there.
    #[arg(long)]
    pub after_uninstall: bool,
    /// A host that may be connected to as a broker: a name, an address, or *.DOMAIN; several: one option each. None: any.
    #[arg(long = "broker-host", env = "QSCALER_BROKER_HOSTS", value_delimiter = ',')]
    pub broker_hosts: Vec<String>,
    /// How log lines look: text or json.
    #[arg(long, default_value_t = Format::Json)]
    pub log_format: Format,
    /// What is logged, such as info or info,qscaler_controller=debug.
    #[arg(long, env = "QSCALER_LOG", default_value = qscaler_runtime::log::FILTER_DEFAULT)]
    pub log_filter: String,
}

impl Args {
    /// What new sidecars are like, as far as this process is told.
    #[must_use]
    pub fn sidecar(&self) -> Settings {
        let settings = Settings { cpu_request: self.sidecar_cpu_request, cpu_limit: self.sidecar_cpu_limit, ..Settings::default() };
        Settings { image: self.sidecar_image.clone().unwrap_or(settings.image.clone()), ..settings }
    }
}

/// Outside a pod no name is given: a random one differs from all others.
fn default_identity() -> String {
    format!("qscaler-controller-{}", uuid::Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_served_nowhere_unless_it_is_asked_for_and_then_for_this_pod_alone() {
        let parse = |words: &[&str]| Args::try_parse_from(["qscaler-controller"].iter().chain(words));
        assert_eq!(parse(&[]).unwrap().page_address, None);
        assert_eq!(parse(&["--page-address=127.0.0.1:8090"]).unwrap().page_address, Some("127.0.0.1:8090".parse().unwrap()));
        assert!(parse(&["--page-address=[::1]:8090"]).is_ok());
        for others in ["0.0.0.0:8090", "[::]:8090", "10.1.2.3:8090", "8090"] {
            let refusal = parse(&[&format!("--page-address={others}")]).unwrap_err().to_string();
            assert!(refusal.contains("127.0.0.1:8090"), "{others}: {refusal}");
        }
    }
}
