//! kubectl as a user runs it, and waiting for conditions. In: arguments. Out: what it printed, or an error with all of it.

use anyhow::{Context, Result, bail};
use std::future::Future;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How often a condition is looked at: the machine is small, the API server shares it.
const POLL: Duration = Duration::from_millis(250);

/// Runs kubectl; gives its standard output.
///
/// # Errors
/// When it cannot be started or fails; the error has its output.
pub async fn kubectl(args: &[&str], stdin: Option<&str>) -> Result<String> {
    let mut child = Command::new("kubectl")
        .args(args)
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("kubectl cannot be started")?;
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        pipe.write_all(text.as_bytes()).await.context("kubectl closed its input")?;
    }
    let output = child.wait_with_output().await?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    if !output.status.success() {
        bail!("kubectl {} failed:\n{out}{err}", args.join(" "));
    }
    Ok(out)
}

/// How many times longer than usual everything may take: `QSCALER_PATIENCE`, a whole number, else 1. An emulated machine sets it.
#[must_use]
pub fn patience() -> u32 {
    std::env::var("QSCALER_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

/// Waits until `probe` gives something, at most `limit` times [`patience`]. `probe` gives Err with what it saw instead, which the error then repeats.
///
/// # Errors
/// When the limit is over.
pub async fn wait_for<T, F, Fut>(what: &str, limit: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let (limit, poll) = (limit * patience(), POLL * patience());
    let begin = Instant::now();
    loop {
        let seen = match probe().await {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if begin.elapsed() > limit {
            bail!("{what}: not within {} s; last seen: {seen}", limit.as_secs());
        }
        tokio::time::sleep(poll).await;
    }
}
