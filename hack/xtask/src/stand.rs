//! A cluster with QScaler in it, as tests and the demo need it. In: a name. Out: a cluster up, images imported, the chart applied as it is and ready,
//! and a way to run a program in its network. It leaves what happens there to that program.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::brokers::Brokers;
use crate::cache::Cache;
use crate::cluster::process::Process;
use crate::cluster::{Cluster, Flavor, Place, UpOptions, parts};
use crate::exec::{self, output};
use crate::images::{self, Image, Profile};
use crate::release::publish;
use crate::step::Step;
use crate::{browser, helm, interrupt, kinds, monitoring, registry, rights, source_root};

/// What turns on the tests that need real brokers, or the cluster. Cargo is called with these and the whole workspace everywhere, so that no dependency is
/// compiled a second time with other features.
pub const FEATURES: &str = "qscaler-tests/servers,qscaler-tests/cluster";
/// Where the chart goes.
const NAMESPACE: &str = "qscaler-system";
/// What differs from the chart's defaults: the images of this tree.
const VALUES: &[&str] =
    &["image.repository=qscaler/qscaler", "image.tag=dev", "sidecar.image.repository=qscaler/qscaler-sidecar", "sidecar.image.tag=dev"];
/// Two controllers, so that one can take over from the other; each with its page.
const COPIES: &[&str] = &["controller.replicas=2", "controller.page.enabled=true"];
/// Seconds that a part may take to become ready on a busy machine.
const READY_S: u32 = 240;

/// A cluster with QScaler in it.
pub struct Stand {
    cache: Cache,
    cluster: Cluster,
    brokers: Brokers,
    helm: PathBuf,
}

/// Brokers, Helm, Prometheus, a browser, a registry, definitions of other projects' kinds, crane and Kubernetes' programs, found or made.
///
/// # Errors
/// They cannot be had; the message says what to install.
pub fn tools() -> Result<()> {
    let cache = Cache::open()?;
    Brokers::ensure(&cache)?;
    monitoring::ensure(&cache)?;
    browser::ensure(&cache)?;
    registry::ensure(&cache)?;
    kinds::ensure(&cache)?;
    publish::crane(&cache)?;
    parts::kubernetes(&cache)?;
    helm::three(&cache)?;
    helm::four(&cache).map(drop)
}

/// These images of a stand, built if something in them changed.
///
/// # Errors
/// Something cannot be built.
pub fn archives(cache: &Cache, images: &[Image]) -> Result<Vec<PathBuf>> {
    images::build(cache, images, Profile::Stand)
}

/// Builds what is missing, brings the cluster up with these images, and installs QScaler in it. `tied`: the cluster ends with this process, however that ends.
///
/// # Errors
/// Something cannot be built or does not become ready.
pub fn up(name: &str, tied: bool, images: &[Image]) -> Result<Stand> {
    up_on(Flavor::choose()?, name, tied, images)
}

/// The same in a cluster of this kind. One that does not end with this process (kind's) is taken down again where QScaler does not become ready in it, if it is tied.
fn up_on(flavor: Flavor, name: &str, tied: bool, images: &[Image]) -> Result<Stand> {
    let cache = Cache::open()?;
    let archives = beside(&cache, flavor, || archives(&cache, images))?;
    let up = up_there(cache.clone(), flavor, name, tied, archives, COPIES);
    if up.is_err() && tied && flavor == Flavor::Kind {
        Cluster::down(&cache, name, flavor)?;
    }
    up
}

/// Does `work` while what a cluster needs besides is fetched and built: where nothing is in the cache yet, one waits for the network or a last crate while another has
/// the processor. Python's workers are in every stand.
///
/// # Errors
/// The work's own, or something cannot be had.
pub fn beside<T>(cache: &Cache, flavor: Flavor, work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::thread::scope(|scope| {
        let python = || images::build(cache, &[Image::WorkerPython], Profile::Stand).map(drop);
        let mut others = vec![scope.spawn(|| Brokers::ensure(cache).map(drop)), scope.spawn(|| helm::three(cache).map(drop)), scope.spawn(python)];
        if flavor == Flavor::Box {
            others.push(scope.spawn(|| parts::Parts::ensure(cache).map(drop)));
            others.push(scope.spawn(|| images::build(cache, &[Image::Pause, Image::Coredns], Profile::Stand).map(drop)));
        }
        let made = work();
        for other in others {
            other.join().unwrap_or_else(|_| bail!("a thread that made a part of the cluster ended"))?;
        }
        made
    })
}

/// A cluster with these images and without QScaler, for whoever installs it himself.
///
/// # Errors
/// Something cannot be built, or does not become ready.
pub fn bare(cache: Cache, name: &str, tied: bool, images: &[Image]) -> Result<Stand> {
    let flavor = Flavor::choose()?;
    let archives = beside(&cache, flavor, || archives(&cache, images))?;
    begin(cache, flavor, name, tied, archives)
}

