//! etcd and an API server without nodes, for one test at a time. In: nothing. Out: a server that Helm, kubectl and clients of Rust can call. Left to others: what is
//! done with it.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where the chart is installed.
pub(crate) const NAMESPACE: &str = "qscaler-system";
/// How long the API server may take to come up on a busy machine.
pub(crate) const READY: Duration = Duration::from_secs(180);

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Where the chart is.
pub(crate) fn chart() -> String {
    root().join("charts/qscaler").display().to_string()
}

fn cache() -> PathBuf {
    env::var_os("QSCALER_CACHE").map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/qscaler"), PathBuf::from)
}

/// A program in the newest folder of the cache whose name begins so.
pub(crate) fn cached(folder: &str, program: &str) -> PathBuf {
    let folders = fs::read_dir(cache()).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = folders.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(folder)));
    let mut found: Vec<PathBuf> = named.map(|folder| folder.join(program)).filter(|file| file.exists()).collect();
    found.sort_by_key(|file| file.metadata().and_then(|meta| meta.modified()).ok());
    found.pop().unwrap_or_else(|| panic!("there is no {folder}*/{program} in {}: `cargo xtask test` makes it", cache().display()))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One API server at a time: two that start at once on a busy machine are both late.
static ONE: Mutex<()> = Mutex::new(());

/// etcd and an API server, ended when dropped.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    children: Vec<Child>,
    _one: MutexGuard<'static, ()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(at("sa.key"), key.serialize_pem()).unwrap();
        fs::write(at("sa.pub"), key.public_key_pem()).unwrap();
        fs::write(at("tokens.csv"), "of-this-test-alone,admin,admin,\"system:masters\"\n").unwrap();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: \"https://127.0.0.1:{port}\", insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: a, user: {{token: of-this-test-alone}}}}]\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\ncurrent-context: a\n"
        );
        fs::write(at("kubeconfig"), kubeconfig).unwrap();
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut etcd = Command::new(cached("kubernetes-", "etcd"));
        etcd.args(["--unsafe-no-fsync", "--log-level", "error", "--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
                "--initial-cluster",
                &format!("default={peer}"),
                "--data-dir",
            ])
            .arg(at("etcd"));
        let mut api = Command::new(cached("kubernetes-", "kube-apiserver"));
        api.args([
            "--etcd-servers",
            &client,
            "--bind-address",
            "127.0.0.1",
            "--secure-port",
            &port.to_string(),
            "--service-cluster-ip-range",
            "10.9.0.0/24",
        ])
        .args(["--authorization-mode", "RBAC", "--service-account-issuer", "https://kubernetes.default.svc", "--endpoint-reconciler-type", "none"])
        .args(["--token-auth-file", "tokens.csv", "--cert-dir", "certs"])
        .args(["--service-account-key-file", "sa.pub", "--service-account-signing-key-file", "sa.key"]);
        let mut server = Self { folder, children: Vec::new(), _one: one };
        for (name, mut command) in [("etcd", etcd), ("api", api)] {
            let log = fs::File::create(server.folder.path().join(format!("{name}.log"))).unwrap();
            command.current_dir(server.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            server.children.push(command.spawn().unwrap());
        }
        let begin = Instant::now();
        while !server.run(&cached("kubernetes-", "kubectl"), &["get", "--raw", "/readyz"], None).0 {
            let log = || fs::read_to_string(server.folder.path().join("api.log")).unwrap_or_default();
            assert!(begin.elapsed() < READY, "the API server is not ready: {}", log());
            std::thread::sleep(Duration::from_millis(250));
        }
        server.kubectl(&["create", "namespace", NAMESPACE]);
        server
    }

    /// A folder that lives as long as it does.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client of it, in the role of the administrator.
    pub(crate) async fn client(&self) -> kube::Client {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = kube::config::Kubeconfig::read_from(self.folder.path().join("kubeconfig")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// Whether it went well, and all that it printed.
    pub(crate) fn run(&self, program: &Path, arguments: &[&str], stdin: Option<&str>) -> (bool, String) {
        let input = self.folder.path().join("stdin");
        fs::write(&input, stdin.unwrap_or_default()).unwrap();
        let output = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .stdin(fs::File::open(input).unwrap())
            .output()
            .unwrap();
        (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let (ok, words) = self.run(&cached("kubernetes-", "kubectl"), arguments, None);
        assert!(ok, "kubectl {}: {words}", arguments.join(" "));
        words
    }

    pub(crate) fn helm(&self, major: &str, arguments: &[&str]) -> String {
        let mut all = arguments.to_vec();
        all.extend(["--namespace", NAMESPACE]);
        let (ok, words) = self.run(&cached(major, "helm"), &all, None);
        assert!(ok, "helm {}: {words}", arguments.join(" "));
        words
    }
}
