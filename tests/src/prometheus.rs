//! A real Prometheus for tests, and what dashboard and alerts ask of it. In: `prometheus` and `promtool` (of `cargo xtask test`), targets, the files of the chart. Out: a running server,
//! answers to queries, the queries and alerts themselves. Left to others: what must be true of them.

use crate::servers::free_port;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The folder with `prometheus` and `promtool`: `QSCALER_PROMETHEUS_BIN`, else where `cargo xtask test` leaves it.
#[must_use]
pub fn bin() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || variable("QSCALER_CACHE").unwrap_or_else(|| variable("HOME").unwrap_or_default().join(".cache/qscaler"));
    variable("QSCALER_PROMETHEUS_BIN").unwrap_or_else(|| cache().join("prometheus/bin"))
}

/// The rule file of the chart.
#[must_use]
pub fn alerts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/qscaler/alerts/qscaler.yaml")
}

/// One query of a panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The panel's title.
    pub panel: String,
    /// PromQL, with every variable of the dashboard filled in: all workloads, a minute.
    pub text: String,
}

/// Every query of the dashboard.
///
/// # Errors
/// It cannot be read, or a panel asks nothing.
pub fn dashboard() -> Result<Vec<Query>> {
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/qscaler/dashboards/qscaler.json"))?)?;
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("a dashboard has panels")?.iter().filter(|p| p["type"] != "row") {
        let title = panel["title"].as_str().context("a panel has a title")?;
        let targets = panel["targets"].as_array().filter(|t| !t.is_empty()).with_context(|| format!("{title} asks nothing"))?;
        for target in targets {
            let text = target["expr"].as_str().with_context(|| format!("{title} has a query"))?;
            let text = text.replace("$__rate_interval", "1m").replace("$workload", ".*");
            ensure!(!text.contains('$'), "{title} has a variable that is not known: {text}");
            queries.push(Query { panel: title.to_owned(), text });
        }
    }
    Ok(queries)
}

/// A server that is asked and then ended.
pub struct Prometheus {
    port: u16,
    server: Child,
    _data: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Prometheus {
    /// Starts one that scrapes these addresses every second, with these rules (the text of a rule file).
    ///
    /// # Errors
    /// It does not start.
    pub fn start(targets: &[String], rules: &str) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let port = free_port(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
        std::fs::write(data.path().join("rules.yaml"), rules)?;
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{ "job_name": "qscaler", "static_configs": [{ "targets": targets }] }],
        });
        // JSON is YAML.
        std::fs::write(data.path().join("prometheus.yaml"), config.to_string())?;
        let mut command = Command::new(bin().join("prometheus"));
        command.arg(format!("--config.file={}", data.path().join("prometheus.yaml").display()));
        command.arg(format!("--storage.tsdb.path={}", data.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        // Of this process's group, which ends with it.
        let server = command
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started: `cargo xtask test` unpacks it", bin().join("prometheus").display()))?;
        Ok(Self { port, server, _data: data })
    }

    /// The result of a query now: labels and value of each series.
    ///
    /// # Errors
    /// It does not answer, or refuses the query.
    pub async fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let mut path = String::from("/api/v1/query?query=");
        for byte in query.bytes() {
            let _ = write!(path, "%{byte:02X}");
        }
        let answer = self.get(&path).await?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        let one = |series: &Value| Some((series["metric"].clone(), series["value"][1].as_str()?.parse().ok()?));
        match &answer["data"]["result"] {
            Value::Array(all) => Ok(all.iter().filter_map(one).collect()),
            other => anyhow::bail!("{query}: {other}"),
        }
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        let (_, body) = text.split_once("\r\n\r\n").context("an answer has a body")?;
        serde_json::from_str(body).with_context(|| format!("not JSON: {body}"))
    }
}
