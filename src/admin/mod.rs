//! The admin listener: `/metrics`, `/healthz`, `/readyz`, and nothing else. Started by `app`; it stops last of all, so that a
//! drain can be watched. It must never show a secret or change anything. [`control`] is the socket that commands ask.

pub mod control;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::observe::{
    metrics::Metrics,
    readiness::{Phase, Readiness},
};

/// Serves the admin listener until `shutdown` turns true.
#[must_use]
pub fn serve(
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    socket: std::net::TcpListener,
    mut shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let listener = match socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the admin listener cannot be served"),
        };
        let ended = async move {
            // An error means that the sender is gone, and with it the server.
            let _ = shutdown.wait_for(|stop| *stop).await;
        };
        if let Err(error) = axum::serve(listener, router(metrics, readiness)).with_graceful_shutdown(ended).await {
            tracing::error!(%error, "the admin listener ended");
        }
    })
}

fn router(metrics: Arc<Metrics>, readiness: Arc<Readiness>) -> Router {
    Router::new()
        .route("/metrics", get(exposition).with_state(metrics))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready).with_state(readiness))
}

async fn exposition(State(metrics): State<Arc<Metrics>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

/// 503 only while starting or draining (CONTRACT 3, Reload).
async fn ready(State(readiness): State<Arc<Readiness>>) -> Response {
    let report = readiness.report();
    let status = match report.status {
        Phase::Ready => StatusCode::OK,
        Phase::Starting | Phase::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn status(readiness: &Arc<Readiness>, path: &str) -> u16 {
        let router = router(Arc::new(Metrics::new().unwrap()), Arc::clone(readiness));
        router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn ready_only_between_start_and_drain_whatever_fails_meanwhile() {
        let readiness = Arc::new(Readiness::default());
        assert_eq!(status(&readiness, "/readyz").await, 503);
        readiness.change(|report| {
            report.status = Phase::Ready;
            report.reload_faults.push("policies/a.yaml:1:1: bad".into());
            report.stores_down.insert("sessions", "gone".into());
        });
        assert_eq!(status(&readiness, "/readyz").await, 200);
        readiness.change(|report| report.status = Phase::Draining);
        assert_eq!(status(&readiness, "/readyz").await, 503);
    }

    #[tokio::test]
    async fn serves_three_paths_and_nothing_else() {
        let readiness = Arc::new(Readiness::default());
        for (path, expected) in [("/metrics", 200), ("/healthz", 200), ("/", 404), ("/debug", 404)] {
            assert_eq!(status(&readiness, path).await, expected, "{path}");
        }
    }
}
