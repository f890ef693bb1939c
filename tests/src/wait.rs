//! Waiting for conditions. In: a probe, a limit. Out: what the probe found, or an error with what it saw last. Every test with real parts waits so.

use anyhow::{Result, bail};
use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

/// How often a condition is looked at: the machine is small, the API server shares it.
const POLL: Duration = Duration::from_millis(250);
/// On a slow machine, where limits are long, a wait says what it sees this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

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
    let mut told = begin;
    loop {
        let seen = match probe().await {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if begin.elapsed() > limit {
            bail!("{what}: not within {} s; last seen: {seen}", limit.as_secs());
        }
        if patience() > 1 && told.elapsed() > TELL_EVERY {
            told = Instant::now();
            // Not by a macro: the harness would keep it until the end.
            let _ = writeln!(std::io::stderr(), "  {what}: {} s of at most {}; seen: {seen}", begin.elapsed().as_secs(), limit.as_secs());
        }
        tokio::time::sleep(poll).await;
    }
}
