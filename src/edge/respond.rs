//! Writes answers of our own to the client: verdicts other than `forward`, failures of an upstream, the portal's pages. Called by
//! `service` and `bridge`; never by anything that holds a permit for the same request and has already begun its answer.

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use pingora::{http::ResponseHeader, proxy::Session};

use crate::{
    core::{
        answer::{Answer, Dialect, answer},
        header::X_REQUEST_ID,
        policy::Question,
        request::Facts,
        time::Timestamp,
        verdict::{Rejection, Verdict},
    },
    portal::{self, Told},
};

use super::context::Context;

/// How much of a refused request's body is read and thrown away, so that an HTTP/2 client sees the answer, not a reset.
const MAX_DRAIN: usize = 256 * 1024;
/// And for how long.
const DRAIN_TIME: std::time::Duration = std::time::Duration::from_secs(2);

/// The answer to a request that was understood.
pub(super) fn verdict(context: &Context, facts: &Facts<'_>, verdict: &Verdict, now: Timestamp) -> Response<Bytes> {
    // Nobody is sent there to wait, and in a flood that is what most requests are told.
    let waits = matches!(verdict, Verdict::SlowDown { .. });
    let portal = if waits { None } else { context.site.portal_url(&facts.target) };
    let rejection = match verdict {
        Verdict::Reject(rejection) => Some(*rejection),
        _ => None,
    };
    portal::render(&Told {
        site: &context.site,
        answer: &answer(verdict, facts, Dialect::Edge, portal.as_ref()),
        verdict: verdict.as_str(),
        rejection,
        rule: context.rule.as_deref(),
        standing: context.standing.as_deref(),
        identity: context.identity.as_deref(),
        request_id: context.request_id(),
        is_page_load: context.is_page_load,
        wanted: Some(&facts.target),
        portal: portal.as_ref(),
        question: Some(Question {
            target: &facts.target,
            method: facts.method,
            client: facts.client,
            caller: context.identity.as_deref(),
            now,
            headers: Some(facts.headers),
            route: context.route.as_deref().map(|route| route.name.as_str()),
        }),
    })
}

/// The answer to a request that was not understood, so that there are no facts.
pub(super) fn rejection(context: &Context, rejection: Rejection) -> Response<Bytes> {
    plain(context, rejection.status(), "reject", Some(rejection))
}

/// An answer that no verdict stands behind.
pub(super) fn plain(
    context: &Context,
    status: StatusCode,
    verdict: &'static str,
    rejection: Option<Rejection>,
) -> Response<Bytes> {
    let answer = Answer { status, location: None, postern_status: None, challenge: None, retry_after: None };
    portal::render(&Told {
        site: &context.site,
        answer: &answer,
        verdict,
        rejection,
        rule: None,
        standing: None,
        identity: None,
        request_id: context.request_id(),
        is_page_load: context.is_page_load,
        wanted: None,
        portal: None,
        question: None,
    })
}

/// Writes the whole of an answer.
///
/// # Errors
/// The client is gone.
pub(super) async fn write(session: &mut Session, context: &Context, response: Response<Bytes>) -> pingora::Result<()> {
    let (parts, body) = response.into_parts();
    let mut head = ResponseHeader::build(parts.status, Some(parts.headers.len() + 2))?;
    for (name, value) in &parts.headers {
        // Framing is ours.
        if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
            head.append_header(name.clone(), value.clone())?;
        }
    }
    if let Some(correlation) = &context.correlation {
        head.insert_header(X_REQUEST_ID, correlation.request_id.clone())?;
    }
    let is_bodiless = parts.status == StatusCode::NO_CONTENT || parts.status == StatusCode::NOT_MODIFIED;
    if !is_bodiless {
        head.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    }
    let is_head_alone = is_bodiless || body.is_empty() || session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head), is_head_alone).await?;
    let body = if is_head_alone { Bytes::new() } else { body };
    session.write_response_body(Some(body), true).await?;
    if session.is_http2() {
        drain(session).await;
    }
    Ok(())
}

async fn drain(session: &mut Session) {
    let reading = async {
        let mut read = 0;
        while read < MAX_DRAIN {
            match session.read_request_body().await {
                Ok(Some(chunk)) => read += chunk.len(),
                Ok(None) | Err(_) => break,
            }
        }
    };
    // Whether it came to its end does not matter: the answer is written.
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}
