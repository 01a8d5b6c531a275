//! A TCP relay that can be cut, silenced and mended.

use std::time::Duration;

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
};

use super::late::pass;

pub(crate) struct Breaker {
    port: u16,
    line: watch::Sender<Line>,
    /// Of its own: a test that waits for a command must not hold up the line meanwhile.
    runtime: Option<Runtime>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Whole,
    Cut,
    Silent,
}

impl Breaker {
    pub(crate) async fn before(target: u16) -> Self {
        Self::far_from(target, Duration::ZERO).await
    }

    /// Everything takes `each_way` longer.
    pub(crate) async fn far_from(target: u16, each_way: Duration) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let bound = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await;
        let listener = bound.expect("an end").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (line, state) = watch::channel(Line::Whole);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, target, each_way, state.clone()));
            }
        });
        Self { port, line, runtime: Some(runtime) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection; new ones are closed at once.
    pub(crate) fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// Passes nothing on and ends nothing, as a network does that loses every packet.
    pub(crate) fn silence(&self) {
        self.line.send_replace(Line::Silent);
    }

    /// What was open at the time of the fault ends.
    pub(crate) fn mend(&self) {
        self.line.send_replace(Line::Whole);
    }
}

async fn relay(mut client: TcpStream, target: u16, each_way: Duration, mut line: watch::Receiver<Line>) {
    let is_whole = *line.borrow() == Line::Whole;
    let mut server = None;
    if is_whole && let Ok(connected) = TcpStream::connect(("127.0.0.1", target)).await {
        let server = server.insert(connected);
        tokio::select! {
            () = pass(&mut client, server, each_way) => return,
            _ = line.wait_for(|line| *line != Line::Whole) => {}
        }
    }
    // Both ends stay open for as long as the line says nothing.
    let _ = line.wait_for(|line| *line != Line::Silent).await;
}

impl Drop for Breaker {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}
