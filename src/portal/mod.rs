//! The portal: the identity endpoint embedded in the same process (CONTRACT 7). An axum application that the edge mounts
//! through its bridge and `forward_auth` serves directly. The whole route table stands in [`router`].
//!
//! It decides who somebody is, never what they may reach: that is asked of the rules. No page holds a script.

mod account;
mod answer;
mod api;
mod csrf;
mod explain;
mod hand_over;
mod landing;
mod look;
mod page;
mod pages;
mod problem;
mod refresh;
mod token_api;
mod tokens;
mod visit;

use std::{any::Any, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{self, Next},
    response::IntoResponse as _,
    routing::{delete, get, post},
};
use http::{HeaderValue, Response, StatusCode, Uri, header};
use tower_http::catch_panic::CatchPanicLayer;

use problem::Code;
use visit::Visit;

use crate::{
    core::{
        answer::Answer, client_ip::ClientAddress, identity::Identity, policy::Question, quota::Standing, site::Site,
        target::Target, verdict::Rejection,
    },
    gate::Gate,
    identity::{hand_over::HandingOver, notice::Notices, sign_in::SignIn},
    observe::metrics::Metrics,
    ports::{ApiTokens, AuditSink, Clock, Entropy, Geo, Keys, Sessions, Tokens},
};

/// Everything the portal uses; one a process.
pub struct Portal {
    pub gate: Arc<Gate>,
    pub sign_in: SignIn,
    pub hand_over: HandingOver,
    pub notices: Notices,
    pub sessions: Arc<dyn Sessions>,
    pub api_tokens: Arc<dyn ApiTokens>,
    pub keys: Arc<dyn Keys>,
    pub tokens: Arc<dyn Tokens>,
    pub geo: Arc<dyn Geo>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub audit: Arc<dyn AuditSink>,
    pub metrics: Arc<Metrics>,
}

/// How a request came to the portal: put into the request's extensions by whoever mounts it. The request's URI path is
/// already the path inside the portal ("/", "/auth/login") with the original query.
#[derive(Clone)]
pub struct Arrival {
    pub site: Arc<Site>,
    /// Of the original request: host, port, and the scheme by which the client came.
    pub target: Target,
    pub peer: IpAddr,
    pub client: ClientAddress,
    pub request_id: String,
}

/// The URI under which the router takes a request, from its canonical path inside the portal. That path is decoded: one in which a
/// character would now have another meaning (`/auth/login%3Fx`, `/%2561`) names nothing here.
#[must_use]
pub fn uri_inside(path: &str, query: Option<&str>) -> Option<Uri> {
    if path.contains(['?', '#', '%']) {
        return None;
    }
    match query {
        Some(query) => format!("{path}?{query}").try_into().ok(),
        None => path.try_into().ok(),
    }
}

/// Largest body the portal takes; more is 413.
pub const MAX_BODY: usize = 64 * 1024;

/// From the head of a request to the end of its body; longer is 408. A limit on each read would let anybody hold requests open by
/// sending a byte now and then (THREATS 58).
pub const BODY_TIME: Duration = Duration::from_secs(15);

/// The route table.
pub fn router(portal: Arc<Portal>) -> Router {
    Router::new()
        .route("/", get(pages::root).post(pages::sign_in))
        .route("/two-factor", get(pages::two_factor))
        .route("/denied", get(pages::denied))
        .route("/logout", get(pages::sign_out_question).post(pages::sign_out))
        .route("/hand-over", get(hand_over::asked))
        .route("/hand-over/accept", get(hand_over::accept))
        .route("/account", get(account::account))
        .route("/account/sessions/end-others", post(account::end_others))
        .route("/account/sessions/{id}/end", post(account::end_one))
        .route("/account/tokens", post(tokens::create))
        .route("/account/tokens/{id}/revoke", post(tokens::revoke))
        .route("/auth/login", post(api::login))
        .route("/auth/refresh", post(refresh::refresh))
        .route("/auth/revoke", post(refresh::revoke))
        .route("/auth/logout", post(api::logout))
        .route("/auth/logout-all", post(api::logout_all))
        .route("/auth/me", get(api::me))
        .route("/auth/sessions", get(api::sessions))
        .route("/auth/sessions/{id}", delete(api::end_session))
        .route("/auth/tokens", get(token_api::list).post(token_api::create))
        .route("/auth/tokens/{id}", delete(token_api::revoke))
        .route("/auth/health", get(api::health))
        .route("/favicon.svg", get(icon))
        .route("/favicon.ico", get(icon))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&portal), admitted))
        // Public, and on a `forward_auth` listener also for hosts that no portal serves: an upstream asks by an internal name.
        .route("/.well-known/jwks.json", get(api::jwks).fallback(not_allowed))
        .layer(middleware::from_fn(with_request_id))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(portal)
}

