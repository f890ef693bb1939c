//! The end of a process. In: SIGTERM and SIGINT. Out: a token, cancelled by the first signal; the second ends the process at once. Left to
//! others: what draining means, and how long it may take.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Listens for SIGTERM and SIGINT from now on. The first cancels the returned token, the second exits with 128 + its number.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut signals = Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? };
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!(signal = first.as_raw_value(), "shutting down; a second signal ends the process at once");
        cancelled.cancel();
        let second = signals.next().await;
        tracing::warn!(signal = second.as_raw_value(), "second signal: ending at once");
        std::process::exit(128 + second.as_raw_value());
    });
    Ok(token)
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.term.recv() => SignalKind::terminate(),
            _ = self.int.recv() => SignalKind::interrupt(),
        }
    }
}
