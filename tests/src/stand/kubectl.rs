//! kubectl as a user runs it. In: arguments. Out: what it printed, or an error with all of it.

use anyhow::{Context, Result, bail};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

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
