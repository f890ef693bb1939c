//! A registry with a login, as a company has one: chart and images are pushed and pulled with it as docs/release.md says, and without it refused, in words. In: Debian's
//! registry on loopback, Helm 3 and 4 and crane from the cache, as `cargo xtask test` makes them. Out: that logins of `docker login` and of `helm registry login` are used,
//! and what is said without one. Left to others: images that nodes pull (`cargo xtask newcomer`), what is in them (`cargo xtask release`).

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use qscaler_tests::registry::{self, BASIC, PASSWORD, USER};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What both Helms say where no login is known.
const NO_LOGIN: &str = "basic credential not found";

/// A program in the newest folder of the cache whose name begins so.
fn cached(folder: &str, program: &str) -> PathBuf {
    let cache =
        env::var_os("QSCALER_CACHE").map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/qscaler"), PathBuf::from);
    let folders = fs::read_dir(&cache).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = folders.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(folder)));
    let mut found: Vec<PathBuf> = named.map(|folder| folder.join(program)).filter(|file| file.exists()).collect();
    found.sort_by_key(|file| file.metadata().and_then(|meta| meta.modified()).ok());
    found.pop().unwrap_or_else(|| panic!("there is no {folder}*/{program} in {}: `cargo xtask test` makes it", cache.display()))
}

/// The registry, and somebody's home folder in it.
struct Registry {
    server: registry::Registry,
    host: String,
}

impl Registry {
    fn start() -> Self {
        let server = registry::Registry::start(&cached("docker-registry-", "docker-registry")).unwrap();
        Self { host: server.host().to_owned(), server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.path(name)
    }

    fn docker_login(&self, is_in: bool) {
        self.server.docker_login(is_in).unwrap();
    }

    /// Whether it went well, and all that it printed.
    fn run(&self, program: &Path, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(program);
        command.args(arguments).env("HOME", self.path("")).env("DOCKER_CONFIG", self.path("docker")).stdin(Stdio::null());
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.path("helm"));
        }
        let output = command.output().unwrap();
        (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    fn good(&self, program: &Path, arguments: &[&str]) -> String {
        let (ok, words) = self.run(program, arguments);
        assert!(ok, "{} {}: {words}", program.display(), arguments.join(" "));
        words
    }

    fn refused(&self, program: &Path, arguments: &[&str], says: &str) {
        let (ok, words) = self.run(program, arguments);
        assert!(!ok && words.to_lowercase().contains(says), "{} {}: {words}", program.display(), arguments.join(" "));
        assert!(!words.contains(PASSWORD) && !words.contains(BASIC), "the password is in: {words}");
    }
}

#[test]
fn the_chart_comes_from_a_registry_with_a_login_and_without_one_is_refused_with_the_reason() {
    let registry = Registry::start();
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/qscaler").display().to_string();
    let version = env!("CARGO_PKG_VERSION");
    for (major, out) in [("helm-", "three"), ("helm4-", "four")] {
        let helm = cached(major, "helm");
        let (charts, packed) = (format!("oci://{}/{out}/charts", registry.host), registry.path(out).display().to_string());
        let (qscaler, file) = (format!("{charts}/qscaler"), format!("{packed}/qscaler-{version}.tgz"));
        registry.good(&helm, &["package", &chart, "-d", &packed]);
        registry.docker_login(false);
        registry.refused(&helm, &["push", &file, &charts, "--plain-http"], NO_LOGIN);
        // As the release's workflow pushes it.
        registry.docker_login(true);
        registry.good(&helm, &["push", &file, &charts, "--plain-http"]);
        registry.docker_login(false);

        let template = ["template", "qscaler", &qscaler, "--version", version, "--kube-version", "1.36.3", "--plain-http"];
        registry.refused(&helm, &template, NO_LOGIN);
        let login = |password| ["registry", "login", registry.host.as_str(), "--username", USER, "--password", password, "--plain-http"];
        registry.refused(&helm, &login("wrong"), "401");
        registry.good(&helm, &login(PASSWORD));
        let manifests = registry.good(&helm, &template);
        assert!(manifests.contains("kind: MutatingWebhookConfiguration"), "{manifests}");
        let pulled = registry.path(&format!("{out}-pulled"));
        fs::create_dir(&pulled).unwrap();
        registry.good(&helm, &["pull", &qscaler, "--version", version, "--plain-http", "-d", &pulled.display().to_string()]);
        let bytes = |folder: &Path| fs::read(folder.join(format!("qscaler-{version}.tgz"))).unwrap();
        assert_eq!(bytes(&pulled), bytes(&registry.path(out)), "another chart came than was pushed");
        registry.good(&helm, &["registry", "logout", &registry.host]);
        registry.refused(&helm, &["pull", &qscaler, "--version", version, "--plain-http"], NO_LOGIN);
    }
}

#[test]
fn images_are_pushed_with_docker_s_login_and_refused_without_it() {
    let registry = Registry::start();
    let crane = cached("crane-", "crane");
    let layer = registry.path("layer.tar").display().to_string();
    fs::write(registry.path("file"), "x").unwrap();
    assert!(Command::new("tar").args(["-cf", &layer, "-C"]).arg(registry.path("")).arg("file").status().unwrap().success());
    let reference = format!("{}/q/qscaler:dev", registry.host);
    let push = ["append", "--insecure", "--new_layer", &layer, "--new_tag", &reference];
    registry.docker_login(false);
    registry.refused(&crane, &push, "unauthorized");
    registry.docker_login(true);
    registry.good(&crane, &push);
    let digest = registry.good(&crane, &["digest", "--insecure", &reference]);
    assert!(digest.trim().lines().last().is_some_and(|line| line.starts_with("sha256:")), "{digest}");
    registry.docker_login(false);
    registry.refused(&crane, &["digest", "--insecure", &reference], "unauthorized");
}
