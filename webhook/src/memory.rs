//! Memory that a burst leaves behind. In: how many bytes were let go. Out: free pages given back to the system, at most once a second. Left to others: bounds of what is
//! taken (`intake`, `guests`).
//!
//! What the C library frees stays with the process where something that lives on lies above it: after a thousand connections and some bodies of megabytes that is tens of
//! MiB for good. glibc gives such pages back when it is asked, but for the end of a thread's heap, whose bound it raises by itself after large bodies unless it is told one;
//! musl, with which releases are linked, has no such call; what stays there has not been measured.

use qscaler_runtime::CancellationToken;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a TLS connection takes, bytes: measured, a thousand of them are 25 MiB.
pub const CONNECTION: usize = 25 << 10;
/// A body of so many bytes is worth a look afterwards; no pod that is not made to be in the way has as many.
pub const LARGE: usize = 512 << 10;
/// So much must have been let go before it is worth the asking, bytes.
const WORTH: usize = 2 << 20;
/// What is at least this large is taken from the system and given back by itself; at the end of a heap no more than the second stays free. Bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ALONE: i32 = 1 << 20;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE_AT_END: i32 = 2 << 20;
/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Of the whole process, as the C library's memory is.
static LET_GO: AtomicUsize = AtomicUsize::new(0);

/// So many bytes were freed.
pub fn let_go(bytes: usize) {
    LET_GO.fetch_add(bytes, Ordering::Relaxed);
}

/// Whether enough was let go since it was last so.
fn due(counter: &AtomicUsize) -> bool {
    let enough = counter.load(Ordering::Relaxed) >= WORTH;
    if enough {
        counter.store(0, Ordering::Relaxed);
    }
    enough
}

/// Gives back what was let go, again and again until the shutdown: once when it is said, and a second later what was still in hand then.
pub async fn follow(shutdown: CancellationToken) {
    set_bounds();
    let mut again = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let due = due(&LET_GO);
        if std::mem::replace(&mut again, due) || due {
            // It takes milliseconds, in which calls go on.
            let _ = tokio::task::spawn_blocking(give_back).await;
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "two calls of the C library that have no safe wrapper: numbers go in and come out")]
mod c {
    // malloc.h
    pub(super) const M_TRIM_THRESHOLD: i32 = -1;
    pub(super) const M_MMAP_THRESHOLD: i32 = -3;
    unsafe extern "C" {
        pub(super) safe fn malloc_trim(pad: usize) -> i32;
        pub(super) safe fn mallopt(parameter: i32, value: i32) -> i32;
    }
}

/// Keeps the C library from raising its bounds.
fn set_bounds() {
    // Whether it did is of no use to anybody.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _ = (c::mallopt(c::M_MMAP_THRESHOLD, ALONE), c::mallopt(c::M_TRIM_THRESHOLD, FREE_AT_END));
}

/// Gives free pages back to the system, where the C library can.
fn give_back() {
    // As above.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _ = c::malloc_trim(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_once_enough_was_let_go_and_not_again() {
        let counter = AtomicUsize::new(WORTH - 1);
        assert!(!due(&counter));
        counter.fetch_add(1, Ordering::Relaxed);
        assert!(due(&counter) && !due(&counter));
    }
}
