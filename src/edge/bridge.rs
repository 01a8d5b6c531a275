//! Hands a request over to the portal, an axum application, and its answer back to pingora, on HTTP/1 and HTTP/2. Called by
//! `service` for what [`crate::core::site::Site::portal_path`] names. Never proxies.

use axum::{
    Router,
    body::{Body, to_bytes},
};
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header};
use pingora::proxy::Session;
use tokio::time::timeout;
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    core::target::Target,
    portal::{self, Arrival, BODY_TIME, MAX_BODY},
};

use super::{context::Context, facts, respond};

/// Pages and assets are small; more is a fault of ours.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// A fault of the portal is a 500 for one request, not the end of its connection.
pub(super) fn guarded(portal: &Router) -> Router {
    portal.clone().layer(CatchPanicLayer::new())
}

/// The portal's answer.
///
/// # Errors
/// The client is gone.
pub(super) async fn answer(
    session: &mut Session,
    context: &Context,
    target: &Target,
    path: &str,
    portal: &Router,
) -> pingora::Result<Response<Bytes>> {
    // pingora's own limit is one a read, and none on HTTP/2.
    let body = match timeout(BODY_TIME, body(session)).await {
        Ok(Ok(Some(body))) => body,
        Ok(Ok(None)) => return Ok(respond::plain(context, StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", None)),
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            session.set_keepalive(None);
            return Ok(respond::plain(context, StatusCode::REQUEST_TIMEOUT, "request_timeout", None));
        }
    };
    let Some(request) = request(session, context, target, path, body) else {
        return Ok(respond::plain(context, StatusCode::NOT_FOUND, "not_found", None));
    };
    let answered = match portal.clone().oneshot(request).await {
        Ok(answered) => answered,
        Err(never) => match never {},
    };
    let (parts, body) = answered.into_parts();
    match to_bytes(body, MAX_ANSWER).await {
        Ok(body) => Ok(Response::from_parts(parts, body)),
        Err(error) => {
            tracing::error!(%error, "the portal's answer broke off");
            Ok(respond::plain(context, StatusCode::INTERNAL_SERVER_ERROR, "internal_error", None))
        }
    }
}

/// The whole body, or `None` where it is larger than the portal takes.
async fn body(session: &mut Session) -> pingora::Result<Option<Bytes>> {
    let told =
        session.get_header(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|told| told > MAX_BODY) {
        return Ok(None);
    }
    let waits = session.get_header_bytes(header::EXPECT).eq_ignore_ascii_case(b"100-continue");
    if waits && !session.is_body_empty() {
        session.write_continue_response().await?;
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = session.read_request_body().await? {
        if body.len() + chunk.len() > MAX_BODY {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

fn request(session: &Session, context: &Context, target: &Target, path: &str, body: Bytes) -> Option<Request<Body>> {
    let came = session.req_header();
    let inside = portal::uri_inside(path, target.query())?;
    let mut request = Request::builder().method(came.method.clone()).uri(inside).body(Body::from(body)).ok()?;
    *request.headers_mut() = came.headers.clone();
    request.extensions_mut().insert(Arrival {
        site: context.site.clone(),
        target: target.clone(),
        peer: facts::peer(session)?,
        client: context.client,
        request_id: context.request_id().to_owned(),
    });
    Some(request)
}
