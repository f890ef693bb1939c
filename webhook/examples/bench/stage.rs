//! Our program as a process, with what it needs around it: a certificate in files, and an API server that knows one Deployment. In: the program, a processor.
//! Out: where it is called, once it patches. Left to others: calling it.

use crate::bodies;
use crate::calls::{self, Target};
use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use qscaler_webhook::server::PATH_PODS;
use serde_json::{Value, json};
use std::net::TcpListener as StdListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// For the first patch: lists of a few objects, and a certificate that is there.
const READY_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// As many open files as allowed, and then the program: a shell's own limit is often 1024, a container's is not.
const ALL_FILES: &str = "ulimit -Sn $(ulimit -Hn); exec \"$@\"";

pub(crate) struct Stage {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// Answers once a call gets a patch.
    pub(crate) async fn start(program: &Path, core: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        std::fs::write(at("tls.crt"), pair.cert.pem())?;
        std::fs::write(at("tls.key"), pair.signing_key.serialize_pem())?;
        let api = TcpListener::bind("127.0.0.1:0").await?;
        std::fs::write(at("kubeconfig"), kubeconfig(&format!("http://{}", api.local_addr()?)))?;
        tokio::spawn(async move { axum::serve(api, Router::new().fallback(answer)).await });
        let (listen, admin) = (free_port()?, free_port()?);
        let log = std::fs::File::create(at("log"))?;
        let child = Command::new("sh")
            .args(["-c", ALL_FILES, "sh", "taskset", "-c", &core.to_string()])
            .arg(program)
            .args(["--namespace=qscaler-system", "--drain-seconds=0", "--log-format=text"])
            .arg(format!("--listen=127.0.0.1:{listen}"))
            .arg(format!("--admin-address=127.0.0.1:{admin}"))
            .arg(format!("--tls-cert={}", at("tls.crt").display()))
            .arg(format!("--tls-key={}", at("tls.key").display()))
            .env("KUBECONFIG", at("kubeconfig"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the webhook (sh, taskset)")?;
        let mut stage = Self { child, url: format!("https://localhost:{listen}{PATH_PODS}"), _folder: folder };
        let deadline = tokio::time::Instant::now() + READY_MAX;
        let first = bodies::of_variables(0);
        while let Err(error) = calls::one_by_one(&stage.target()?, &first, 1).await {
            if tokio::time::Instant::now() > deadline || stage.child.try_wait()?.is_some() {
                let log = std::fs::read_to_string(stage._folder.path().join("log")).unwrap_or_default();
                bail!("the webhook does not patch: {error:#}\n{log}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(stage)
    }

    pub(crate) fn target(&self) -> Result<Target> {
        Ok(Target::of(&self.url)?.patching())
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) async fn end(mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the webhook ended meanwhile: {ended:?}");
        Ok(self.child.kill().await?)
    }
}

fn free_port() -> Result<u16> {
    Ok(StdListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn kubeconfig(server: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}]})
    .to_string()
}

/// What an API server says whose one workload is the Deployment of the bodies, and in which nothing ever changes.
async fn answer(uri: Uri) -> Response {
    let annotations =
        json!({"qscaler.dev/queue": "orders", "qscaler.dev/broker": "env:URL", "qscaler.dev/max-replicas": "50", "qscaler.dev/worker": "celery"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": "orders", "uid": "d-1", "resourceVersion": "1", "annotations": annotations}, "spec": {}});
    if uri.query().is_some_and(|query| query.split('&').any(|part| matches!(part, "watch=1" | "watch=true"))) {
        return Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>()).into_response();
    }
    let list = |items: Vec<Value>| json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
    match uri.path().rsplit('/').next().unwrap_or_default() {
        "deployments" => Json(list(vec![deployment])).into_response(),
        "orders" => Json(deployment).into_response(),
        "qworkers" | "namespaces" | "limitranges" => Json(list(Vec::new())).into_response(),
        _ => {
            let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404});
            (StatusCode::NOT_FOUND, Json(status)).into_response()
        }
    }
}
