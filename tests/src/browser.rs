//! A browser for tests of pages. In: an address, the size of its window, light or dark. Out: the page's elements after its script ran, and a picture. Left to others: what must be
//! in them. The program is what `cargo xtask test integration` found or unpacked.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How long the page's clock runs before the picture is taken, milliseconds: the page's script has asked its server twice by then. Waits for the server do not count, so
/// that a busy machine changes nothing.
const PAGE_TIME_MS: u32 = 3_000;
/// Seconds after which the browser is given up.
const PATIENCE_S: u32 = 180;

/// A window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Whether the user wants dark pages.
    pub dark: bool,
}

/// The program: `QSCALER_BROWSER`, else where `cargo xtask test` leaves it.
///
/// # Errors
/// It is not there.
pub fn program() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || variable("QSCALER_CACHE").unwrap_or_else(|| variable("HOME").unwrap_or_default().join(".cache/qscaler"));
    let program = variable("QSCALER_BROWSER").unwrap_or_else(|| cache().join("browser/bin/browser"));
    ensure!(program.exists(), "no browser at {}: `cargo xtask test integration` unpacks one", program.display());
    Ok(program)
}

/// Opens the page, writes a picture of it, and returns its elements as HTML.
///
/// # Errors
/// The browser cannot be started, does not end, or gives nothing.
pub fn open(address: &str, window: Window, picture: &Path) -> Result<String> {
    let program = program()?;
    let profile = tempfile::tempdir()?;
    let mut command = Command::new("timeout");
    command.arg(PATIENCE_S.to_string()).arg(&program);
    // A sandbox in a container needs rights that tests do not have; the page is our own.
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--no-first-run", "--lang=en"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--window-size={},{}", window.width, window.height));
    command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!window.dark)));
    command.arg(format!("--virtual-time-budget={PAGE_TIME_MS}")).arg(format!("--screenshot={}", picture.display())).arg("--dump-dom").arg(address);
    let output = command.output().with_context(|| format!("starting {}", program.display()))?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "the browser ended with {}: {}", output.status, said());
    ensure!(picture.exists(), "there is no picture {}: {}", picture.display(), said());
    let elements = String::from_utf8(output.stdout).context("the page is not UTF-8")?;
    ensure!(elements.contains("</html>"), "the browser gave no page: {}", said());
    Ok(elements)
}

/// Width and height of a PNG, pixels: its first chunk has them.
///
/// # Errors
/// It is no PNG.
pub fn size(picture: &Path) -> Result<(u32, u32)> {
    let bytes = std::fs::read(picture)?;
    let number = |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
    ensure!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{} is no PNG", picture.display());
    number(16).zip(number(20)).with_context(|| format!("{} has no size", picture.display()))
}
