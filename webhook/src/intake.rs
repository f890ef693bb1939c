//! The bytes of a call. In: an HTTP body, from anyone who reaches the port. Out: the whole of it within bounds of size, time, and of what all calls together
//! may take, or the status that says which bound it broke. Left to others: what is in it (`admission`).

use axum::body::Body;
use axum::http::StatusCode;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest body: the API server takes requests up to 3 MiB (`MaxRequestBodyBytes`, k8s.io/apiserver/pkg/server/config.go), and a review adds its own
/// fields. That of an update holds the object twice, so of two that are near the bound no warning is given; objects of that size do not fit etcd.
pub const BODY_MAX: usize = 7 << 19;
/// Bytes of all calls together: two of the largest and thousands of the usual 3 kB.
pub const BYTES_MAX: usize = 8 << 20;
/// What is taken of that at once: a semaphore counts no single bytes.
const UNIT: usize = 1 << 10;
/// A whole call, from its head to its answer: the API server waits no longer than this for any webhook of ours (`timeoutSeconds` is 1 to 10), and a
/// client that sends a byte a second is not the API server.
pub const CALL_MAX: Duration = Duration::from_secs(10);

/// What all calls share.
#[derive(Clone, Debug)]
pub struct Intake {
    bytes: Arc<Semaphore>,
}

impl Default for Intake {
    fn default() -> Self {
        Self { bytes: Arc::new(Semaphore::new(BYTES_MAX / UNIT)) }
    }
}

/// A whole body, and its share of what all may take, given back with it.
#[derive(Debug)]
pub struct Taken {
    /// The body.
    pub bytes: Vec<u8>,
    _share: Option<OwnedSemaphorePermit>,
}

impl Intake {
    /// Reads a body to its end. The share grows with what has come, so a client that only announces much holds nothing.
    ///
    /// # Errors
    /// 413 for one that is too large, 400 for one that breaks off.
    pub async fn read(&self, mut body: Body) -> Result<Taken, (StatusCode, String)> {
        let mut taken = Taken { bytes: Vec::new(), _share: None };
        let mut room = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("the body breaks off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            let length = taken.bytes.len() + data.len();
            if length > BODY_MAX {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {BODY_MAX} bytes")));
            }
            if length > room {
                // Doubling, as the buffer does.
                let wanted = length.max(2 * room).min(BODY_MAX).div_ceil(UNIT) * UNIT;
                let units = u32::try_from((wanted - room) / UNIT).unwrap_or(u32::MAX);
                // The semaphore is never closed.
                if let Ok(more) = Arc::clone(&self.bytes).acquire_many_owned(units).await {
                    match &mut taken._share {
                        Some(share) => share.merge(more),
                        None => taken._share = Some(more),
                    }
                }
                taken.bytes.reserve_exact(wanted - taken.bytes.len());
                room = wanted;
            }
            taken.bytes.extend_from_slice(&data);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::{StreamExt, stream};
    use std::convert::Infallible;

    fn chunks(n: usize, size: usize) -> Body {
        Body::from_stream(stream::iter((0..n).map(move |_| Ok::<_, Infallible>(Bytes::from(vec![b'x'; size])))))
    }

    #[tokio::test]
    async fn a_body_within_the_bound_is_whole_and_one_beyond_it_is_refused() {
        let intake = Intake::default();
        assert_eq!(intake.read(chunks(7, 10)).await.unwrap().bytes.len(), 70);
        assert_eq!(intake.read(chunks(7, 1 << 19)).await.unwrap().bytes.len(), BODY_MAX);
        assert_eq!(intake.read(chunks(8, 1 << 19)).await.unwrap_err().0, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(intake.read(Body::empty()).await.unwrap().bytes.len(), 0);
        assert_eq!(intake.bytes.available_permits(), BYTES_MAX / UNIT, "everything is given back");
    }

    #[tokio::test]
    async fn large_bodies_wait_for_each_other_and_small_ones_that_only_begin_hold_little() {
        let intake = Intake::default();
        let first = intake.read(chunks(7, 1 << 19)).await.unwrap();
        let _second = intake.read(chunks(7, 1 << 19)).await.unwrap();
        // A client that sends three bytes and then nothing more.
        let slow = tokio::spawn({
            let intake = intake.clone();
            let body = Body::from_stream(stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"abc"))]).chain(stream::pending()));
            async move { intake.read(body).await.map(|taken| taken.bytes) }
        });
        let third = tokio::spawn({
            let intake = intake.clone();
            async move { intake.read(chunks(7, 1 << 19)).await.map(|taken| taken.bytes.len()) }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(first);
        assert_eq!(third.await.unwrap().unwrap(), BODY_MAX);
        assert!(!slow.is_finished());
        slow.abort();
    }
}
