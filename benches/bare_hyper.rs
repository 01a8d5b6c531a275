//! Reference of `./dev bench`: hyper alone. `bare_hyper LISTEN` answers 200 with the headers of a forward-auth answer.

use std::{convert::Infallible, env};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, header::HeaderValue, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

async fn answer(_request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    for (name, value) in [
        ("remote-user", "alice"),
        ("remote-name", "Alice Example"),
        ("remote-email", "alice@example.com"),
        ("remote-groups", "admins,dev"),
        ("x-request-id", "0123456789abcdef0123456789abcdef"),
        ("cookie", ""),
        ("authorization", ""),
        ("traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = env::args().nth(1).ok_or("usage: bare_hyper LISTEN")?;
    let listener = TcpListener::bind(&listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // A client that goes away is no fault of the reference.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}