/// The same with images that are built already, and with these further values of the chart.
///
/// # Errors
/// Something else cannot be built, or does not become ready.
pub fn up_with(cache: Cache, name: &str, tied: bool, archives: Vec<PathBuf>, values: &[&str]) -> Result<Stand> {
    up_there(cache, Flavor::choose()?, name, tied, archives, values)
}

fn up_there(cache: Cache, flavor: Flavor, name: &str, tied: bool, archives: Vec<PathBuf>, values: &[&str]) -> Result<Stand> {
    // An archive's name says what is in it.
    let content: Vec<String> = archives.iter().map(|archive| archive.display().to_string()).collect();
    let stand = begin(cache, flavor, name, tied, archives)?;
    stand.install(values, &content.join(","))?;
    Ok(stand)
}

fn begin(cache: Cache, flavor: Flavor, name: &str, tied: bool, archives: Vec<PathBuf>) -> Result<Stand> {
    let brokers = Brokers::ensure(&cache)?;
    let helm = helm::three(&cache)?;
    let cluster = Cluster::up(&cache, name, flavor, &UpOptions { images: archives, tied })?;
    Ok(Stand { cache, cluster, brokers, helm })
}

impl Stand {
    /// `images`: names their content. In a cluster that was left up and has others, the parts are started anew: the tag stays the same, so Kubernetes would not.
    fn install(&self, values: &[&str], images: &str) -> Result<()> {
        let step = Step::start("installing QScaler by its chart");
        let kept = ["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "go-template={{with .metadata.annotations}}{{.images}}{{end}}"];
        let kept = output(&mut self.cluster.kubectl(kept))?;
        let chart = source_root().join("charts/qscaler").display().to_string();
        let mut words = vec!["upgrade", "--install", "qscaler", &chart, "--create-namespace"];
        words.extend(VALUES.iter().chain(values).flat_map(|value| ["--set", value]));
        self.helm(&words)?;
        let note = format!("images={images}");
        output(&mut self.cluster.kubectl(["annotate", "namespace", NAMESPACE, "--overwrite", &note]))?;
        if !kept.trim().is_empty() && kept.trim() != images {
            output(&mut self.cluster.kubectl(["-n", NAMESPACE, "rollout", "restart", "deployment"]))?;
        }
        let limit = format!("--timeout={}s", READY_S * exec::patience());
        for part in ["certs", "webhook", "controller"] {
            let deployment = format!("deployment/qscaler-{part}");
            output(&mut self.cluster.kubectl(["-n", NAMESPACE, "rollout", "status", &deployment, &limit]))?;
        }
        step.done();
        Ok(())
    }

    fn helm(&self, words: &[&str]) -> Result<String> {
        let mut helm = Command::new(&self.helm);
        helm.args(words).args(["--namespace", NAMESPACE]).env("KUBECONFIG", self.cluster.kubeconfig());
        // What it remembers ends with the cluster, and nothing of the machine's own Helm is read.
        let folder = self.cluster.logs().with_file_name("helm");
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(variable, &folder);
        }
        output(&mut helm)
    }

    /// Starts a program in the cluster's network, to end with the cluster at the latest. It finds the cluster, the brokers and the address at which pods
    /// reach it in its environment: `KUBECONFIG`, `QSCALER_BROKERS_BIN`, `QSCALER_HOST_IP`; `kubectl` is the cluster's own, `helm` the one that installed QScaler.
    /// A box's API server writes what QScaler asks of it to `QSCALER_AUDIT_LOG`. The servers that it starts end
    /// with it: the next program's have the same ports.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        let kubectl = PathBuf::from(self.cluster.kubectl::<&str>([]).get_program());
        let folders = [&kubectl, &self.helm].into_iter().filter_map(|program| program.parent()).map(Path::to_path_buf);
        // What the command itself is to find comes after what the cluster brings.
        let own = command.get_envs().find_map(|(name, value)| value.filter(|_| name == "PATH").map(std::ffi::OsStr::to_os_string));
        let inherited = own.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        command
            .process_group(0)
            .env("PATH", std::env::join_paths(folders.chain(std::env::split_paths(&inherited)))?)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("QSCALER_HOST_IP", self.cluster.host_ip()?.to_string())
            .env("QSCALER_BROKERS_BIN", self.brokers.bin())
            .env("QSCALER_AUDIT_LOG", self.cluster.logs().join("audit.log"))
            .env("HOME", self.cluster.logs().parent().unwrap_or(Path::new("/tmp")));
        self.cluster.spawn_inside(command, Place::Box)
    }

    /// The rights that the chart gives beside the calls that the API server has noted; `whole`: every test has run and passed. None: this cluster's API server
    /// notes nothing.
    ///
    /// # Errors
    /// Roles or log cannot be read.
    pub fn rights(&self, whole: bool) -> Result<Option<rights::Compared>> {
        if self.cluster.flavor() != Flavor::Box {
            return Ok(None);
        }
        // A log of 100 MB gets another name, and a new one begins.
        let folder = self.cluster.logs();
        let files = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut audit = String::new();
        for file in files.flatten().map(|file| file.path()) {
            if file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("audit") && name.ends_with(".log")) {
                audit += &std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                audit.push('\n');
            }
        }
        let ask = |kinds: &str| -> Result<serde_json::Value> {
            let text = output(&mut self.cluster.kubectl(["get", kinds, "-A", "-l", "app.kubernetes.io/name=qscaler", "-o", "json"]))?;
            serde_json::from_str(&text).context("kubectl's answer")
        };
        rights::compare(&ask("clusterroles,roles")?, &ask("clusterrolebindings,rolebindings")?, &audit, whole).map(Some)
    }

    /// What an onlooker would ask for after a failure: pods, QWorkers, the end of the controller's and webhook's logs.
    pub fn print_state(&self) {
        let asks: [&[&str]; 6] = [
            &["get", "pods", "-A", "-o", "wide"],
            &["get", "qworkers", "-A"],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &["-n", NAMESPACE, "logs", "-l", "app.kubernetes.io/component=controller", "--tail=60", "--prefix"],
            &["-n", NAMESPACE, "logs", "-l", "app.kubernetes.io/component=webhook", "--tail=30", "--prefix"],
            &["-n", NAMESPACE, "logs", "-l", "app.kubernetes.io/component=certs", "--tail=20", "--prefix"],
        ];
        for ask in asks {
            println!("\n$ kubectl {}", ask.join(" "));
            let text = output(&mut self.cluster.kubectl(ask)).unwrap_or_else(|error| format!("{error:#}"));
            println!("{}", exec::last_lines(&text, 120));
        }
    }

    /// Ends the cluster and everything in it.
    ///
    /// # Errors
    /// Something does not end.
    pub fn down(self) -> Result<()> {
        Cluster::down(&self.cache, self.cluster.name(), self.cluster.flavor())
    }
}