/// Before every handler: is the request from our own origin?
async fn admitted(visit: Visit, request: Request, next: Next) -> axum::response::Response {
    let mut response = if csrf::is_own(request.method(), request.headers(), &visit.origin) {
        next.run(request).await
    } else {
        foreign(&visit).into_response()
    };
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        response = visit.problem(Code::PayloadTooLarge).into_response();
    }
    response
}

/// Every answer carries the request's id, whoever made it.
async fn with_request_id(request: Request, next: Next) -> axum::response::Response {
    let id = request.extensions().get::<Arrival>().and_then(|arrival| HeaderValue::from_str(&arrival.request_id).ok());
    let mut response = next.run(request).await;
    if let Some(id) = id {
        response.headers_mut().insert(crate::core::header::X_REQUEST_ID, id);
    }
    response
}

/// Also where a person gets to whose portal goes by another address than `portal.url` says: told so, in words.
fn foreign(visit: &Visit) -> Response<String> {
    if !visit.wants_page() {
        return visit.problem(Code::CrossOrigin);
    }
    let lines = vec![
        "Your browser says that this form was sent from another site, so nothing was done.".to_owned(),
        "Open the address below and try again. If the same happens there, tell whoever runs this that the portal's address \
         (portal.url) is not the one that you use."
            .to_owned(),
    ];
    let links = vec![(format!("Open {}", visit.origin), format!("{}{}/", visit.origin, visit.base))];
    landing::message(visit, StatusCode::FORBIDDEN, "Sent from another site", lines, vec![], links)
}

async fn not_found(visit: Visit) -> Response<String> {
    if !visit.wants_page() {
        return visit.problem(Code::NotFound);
    }
    let lines = vec!["The address may be mistyped, or the page has moved.".to_owned()];
    landing::message(&visit, StatusCode::NOT_FOUND, "There is nothing here", lines, vec![], to_start(&visit))
}

async fn not_allowed(visit: Visit) -> Response<String> {
    if !visit.wants_page() {
        return visit.problem(Code::MethodNotAllowed);
    }
    let lines = vec!["This address only takes what a form of ours sends.".to_owned()];
    landing::message(&visit, StatusCode::METHOD_NOT_ALLOWED, "There is no page here", lines, vec![], to_start(&visit))
}

fn to_start(visit: &Visit) -> Vec<(String, String)> {
    vec![("To the start".to_owned(), format!("{}/", visit.base))]
}

async fn icon(visit: Visit) -> Response<String> {
    let mut response = Response::new(look::icon(&visit.arrival.site.portal.accent));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/svg+xml"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A fault of ours ends one request, not the connection's other streams.
fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response<String> {
    tracing::error!("a handler of the portal panicked");
    problem::problem(Code::Internal, "")
}

/// What a page or a problem body may tell.
pub struct Told<'t> {
    pub site: &'t Site,
    pub answer: &'t Answer,
    /// The verdict's label, for the problem's `code`: `sign_in_required`, `step_up_required`, `access_denied`, `rate_limited`,
    /// `unavailable`, `bad_request`, `not_found` …
    pub verdict: &'static str,
    pub rejection: Option<Rejection>,
    pub rule: Option<&'t str>,
    /// What is left of the limits that the request fell under; told only where it has to wait for one.
    pub standing: Option<&'t Standing>,
    pub identity: Option<&'t Identity>,
    pub request_id: &'t str,
    /// A page for a browser, else `application/problem+json`.
    pub is_page_load: bool,
    /// The URL that was wanted, for "sign in as somebody else".
    pub wanted: Option<&'t Target>,
    /// Base URL of the portal, where there is one for this host.
    pub portal: Option<&'t url::Url>,
    /// What the rules were asked, where a refusal may be explained: the page goes to whoever asked.
    pub question: Option<Question<'t>>,
}

/// The answer with its headers (Location, X-Postern-*, WWW-Authenticate, Retry-After, Cache-Control) and its body: the denied page, a
/// problem, or a short text. Used by both roles for every verdict but `forward`; each adds X-Request-Id, as to all that it answers.
#[must_use]
pub fn render(told: &Told<'_>) -> Response<bytes::Bytes> {
    answer::render(told)
}

/// The page or problem for an upstream that is down (502) or slow (504), at the edge.
#[must_use]
pub fn render_upstream_failure(
    site: &Site,
    status: StatusCode,
    request_id: &str,
    is_page_load: bool,
) -> Response<bytes::Bytes> {
    answer::upstream_failure(site, status, request_id, is_page_load)
}
