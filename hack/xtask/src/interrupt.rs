//! Ctrl-C during a command that has something to clean up. In: the signal. Out: the first one ends the programs that were started (the terminal
//! sends it to them as well), and their failure leads the command to its clean-up; a second one ends the command at once.

use std::sync::atomic::{AtomicBool, Ordering};

static SEEN: AtomicBool = AtomicBool::new(false);

/// Exit status of a program that was ended by SIGINT, as shells have it.
const STATUS: i32 = 130;

/// From now on Ctrl-C lets the command clean up.
///
/// # Errors
/// A handler is installed already.
pub fn clean_up_first() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if SEEN.swap(true, Ordering::SeqCst) {
            std::process::exit(STATUS);
        }
        eprintln!("\ninterrupted: cleaning up (once more to leave at once)");
    })?;
    Ok(())
}

/// Whether Ctrl-C was pressed.
pub fn seen() -> bool {
    SEEN.load(Ordering::SeqCst)
}