/// Brings a cluster with QScaler and these images up, runs a command in its network, and takes the cluster down, at Ctrl-C too; with `keep` it is left up. The command is
/// asked for when the cluster is up.
///
/// # Errors
/// Something cannot be built, or the command fails; then the cluster's state is printed.
pub fn run(cluster: &str, keep: bool, images: &[Image], command: impl FnOnce() -> Result<Command>) -> Result<()> {
    run_on(Flavor::choose()?, cluster, keep, images, command)
}

/// The same in a cluster of this kind.
///
/// # Errors
/// As [`run`].
pub fn run_on(flavor: Flavor, cluster: &str, keep: bool, images: &[Image], command: impl FnOnce() -> Result<Command>) -> Result<()> {
    interrupt::clean_up_first()?;
    let stand = up_on(flavor, cluster, !keep, images)?;
    let result = (|| {
        let mut command = command()?;
        let status = stand.spawn(&mut command)?.wait_or_interrupt();
        ensure!(status.success(), "{}: {status}", exec::shown(&command));
        Ok(())
    })();
    if result.is_err() {
        stand.print_state();
    }
    if keep {
        eprintln!("the cluster {cluster:?} is left up: cargo xtask cluster status --name {cluster} --cluster {}", flavor.name());
    } else {
        stand.down()?;
    }
    result
}

/// The same for a program of `qscaler-tests`, with these arguments.
///
/// # Errors
/// As [`run`].
pub fn run_program(cluster: &str, keep: bool, name: &str, words: &[String]) -> Result<()> {
    run(cluster, keep, &Image::STAND, || {
        let mut command = Command::new(program(name)?);
        command.args(words);
        Ok(command)
    })
}

/// Builds a program of `qscaler-tests`, which runs in the cluster's network; gives its path.
///
/// # Errors
/// It does not build.
pub fn program(name: &str) -> Result<PathBuf> {
    built(name, &["build", "--bin", name])
}

/// Builds one test of `qscaler-tests`; gives its program.
///
/// # Errors
/// It does not build.
pub fn test_program(name: &str) -> Result<PathBuf> {
    built(name, &["test", "--test", name, "--no-run"])
}

fn built(name: &str, words: &[&str]) -> Result<PathBuf> {
    let mut command = exec::cargo(words);
    command.args(["--workspace", "--features", FEATURES, "--message-format=json", "--quiet"]);
    executable(&output(&mut command)?, name)
}

/// The program of this name in cargo's `--message-format=json` output.
///
/// # Errors
/// Cargo built none.
pub fn executable(messages: &str, name: &str) -> Result<PathBuf> {
    let found = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|message| {
        let is_it = message["reason"] == "compiler-artifact" && message["target"]["name"] == name;
        is_it.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    let path = found.with_context(|| format!("cargo built no program {name}"))?;
    ensure!(path.exists(), "{} is not there", path.display());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_cargo_s_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"lib\"},\"executable\":null}\nnoise\n{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"e2e\"},\"executable\":\"/bin/sh\"}";
        assert_eq!(executable(messages, "e2e").unwrap(), PathBuf::from("/bin/sh"));
        assert!(executable(messages, "demo").is_err());
    }
}
