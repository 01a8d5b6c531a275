//! The control socket: a Unix domain socket on which a running server answers one question of `postern limit show`, how much certain keys have used of their
//! limits. Started by `app` where limits are counted in memory, which nobody else can see; asked by [`ask`].
//!
//! It must never change anything, and never tell a secret: a question names hashes of keys, an answer numbers. Whoever may open the socket (0600) asks as the
//! server's own user.
//!
//! One connection is one question and one answer, each a line of JSON. Bounded by construction: so many connections at once (`MOST_AT_ONCE`), each so long
//! (`MOST_TIME`), a question so large (`MOST_BYTES`), so many keys (`MOST_ASKS`).

mod bind;
#[cfg(test)]
mod tests;
mod wire;

use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};

pub use self::bind::{bind, is_living};
use self::wire::{Answer, Question};
use crate::{
    core::limit::Allowance,
    ports::{Ask, CounterKey, Counters},
};

const MOST_AT_ONCE: usize = 8;
const MOST_TIME: Duration = Duration::from_secs(2);
const MOST_BYTES: u64 = 256 << 10;
const MOST_ASKS: usize = 500;
/// How long whoever asks waits: also behind others who say nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a running server did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The socket is not there, or nobody listens on it.
    #[error("no server listens there")]
    Nobody,
    #[error("it may not be opened: {0}")]
    Forbidden(io::Error),
    #[error("no answer within {PATIENCE:?}")]
    Late,
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another version's answer, perhaps.
    #[error("an answer that cannot be read: {0}")]
    Strange(String),
}

/// Answers until `shutdown` turns true. The socket's file stays: to remove it could remove that of a newer server, and the next one replaces it.
#[must_use]
pub fn serve(
    counters: Arc<dyn Counters>,
    socket: std::os::unix::net::UnixListener,
    mut shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let listener = match socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket)) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the control socket cannot be served"),
        };
        // An error means that the sender is gone, and with it the server.
        tokio::select! {
            () = accept(counters, listener) => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    })
}

async fn accept(counters: Arc<dyn Counters>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
    loop {
        // Whoever finds no place waits in the system's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let counters = Arc::clone(&counters);
                tokio::spawn(async move {
                    let answered = tokio::time::timeout(MOST_TIME, answer(&*counters, stream)).await;
                    if let Ok(Err(error)) = answered {
                        tracing::debug!(%error, "a question on the control socket was not answered");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket takes no connection");
                // Such as too many open files: not asked again at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(counters: &dyn Counters, mut stream: UnixStream) -> io::Result<()> {
    let mut line = String::new();
    let (reading, mut writing) = stream.split();
    BufReader::new(reading.take(MOST_BYTES)).read_line(&mut line).await?;
    let answer = match wire::read::<Question>(&line) {
        Ok(question) if question.looks.len() > MOST_ASKS => Answer::Refused("too many keys at once".to_owned()),
        Ok(question) => looked(counters, &question).await,
        Err(fault) => Answer::Refused(fault),
    };
    writing.write_all(wire::line(&answer).as_bytes()).await?;
    writing.shutdown().await
}

async fn looked(counters: &dyn Counters, question: &Question) -> Answer {
    let mut looks = Vec::with_capacity(question.looks.len());
    for look in &question.looks {
        let Some((key, rates)) = look.read() else { return Answer::Refused("a look that cannot be read".to_owned()) };
        let ask = Ask { limit: &look.limit, rates: &rates, key: CounterKey(key), reports_only: false };
        match counters.look(&ask).await {
            Ok(allowance) => looks.push(allowance.into()),
            Err(unavailable) => return Answer::Refused(unavailable.to_string()),
        }
    }
    Answer::Looked(looks)
}

/// Asks the server whose socket this is: what is left of each, in their order.
///
/// # Errors
/// There is none, or it gives no answer that fits.
pub async fn ask(path: &Path, asks: &[Ask<'_>]) -> Result<Vec<Allowance>, AskError> {
    let mut told = Vec::with_capacity(asks.len());
    for some in asks.chunks(MOST_ASKS) {
        told.extend(tokio::time::timeout(PATIENCE, ask_some(path, some)).await.map_err(|_| AskError::Late)??);
    }
    Ok(told)
}

async fn ask_some(path: &Path, asks: &[Ask<'_>]) -> Result<Vec<Allowance>, AskError> {
    let mut stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::Nobody,
        io::ErrorKind::PermissionDenied => AskError::Forbidden(error),
        _ => AskError::Io(error),
    })?;
    stream.write_all(wire::line(&Question::of(asks)).as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream.take(4 * MOST_BYTES)).read_line(&mut line).await?;
    match wire::read::<Answer>(&line).map_err(AskError::Strange)? {
        Answer::Refused(why) => Err(AskError::Strange(why)),
        Answer::Looked(looks) => {
            let read: Option<Vec<Allowance>> =
                looks.iter().zip(asks).map(|(looked, ask)| looked.read(ask.rates)).collect();
            let strange = || AskError::Strange("it does not fit the question".to_owned());
            read.filter(|read| read.len() == asks.len()).ok_or_else(strange)
        }
    }
}
