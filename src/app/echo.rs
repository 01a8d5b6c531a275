//! The demo's application: shows what an upstream behind Postern gets to see. Used by `postern demo` alone.

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// Where the demo's pages are, as a browser names them.
#[derive(Debug, Clone)]
pub struct Demo {
    /// `http://app.demo.localhost:8080`
    pub app: String,
    /// `http://auth.demo.localhost:8080`
    pub portal: String,
}

#[derive(Template)]
#[template(path = "demo.html")]
struct Page<'p> {
    demo: &'p Demo,
    path: &'p str,
    user: Option<&'p str>,
    /// What Postern says about the caller, and everything else.
    identity: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

/// Serves the demo's application on a socket that is bound already.
///
/// # Errors
/// The socket cannot be used by the runtime.
pub fn serve(socket: std::net::TcpListener, demo: Demo) -> std::io::Result<JoinHandle<()>> {
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket)?;
    let router = Router::new().fallback(echo).with_state(Arc::new(demo));
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the demo's application ended");
        }
    }))
}

async fn echo(State(demo): State<Arc<Demo>>, request: Request) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !demo.app.ends_with(host) {
        return Redirect::temporary(&format!("{}/", demo.app)).into_response();
    }
    let all = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let (identity, headers) = all.partition(|(name, _)| name.starts_with("remote-"));
    let page = Page {
        demo: &demo,
        path: request.uri().path(),
        user: text(request.headers(), "remote-user"),
        identity,
        headers,
    };
    match page.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok()).filter(|value| !value.is_empty())
}
