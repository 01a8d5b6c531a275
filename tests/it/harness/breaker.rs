//! A TCP relay that can be cut, silenced and mended.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

pub(crate) struct Breaker {
    port: u16,
    line: watch::Sender<Line>,
    serving: JoinHandle<()>,
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
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (line, state) = watch::channel(Line::Whole);
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, target, each_way, state.clone()));
            }
        });
        Self { port, line, serving }
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

async fn pass(client: &mut TcpStream, server: &mut TcpStream, each_way: Duration) {
    if each_way.is_zero() {
        let _ = copy_bidirectional(client, server).await;
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    tokio::select! {
        _ = pass_late(from_client, to_server, each_way) => {}
        _ = pass_late(from_server, to_client, each_way) => {}
    }
}

/// Until either end is closed.
async fn pass_late(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, each_way: Duration) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        tokio::time::sleep(each_way).await;
        to.write_all(&bytes[..read]).await?;
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
