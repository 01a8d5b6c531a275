//! The addresses behind the names of upstream servers, remembered for a while. Asked by `forward` for every request to a server that
//! is named; a name server that is away takes neither the applications along, nor the threads that others need.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use crate::core::route::Server;

/// How long addresses hold before the name is asked for again.
const KEPT: Duration = Duration::from_secs(10);
/// The same where it has none.
const RETRY: Duration = Duration::from_secs(1);
/// Without a good answer for so long the addresses are forgotten: by then they may be somebody else's.
const LOST: Duration = Duration::from_secs(600);
/// How long a request waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
type Key = (String, u16);
type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

pub(super) struct Names {
    /// Locked for a look only, never while waiting. A look-up writes here itself, also where nobody waits for it any more.
    known: Arc<Mutex<HashMap<Key, Known>>>,
    /// One place a name: the system's look-up may block a thread for half a minute, and names are as many as the configuration has.
    places: Mutex<HashMap<Key, Arc<Semaphore>>>,
    look_up: Arc<LookUp>,
}

/// Times are of the monotonic clock.
struct Known {
    asked: Duration,
    found: Duration,
    addresses: Vec<SocketAddr>,
}

enum Look {
    Fresh(Vec<SocketAddr>),
    /// To be asked for again.
    Stale(Vec<SocketAddr>),
    /// Never asked for.
    Unknown,
}

impl Default for Names {
    fn default() -> Self {
        Self::asking(|host, port| (host, port).to_socket_addrs().map(Iterator::collect))
    }
}

impl Names {
    fn asking(look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self { known: Arc::default(), places: Mutex::default(), look_up: Arc::new(look_up) }
    }

    /// Empty where the name has none.
    pub(super) async fn addresses(&self, server: &Server, now: Duration) -> Vec<SocketAddr> {
        let key = (server.host.clone(), server.port);
        let place = match self.look(&key, now) {
            Look::Fresh(addresses) => return addresses,
            // One asks, the others go on with what is known.
            Look::Stale(addresses) => match self.place(&key).try_acquire_owned() {
                Ok(place) => place,
                Err(_) => return addresses,
            },
            Look::Unknown => match timeout(PATIENCE, self.place(&key).acquire_owned()).await {
                Ok(Ok(place)) => place,
                _ => return Vec::new(),
            },
        };
        // Whoever waited for the place may find the answer there.
        if let Look::Fresh(addresses) = self.look(&key, now) {
            return addresses;
        }
        match timeout(PATIENCE, self.ask(server, &key, now, place)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => note(&self.known, &server.label, key, now, Err(io::Error::other(error))),
            Err(_) => {
                let late = io::Error::other(format!("no answer within {PATIENCE:?}"));
                note(&self.known, &server.label, key, now, Err(late))
            }
        }
    }

    fn look(&self, key: &Key, now: Duration) -> Look {
        let all = self.known();
        let Some(known) = all.get(key) else { return Look::Unknown };
        let pause = if known.addresses.is_empty() { RETRY } else { KEPT };
        let addresses = known.addresses.clone();
        if now.saturating_sub(known.asked) < pause { Look::Fresh(addresses) } else { Look::Stale(addresses) }
    }

