//! The bytes of a call. In: an HTTP body, from anyone who reaches the port. Out: the whole of it within bounds of size, time, and of what all calls together
//! may take, or the status that says which bound it broke. Left to others: what is in it (`admission`).

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest body: the API server takes requests up to 3 MiB (`MaxRequestBodyBytes`, k8s.io/apiserver/pkg/server/config.go), and a review adds its own
/// fields. That of an update holds the object twice, so of two that are near the bound no warning is given; objects of that size do not fit etcd.
pub const BODY_MAX: usize = 7 << 19;
/// A body of this size holds no place: HTTP reads as much of it anyway before anybody asks. Bytes.
const FREE: usize = 8 << 10;
/// Sizes in bytes up to which a body may grow once it has one of so many places. It keeps those it has while it waits for the next, larger one; whoever holds a larger
/// place never waits for a smaller one, so that no two wait for each other. Of honest bodies nearly all fit the first. 19 MiB together.
const PLACES: [(usize, usize); 3] = [(64 << 10, 128), (512 << 10, 8), (BODY_MAX, 2)];
/// A whole call, from its head to its answer: the API server waits no longer than this for any webhook of ours (`timeoutSeconds` is 1 to 10), and a
/// client that sends a byte a second is not the API server.
pub const CALL_MAX: Duration = Duration::from_secs(10);

/// What all calls share.
#[derive(Clone, Debug)]
pub struct Intake {
    places: [Arc<Semaphore>; PLACES.len()],
}

impl Default for Intake {
    fn default() -> Self {
        Self { places: PLACES.map(|(_, count)| Arc::new(Semaphore::new(count))) }
    }
}

/// A whole body, and its places, given back with it.
#[derive(Debug, Default)]
pub struct Taken {
    /// The body.
    pub bytes: Vec<u8>,
    places: Vec<OwnedSemaphorePermit>,
}

impl Intake {
    /// Reads a body to its end. Of one that announces too much nothing is read. It gets larger places as it comes, so a client that only announces much holds none.
    ///
    /// # Errors
    /// 413 for one that is too large, 400 for one that breaks off.
    pub async fn read(&self, mut body: Body) -> Result<Taken, (StatusCode, String)> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > BODY_MAX {
            return Err(too_large());
        }
        let mut taken = Taken::default();
        let mut room = FREE;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("the body breaks off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            let length = taken.bytes.len() + data.len();
            while length > room {
                let (places, size) = self.larger(taken.places.len()).ok_or_else(too_large)?;
                // The semaphore is never closed.
                taken.places.extend(places.acquire_owned().await.ok());
                room = size;
                taken.bytes.reserve_exact(announced.min(room).saturating_sub(taken.bytes.len()));
            }
            taken.bytes.extend_from_slice(&data);
        }
        Ok(taken)
    }

    /// The places after so many, and their size; None: there are no larger ones.
    fn larger(&self, held: usize) -> Option<(Arc<Semaphore>, usize)> {
        Some((Arc::clone(self.places.get(held)?), PLACES.get(held)?.0))
    }
}

fn too_large() -> (StatusCode, String) {
    (StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {BODY_MAX} bytes"))
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
        let announced = Body::from(vec![b'x'; BODY_MAX + 1]);
        assert_eq!(intake.read(announced).await.unwrap_err().0, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(intake.places.map(|places| places.available_permits()), PLACES.map(|(_, count)| count), "everything is given back");
    }

    /// As sockets give them: each piece after the others have had their turn.
    fn in_turns(n: usize, size: usize) -> Body {
        let pieces = stream::iter(0..n).then(move |_| async move {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Bytes::from(vec![b'x'; size]))
        });
        Body::from_stream(pieces)
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_at_once_do_not_wait_for_each_other_in_a_circle_nor_keep_small_ones_out() {
        let intake = Intake::default();
        let read = |body| async { intake.read(body).await.map(|taken| taken.bytes.len()) };
        let large = (0..32).map(|_| read(in_turns(56, BODY_MAX / 56)));
        let small = (0..32).map(|_| read(in_turns(3, 1 << 10)));
        let all = async { futures::join!(futures::future::join_all(large), futures::future::join_all(small)) };
        let (large, small) = tokio::time::timeout(CALL_MAX, all).await.expect("they wait for each other");
        assert!(large.into_iter().all(|read| read == Ok(BODY_MAX)) && small.into_iter().all(|read| read == Ok(3 << 10)));
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
