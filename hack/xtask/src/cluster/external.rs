//! Clusters that others make: kind's, and the one of the current kubeconfig. In: a name. Out: a kubeconfig, images brought in. It leaves
//! everything that both kinds share to [`super::Cluster`].

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::exec;
use crate::step::Step;

fn kind(arguments: &[&str]) -> Result<String> {
    for (program, why) in [("docker", "kind runs its nodes in Docker"), ("kind", "it makes the cluster")] {
        if exec::which(program).is_none() {
            bail!("{program} is missing ({why}): install it, or run as root on Debian or Ubuntu without --cluster kind");
        }
    }
    exec::output(Command::new("kind").args(arguments))
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
    let kubeconfig = folder.join("kubeconfig").display().to_string();
    kind(&["create", "cluster", "--name", &kind_name(name), "--kubeconfig", &kubeconfig, "--wait", "180s"])?;
    step.done();
    Ok(())
}

/// The kubeconfig of a kind cluster that is up.
///
/// # Errors
/// kind or Docker is missing or fails.
pub fn kind_kubeconfig(name: &str, folder: &Path) -> Result<Option<PathBuf>> {
    let listed = kind(&["get", "clusters"])?;
    let kubeconfig = folder.join("kubeconfig");
    Ok((listed.lines().any(|line| line == kind_name(name)) && kubeconfig.exists()).then_some(kubeconfig))
}

/// Ends a kind cluster.
///
/// # Errors
/// kind or Docker is missing or fails.
pub fn kind_down(name: &str, folder: &Path) -> Result<()> {
    let kubeconfig = folder.join("kubeconfig").display().to_string();
    kind(&["delete", "cluster", "--name", &kind_name(name), "--kubeconfig", &kubeconfig])?;
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
    kind(&["load", "image-archive", "--name", &kind_name(name), &archive.display().to_string()]).map(drop)
}

/// The address at which pods of kind clusters reach this machine: the gateway of Docker's network of that name.
///
/// # Errors
/// Docker does not tell, or the network has no IPv4 gateway.
pub fn kind_gateway() -> Result<IpAddr> {
    let format = "{{range .IPAM.Config}}{{println .Gateway}}{{end}}";
    let listed = exec::output(Command::new("docker").args(["network", "inspect", "kind", "--format", format]))?;
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

    #[test]
    fn the_ipv4_gateway_is_taken_whatever_stands_before_it() {
        assert_eq!(ipv4("fc00:f853::1\n172.18.0.1\n\n"), Some("172.18.0.1".parse().unwrap()));
        assert_eq!(ipv4("\n"), None);
    }
}