    fn place(&self, key: &Key) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }

    /// The place is held until the look-up ends.
    fn ask(
        &self,
        server: &Server,
        key: &Key,
        now: Duration,
        place: OwnedSemaphorePermit,
    ) -> JoinHandle<Vec<SocketAddr>> {
        let (look_up, known) = (Arc::clone(&self.look_up), Arc::clone(&self.known));
        let (label, key) = (server.label.clone(), key.clone());
        spawn_blocking(move || {
            let answer = look_up(&key.0, key.1);
            let addresses = note(&known, &label, key, now, answer);
            drop(place);
            addresses
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        lock(&self.known)
    }
}

/// What is known after an answer that was asked for at `now`.
fn note(
    known: &Mutex<HashMap<Key, Known>>,
    server: &str,
    key: Key,
    now: Duration,
    answer: io::Result<Vec<SocketAddr>>,
) -> Vec<SocketAddr> {
    let mut all = lock(known);
    let known = all.entry(key).or_insert_with(|| Known { asked: now, found: now, addresses: Vec::new() });
    known.asked = known.asked.max(now);
    match answer {
        Ok(addresses) if !addresses.is_empty() => *known = Known { asked: known.asked, found: now, addresses },
        answer => {
            let error = answer.err().map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
            if now.saturating_sub(known.found) >= LOST {
                known.addresses.clear();
            }
            let kept = known.addresses.len();
            tracing::warn!(%server, error, kept, "the name of an upstream's server cannot be resolved");
        }
    }
    known.addresses.clone()
}

fn lock(known: &Mutex<HashMap<Key, Known>>) -> MutexGuard<'_, HashMap<Key, Known>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    fn server() -> Server {
        Server { label: "http://app:80".to_owned(), tls: false, host: "app".to_owned(), port: 80, address: None }
    }

    fn address() -> SocketAddr {
        "192.0.2.1:80".parse().unwrap()
    }

    /// Names whose server can be taken away, and how often it was asked.
    fn names() -> (Names, Arc<AtomicBool>, Arc<AtomicUsize>) {
        let (away, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_away, count) = (Arc::clone(&away), Arc::clone(&asked));
        let names = Names::asking(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            if is_away.load(Ordering::SeqCst) { Err(io::Error::other("away")) } else { Ok(vec![address()]) }
        });
        (names, away, asked)
    }

    #[tokio::test]
    async fn known_addresses_outlive_their_name_server_for_a_while() {
        let (names, away, asked) = names();
        let server = server();
        let begin = Duration::from_secs(1000);
        assert_eq!(names.addresses(&server, begin).await, [address()]);
        away.store(true, Ordering::SeqCst);
        for later in [1, 9, 10, 11, 19, 20, 599] {
            assert_eq!(names.addresses(&server, begin + Duration::from_secs(later)).await, [address()], "{later}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 4, "asked at 0, 10, 20 and 599 s");
        assert!(names.addresses(&server, begin + LOST + KEPT).await.is_empty());
        // Back within a second of its return.
        away.store(false, Ordering::SeqCst);
        assert!(names.addresses(&server, begin + LOST + KEPT).await.is_empty());
        assert_eq!(names.addresses(&server, begin + LOST + KEPT + RETRY).await, [address()]);
    }

    #[tokio::test]
    async fn a_name_that_was_never_known_is_not_asked_for_with_every_request() {
        let (names, away, asked) = names();
        away.store(true, Ordering::SeqCst);
        for millis in 0..1500 {
            assert!(names.addresses(&server(), Duration::from_millis(millis)).await.is_empty());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    /// As a name server does whose packets are dropped.
    #[tokio::test]
    async fn a_look_up_that_hangs_holds_nobody_else_up_and_few_threads() {
        let (let_go, held) = mpsc::channel::<()>();
        let (hang, held) = (Arc::new(AtomicBool::new(false)), Mutex::new(held));
        let (hangs, asked) = (Arc::clone(&hang), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let names = Arc::new(Names::asking(move |host, _| {
            if hangs.load(Ordering::SeqCst) && host != "other" {
                count.fetch_add(1, Ordering::SeqCst);
                // Until the test is over.
                let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
            }
            Ok(vec![address()])
        }));
        let server = server();
        assert_eq!(names.addresses(&server, Duration::ZERO).await, [address()]);
        hang.store(true, Ordering::SeqCst);
        let all = (0..50).map(|_| {
            let (names, server) = (Arc::clone(&names), server.clone());
            tokio::spawn(async move { names.addresses(&server, KEPT).await })
        });
        for one in all.collect::<Vec<_>>() {
            assert_eq!(one.await.unwrap(), [address()]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // The same of one that was never known: once asked for, empty to all.
        let new = Server { host: "new".to_owned(), ..server.clone() };
        let all = (0..5).map(|_| {
            let (names, new) = (Arc::clone(&names), new.clone());
            tokio::spawn(async move { names.addresses(&new, KEPT).await })
        });
        for one in all.collect::<Vec<_>>() {
            assert!(one.await.unwrap().is_empty());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        let other = Server { host: "other".to_owned(), ..server };
        assert_eq!(names.addresses(&other, KEPT).await, [address()]);
        drop(let_go);
    }

    /// As glibc does where the first of two name servers is dead: it asks the second after five seconds.
    #[tokio::test]
    async fn an_answer_that_comes_after_its_asker_has_gone_counts_for_the_next() {
        let (answer, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let (noted, done) = tokio::sync::oneshot::channel::<()>();
        let noted = Mutex::new(Some(noted));
        let names = Names::asking(move |_, _| {
            let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
            drop(noted.lock().unwrap_or_else(PoisonError::into_inner).take());
            Ok(vec![address()])
        });
        assert!(names.addresses(&server(), Duration::ZERO).await.is_empty());
        answer.send(()).unwrap();
        let _ = done.await;
        // The look-up gives its place back after it has noted the answer.
        drop(names.place(&("app".to_owned(), 80)).acquire_owned().await);
        assert_eq!(names.addresses(&server(), RETRY).await, [address()]);
        assert_eq!(names.addresses(&server(), KEPT.saturating_sub(RETRY)).await, [address()]);
    }
}
