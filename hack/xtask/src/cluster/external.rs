//! Clusters that others make: kind's, and the one of the current kubeconfig. In: a name. Out: a kubeconfig, images brought in. It leaves
//! everything that both kinds share to [`super::Cluster`].

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::exec;
use crate::step::Step;

/// Docker's arguments that list the gateways of kind's network, a line each.
const GATEWAYS: [&str; 5] = ["network", "inspect", "kind", "--format", "{{range .IPAM.Config}}{{println .Gateway}}{{end}}"];

/// What kind is asked for; each is a command line ([`Kind::words`]).
#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Create { name: &'a str, kubeconfig: &'a Path },
    List,
    Delete { name: &'a str, kubeconfig: &'a Path },
    Load { name: &'a str, archive: &'a Path },
}

impl Kind<'_> {
    /// kind's arguments.
    fn words(self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        match self {
            Self::Create { name, kubeconfig } => {
                vec![
                    "create".into(),
                    "cluster".into(),
                    "--name".into(),
                    kind_name(name),
                    "--kubeconfig".into(),
                    path(kubeconfig),
                    "--wait".into(),
                    "180s".into(),
                ]
            }
            Self::List => vec!["get".into(), "clusters".into()],
            Self::Delete { name, kubeconfig } => {
                vec!["delete".into(), "cluster".into(), "--name".into(), kind_name(name), "--kubeconfig".into(), path(kubeconfig)]
            }
            Self::Load { name, archive } => vec!["load".into(), "image-archive".into(), "--name".into(), kind_name(name), path(archive)],
        }
    }

    fn run(self) -> Result<String> {
        for (program, why) in [("docker", "kind runs its nodes in Docker"), ("kind", "it makes the cluster")] {
            if exec::which(program).is_none() {
                bail!("{program} is missing ({why}): install it, or run as root on Debian or Ubuntu without --cluster kind");
            }
        }
        exec::output(Command::new("kind").args(self.words()))
    }
}

fn kind_name(name: &str) -> String {
    format!("qscaler-{name}")
}

/// Makes a kind cluster whose kubeconfig is in `folder`.
///
/// # Errors
/// kind or Docker is missing or fails.
pub fn kind_up(name: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let step = Step::start(format!("starting the kind cluster {}", kind_name(name)));
    Kind::Create { name, kubeconfig: &folder.join("kubeconfig") }.run()?;
    step.done();
    Ok(())
}

/// The kubeconfig of a kind cluster that is up.
///
/// # Errors
/// kind or Docker is missing or fails.
pub fn kind_kubeconfig(name: &str, folder: &Path) -> Result<Option<PathBuf>> {
    let listed = Kind::List.run()?;
    let kubeconfig = folder.join("kubeconfig");
    Ok((listed.lines().any(|line| line == kind_name(name)) && kubeconfig.exists()).then_some(kubeconfig))
}

/// Ends a kind cluster.
///
/// # Errors
/// kind or Docker is missing or fails.
pub fn kind_down(name: &str, folder: &Path) -> Result<()> {
    Kind::Delete { name, kubeconfig: &folder.join("kubeconfig") }.run()?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| format!("cannot remove {}", folder.display())),
        _ => Ok(()),
    }
}

/// Brings an archive into a kind cluster's nodes.
///
/// # Errors
/// kind refuses it.
pub fn kind_import(name: &str, archive: &Path) -> Result<()> {
    Kind::Load { name, archive }.run().map(drop)
}

/// The address at which pods of kind clusters reach this machine: the gateway of Docker's network of that name.
///
/// # Errors
/// Docker does not tell, or the network has no IPv4 gateway.
pub fn kind_gateway() -> Result<IpAddr> {
    let listed = exec::output(Command::new("docker").args(GATEWAYS))?;
    ipv4(&listed).context("Docker's network \"kind\" has no IPv4 gateway")
}

fn ipv4(listed: &str) -> Option<IpAddr> {
    listed.lines().filter_map(|line| line.trim().parse().ok()).find(IpAddr::is_ipv4)
}

/// The user's own kubeconfig: the first file of `KUBECONFIG`, else `~/.kube/config`.
pub fn current_kubeconfig() -> Option<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").and_then(|paths| std::env::split_paths(&paths).find(|path| path.is_file()));
    listed.or_else(|| {
        let own = PathBuf::from(std::env::var_os("HOME")?).join(".kube/config");
        own.is_file().then_some(own)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is no Docker where this is tested: what would be run is a value, and this is all that is known of it.
    #[test]
    fn kind_is_asked_for_a_cluster_of_our_own_name_with_a_kubeconfig_of_its_own_and_never_for_another_s() {
        let (kubeconfig, archive) = (Path::new("/c/demo/kubeconfig"), Path::new("/c/qscaler.tar"));
        let words = |asked: Kind<'_>| asked.words().join(" ");
        let name = "demo";
        assert_eq!(words(Kind::Create { name, kubeconfig }), "create cluster --name qscaler-demo --kubeconfig /c/demo/kubeconfig --wait 180s");
        assert_eq!(words(Kind::Load { name, archive }), "load image-archive --name qscaler-demo /c/qscaler.tar");
        assert_eq!(words(Kind::Delete { name, kubeconfig }), "delete cluster --name qscaler-demo --kubeconfig /c/demo/kubeconfig");
        assert_eq!(words(Kind::List), "get clusters");
        assert_eq!(GATEWAYS[..3], ["network", "inspect", "kind"]);
    }

    #[test]
    fn the_ipv4_gateway_is_taken_whatever_stands_before_it() {
        assert_eq!(ipv4("fc00:f853::1\n172.18.0.1\n\n"), Some("172.18.0.1".parse().unwrap()));
        assert_eq!(ipv4("\n"), None);
    }
}
