//! The programs of a local cluster, made once. In: the sources in `hack/cluster` and Debian's package names. Out: paths in the cache.
//! It leaves starting them to [`super::boxed`].

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::brokers::wrapper;
use crate::cache::{Cache, Key};
use crate::golang::{Go, required_version};
use crate::step::Step;
use crate::{debian, exec, source_root};

/// Every name that the one Kubernetes binary answers to.
const NAMES: [&str; 8] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl", "relay"];
/// Debian's packages of a node, and their programs.
const NODE_PACKAGES: [&str; 7] = ["containerd", "runc", "containernetworking-plugins", "nftables", "iptables", "conntrack", "iproute2"];
const NODE_PROGRAMS: [&str; 7] = ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "nft", "conntrack", "ip"];
/// The packet filter of kernels without nftables is one program, whose first argument says which of these it is to be.
const IPTABLES: &str = "xtables-legacy-multi";
const IPTABLES_NAMES: [&str; 3] = ["iptables", "iptables-save", "iptables-restore"];

/// Where the parts of a node are.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Kubernetes, etcd, kubectl and relay.
    pub kubernetes: PathBuf,
    /// containerd, runc, nft and the like.
    pub node: PathBuf,
    /// Network plugins that containerd calls.
    pub cni: PathBuf,
    /// The first process of boxes and pods.
    pub init: PathBuf,
}

impl Parts {
    /// Finds or makes every part.
    ///
    /// # Errors
    /// A part cannot be built or fetched; the message says what to install.
    pub fn ensure(cache: &Cache) -> Result<Self> {
        let kubernetes = kubernetes(cache)?;
        let (node, cni) = node(cache)?;
        Ok(Self { kubernetes, node, cni, init: init(cache)? })
    }
}

/// The folder with Kubernetes' programs, kubectl among them.
///
/// # Errors
/// It cannot be built.
pub fn kubernetes(cache: &Cache) -> Result<PathBuf> {
    let module = source_root().join("hack/cluster/k8s");
    let go_mod = fs::read_to_string(module.join("go.mod")).context("cannot read hack/cluster/k8s/go.mod")?;
    let version = required_version(&go_mod, "k8s.io/kubernetes").context("hack/cluster/k8s/go.mod does not require k8s.io/kubernetes")?;
    let flags = version_flags(&version)?;
    cache.once("kubernetes", &module_key(&module)?.with(&flags).finish(), |folder| {
        let go = Go::ensure(cache)?;
        let step = Step::start(format!("building Kubernetes {version} (once; about 5 minutes)"));
        go.build(&module, &flags, &folder.join("node"))?;
        for name in NAMES {
            symlink("node", folder.join(name)).with_context(|| format!("cannot link {name}"))?;
        }
        step.done();
        Ok(())
    })
}

/// CoreDNS.
///
/// # Errors
/// It cannot be built.
pub fn coredns(cache: &Cache) -> Result<PathBuf> {
    let module = source_root().join("hack/cluster/coredns");
    let folder = cache.once("coredns", &module_key(&module)?.finish(), |folder| {
        let go = Go::ensure(cache)?;
        let step = Step::start("building CoreDNS (once; about 2 minutes)");
        go.build(&module, "", &folder.join("coredns"))?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join("coredns"))
}

/// The first process of boxes and pods, compiled from `hack/cluster/init.c`.
///
/// # Errors
/// There is no C compiler, or no static C library.
pub fn init(cache: &Cache) -> Result<PathBuf> {
    let source = source_root().join("hack/cluster/init.c");
    let folder = cache.once("init", &Key::new().file(&source)?.finish(), |folder| {
        let Some(compiler) = exec::which("cc") else { bail!("a C compiler is missing: install gcc and libc6-dev") };
        let mut command = Command::new(compiler);
        command.args(["-O2", "-static", "-s", "-o"]).arg(folder.join("init")).arg(&source);
        exec::output(&mut command).map(drop)
    })?;
    Ok(folder.join("init"))
}

/// The folders of the node's programs and of its network plugins.
fn node(cache: &Cache) -> Result<(PathBuf, PathBuf)> {
    let key = NODE_PACKAGES.iter().chain(&NODE_PROGRAMS).chain(&IPTABLES_NAMES).fold(Key::new(), |key, name| key.with(name)).finish();
    let folder = cache.once("node", &key, |folder| {
        debian::require("containerd", "Docker and kind, and add --cluster kind")?;
        let step = Step::start("unpacking containerd, runc, nftables and iptables");
        let root = folder.join("root");
        debian::unpack_with_needs(cache, &NODE_PACKAGES, &root)?;
        let libraries = debian::library_folders(&root).iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
        let bin = folder.join("bin");
        fs::create_dir_all(&bin)?;
        for name in NODE_PROGRAMS {
            exec::write_program(&bin.join(name), &wrapper(&libraries, &find_program(&root, name)?))?;
        }
        let (iptables, extensions) = (find_program(&root, IPTABLES)?, iptables_extensions(&root)?);
        for name in IPTABLES_NAMES {
            let script = format!(
                "#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' XTABLES_LIBDIR='{}' exec '{}' {name} \"$@\"\n",
                extensions.display(),
                iptables.display()
            );
            exec::write_program(&bin.join(name), &script)?;
        }
        step.done();
        Ok(())
    })?;
    Ok((folder.join("bin"), folder.join("root/usr/lib/cni")))
}

fn iptables_extensions(root: &Path) -> Result<PathBuf> {
    let folders = debian::library_folders(root).into_iter().map(|folder| folder.join("xtables"));
    folders.into_iter().find(|folder| folder.is_dir()).context("the package iptables has no folder xtables")
}

fn find_program(root: &Path, name: &str) -> Result<PathBuf> {
    ["usr/bin", "usr/sbin", "bin", "sbin"]
        .iter()
        .map(|folder| root.join(folder).join(name))
        .find(|path| path.is_file() && !path.is_symlink())
        .with_context(|| format!("none of the packages {} has the program {name}", NODE_PACKAGES.join(", ")))
}

fn module_key(module: &Path) -> Result<Key> {
    let mut sources: Vec<PathBuf> = fs::read_dir(module)
        .with_context(|| format!("cannot read {}", module.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "go" || end == "mod" || end == "sum"))
        .collect();
    sources.sort();
    sources.iter().try_fold(Key::new().with(std::env::consts::ARCH), |key, path| key.file(path))
}

/// Kubernetes reads its own version from variables that the linker sets.
fn version_flags(version: &str) -> Result<String> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else { bail!("{version:?} is no version of Kubernetes") };
    let at = "k8s.io/component-base/version";
    Ok(format!("-X {at}.gitVersion={version} -X {at}.gitMajor={major} -X {at}.gitMinor={minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_is_told_its_version() {
        let flags = version_flags("v1.36.3").unwrap();
        assert!(flags.contains("gitVersion=v1.36.3") && flags.contains("gitMajor=1 ") && flags.ends_with("gitMinor=36"), "{flags}");
        assert!(version_flags("main").is_err());
    }

    #[test]
    fn the_committed_modules_name_their_versions() {
        for (module, requires) in [("k8s", "k8s.io/kubernetes"), ("coredns", "github.com/coredns/coredns")] {
            let folder = source_root().join("hack/cluster").join(module);
            let go_mod = fs::read_to_string(folder.join("go.mod")).unwrap();
            assert!(required_version(&go_mod, requires).is_some());
            assert!(fs::read_to_string(folder.join("go.sum")).unwrap().contains(requires));
        }
    }
}
