//! A TCP relay that can be cut and mended.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

pub(crate) struct Breaker {
    port: u16,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    open: AtomicBool,
    cut: Notify,
}

impl Breaker {
    pub(crate) async fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State { open: AtomicBool::new(true), cut: Notify::new() });
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    if !state.open.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        () = state.cut.notified() => {}
                    }
                });
            }
        });
        Self { port, state, serving }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection; new ones are closed at once.
    pub(crate) fn cut(&self) {
        self.state.open.store(false, Ordering::SeqCst);
        self.state.cut.notify_waiters();
    }

    pub(crate) fn mend(&self) {
        self.state.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
