//! Reads the body of a request to the portal, as a whole and never more than the portal takes. Called by `service`.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::{self, Duration};

use crate::portal::MAX_BODY;

/// How much of a body that is too large is read and thrown away, so that a client that sends before it listens sees the answer rather
/// than a reset. And for how long.
const MAX_DRAIN: usize = 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The whole body, or `None` where it is larger than the portal takes.
///
/// # Errors
/// The client went away, or what it sends is no body.
pub(super) async fn whole(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let mut whole = BytesMut::new();
    let mut is_too_large = body.size_hint().lower() > MAX_BODY as u64;
    while !is_too_large {
        let Some(frame) = body.frame().await else { return Ok(Some(whole.freeze())) };
        let Ok(data) = frame?.into_data() else { continue };
        is_too_large = whole.len() + data.len() > MAX_BODY;
        if !is_too_large {
            whole.extend_from_slice(&data);
        }
    }
    // Whether it came to its end does not matter.
    drop(time::timeout(DRAIN_TIME, drain(&mut body)).await);
    Ok(None)
}

async fn drain(body: &mut Incoming) {
    let mut drained = 0;
    while drained < MAX_DRAIN
        && let Some(Ok(frame)) = body.frame().await
    {
        drained += frame.data_ref().map_or(0, Bytes::len);
    }
}
