//! The bound on what one value of a Redis answer may have, kept before its bytes are read. In: a socket. Out: the same socket, which fails as soon as the
//! server announces a longer value. Left to others: removing the entry that holds it (`oversized`).
//!
//! RESP announces the length of each bulk string in a line before it (`$52428800\r\n`); all that is done here is to follow these lines.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A line that announces something has a mark and a number; an error's or a status' line has some words.
const LINE_LENGTH_MAX: usize = 16 * 1024;
/// Mark and number: `$` and 20 digits at most.
const HEAD_LENGTH: usize = 21;

/// Where in an answer the reader is.
#[derive(Debug)]
pub(crate) struct Scanner {
    value_length_max: u64,
    head: Vec<u8>,
    line_length: usize,
    /// Bytes of a value, with the line end after it, still to come.
    value_left: u64,
}

impl Scanner {
    pub(crate) fn new(value_length_max: u64) -> Self {
        Self { value_length_max, head: Vec::with_capacity(HEAD_LENGTH), line_length: 0, value_left: 0 }
    }

    /// Follows these bytes; false: a value that is too long was announced, or a line has no end.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(&byte) = bytes.first() {
            if self.value_left > 0 {
                let skipped = usize::try_from(self.value_left).unwrap_or(usize::MAX).min(bytes.len());
                self.value_left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = &bytes[1..];
            if byte != b'\n' {
                self.line_length += 1;
                if self.line_length > LINE_LENGTH_MAX {
                    return false;
                }
                if self.head.len() < HEAD_LENGTH && byte != b'\r' {
                    self.head.push(byte);
                }
                continue;
            }
            // Bulk strings, and in RESP3 verbatim strings and bulk errors. A negative length is "no value".
            if let Some((b'$' | b'=' | b'!', number)) = self.head.split_first()
                && let Some(length) = std::str::from_utf8(number).ok().and_then(|text| text.parse::<u64>().ok())
            {
                if length > self.value_length_max {
                    return false;
                }
                self.value_left = length + 2;
            }
            self.head.clear();
            self.line_length = 0;
        }
        true
    }
}

/// See the module.
pub(crate) struct Guarded<S> {
    inner: S,
    scanner: Scanner,
    tripped: Arc<AtomicBool>,
}

impl<S> Guarded<S> {
    /// `tripped` is set when a value was too long.
    pub(crate) fn new(inner: S, value_length_max: u64, tripped: Arc<AtomicBool>) -> Self {
        Self { inner, scanner: Scanner::new(value_length_max), tripped }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        std::task::ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        if this.scanner.follow(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        this.tripped.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "an entry is longer than a message may be")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"*3\r\n$5\r\n$99\r\n\r\n$-1\r\n:100000000\r\n+OK $999\r\n-ERR no\r\n$10\r\n0123456789\r\n";

    #[test]
    fn what_is_short_enough_passes_however_it_is_cut() {
        for size in 1..=ANSWER.len() {
            let mut scanner = Scanner::new(10);
            assert!(ANSWER.chunks(size).all(|chunk| scanner.follow(chunk)), "{size}");
        }
    }

    #[test]
    fn a_long_value_is_refused_by_its_announcement() {
        for size in 1..=ANSWER.len() {
            let mut scanner = Scanner::new(9);
            assert!(!ANSWER.chunks(size).all(|chunk| scanner.follow(chunk)), "{size}");
        }
        assert!(!Scanner::new(65536).follow(b"*1\r\n$52428800\r\n"));
        assert!(!Scanner::new(65536).follow(b"=65537\r\n"));
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut scanner = Scanner::new(9);
        assert!(!(0..20).all(|_| scanner.follow(&[b'x'; 1024])));
    }
}
