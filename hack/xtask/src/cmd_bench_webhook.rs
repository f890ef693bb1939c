//! `cargo xtask bench webhook`: how fast the webhook answers, and what it costs in memory. In: rate and seconds, or another webhook's URL. Out: a table, one JSON
//! line on request, and an error when the promise is not kept. Left to others: calls and times (`webhook/examples/bench`).
//!
//! The program runs on one processor of its own, and what calls it on another: with one processor only, or with others at work, the times say nothing.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::exec;
use crate::images::{self, Profile};

/// The processor of the webhook, and that of whoever calls it.
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";
/// What is promised of ours: an upper bound of each figure of the JSON line. Milliseconds and MiB.
const PROMISED: [(&str, f64); 4] = [("p99_ms", 2.0), ("rss_mib", 20.0), ("rss_after_bombs_mib", 20.0), ("env1500_p99_ms", 10.0)];
/// As many open files as allowed, and then the program: a thousand connections are more than a shell's usual limit.
const ALL_FILES: &str = "ulimit -Sn $(ulimit -Hn); exec \"$@\"";

/// Arguments of `cargo xtask bench webhook`.
#[derive(clap::Args)]
pub struct Args {
    /// How long the calls go on, seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Calls per second
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Another webhook that runs already, in place of ours: https://HOST:PORT/PATH. Its certificate is not checked
    #[arg(long)]
    url: Option<String>,
    /// Its process, for its memory
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// It cannot be built or run, a call failed, or the promise is not kept.
pub fn run(args: Args) -> Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(processors > 1, "this needs two processors: one for the webhook, one for whoever calls it");
    // As the images have it.
    let (mut build, target) = images::cargo_static(Profile::Release);
    build.args(["--package", "qscaler-webhook", "--bin", "qscaler-webhook", "--example", "bench"]);
    exec::output(&mut build).context("the webhook does not build")?;
    let mut bench = Command::new("sh");
    bench.args(["-c", ALL_FILES, "sh", "taskset", "-c", CLIENT_CORE]).arg(target.join("examples/bench"));
    bench.args(["--json", "--rate", &args.rate.to_string(), "--seconds", &args.seconds.to_string()]);
    match &args.url {
        Some(url) => bench.args(["--url", url]),
        None => bench.arg("--webhook").arg(target.join("qscaler-webhook")).args(["--server-core", SERVER_CORE]),
    };
    if let Some(pid) = args.pid {
        bench.args(["--pid", &pid.to_string()]);
    }
    let text = exec::output(&mut bench)?;
    let (table, line) = text.trim().rsplit_once('\n').context("the bench printed no line")?;
    println!("{table}");
    let measured: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
    if args.json {
        println!("{line}");
    }
    let broken = broken(&measured);
    ensure!(args.url.is_some() || broken.is_empty(), "not as promised: {}", broken.join(", "));
    Ok(())
}

/// Figures above what is promised.
fn broken(measured: &Value) -> Vec<String> {
    let above = |(name, most): &(&str, f64)| match measured[*name].as_f64() {
        Some(value) if value <= *most => None,
        Some(value) => Some(format!("{name} is {value}, promised are {most}")),
        None => Some(format!("{name} was not measured")),
    };
    PROMISED.iter().filter_map(above).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_figure_above_its_promise_is_named_with_both() {
        let good = json!({"p50_ms": 0.2, "p99_ms": 1.9, "max_ms": 80.0, "rss_mib": 12.0, "rss_after_bombs_mib": 20.0, "env1500_p99_ms": 4.0});
        assert_eq!(broken(&good), Vec::<String>::new());
        let bad = json!({"p99_ms": 2.5, "rss_mib": null, "rss_after_bombs_mib": 1.0, "env1500_p99_ms": 1.0});
        assert_eq!(broken(&bad), ["p99_ms is 2.5, promised are 2", "rss_mib was not measured"]);
    }
}
