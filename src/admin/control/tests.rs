use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::{core::limit::Rates, ports::fakes::Counting};

const KEY: CounterKey = CounterKey([0xAB; 16]);

fn rates(texts: &[&str]) -> Rates {
    Rates::new(texts.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
}

fn ask_of(rates: &Rates) -> Ask<'_> {
    Ask { limit: "chat", rates, key: KEY, reports_only: false }
}

/// With so many taken of `KEY`.
async fn counting(rates: &Rates, taken: usize) -> Arc<Counting> {
    let counting = Arc::new(Counting::default());
    for _ in 0..taken {
        counting.take(&[ask_of(rates)]).await.unwrap();
    }
    counting
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(counters: Arc<Counting>, path: &Path) -> Self {
        let (stop, stopping) = watch::channel(false);
        Self { stop, task: serve(counters, bind(path).unwrap(), stopping) }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

async fn remaining(path: &Path, rates: &Rates) -> u32 {
    ask(path, &[ask_of(rates)]).await.unwrap()[0].rates[0].remaining
}

#[tokio::test]
async fn what_is_asked_is_what_the_counters_say() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("postern.sock");
    let (counted, other) = (rates(&["3/minute", "10/second burst 20", "50/day"]), rates(&["9/hour"]));
    for taken in [0, 2, 3] {
        let counting = counting(&counted, taken).await;
        let running = Running::start(Arc::clone(&counting), &path);
        let other_key = Ask { key: CounterKey([0; 16]), ..ask_of(&other) };
        let asks = [ask_of(&counted), other_key, ask_of(&counted)];
        let told = ask(&path, &asks).await.unwrap();
        for (told, asked) in told.iter().zip(&asks) {
            assert_eq!(*told, counting.look(asked).await.unwrap());
        }
        assert_eq!((told.len(), told[0].is_granted()), (3, taken < 3));
        assert!(told[1].is_granted());
        assert_eq!(told[0], ask(&path, &asks).await.unwrap()[0], "nothing was taken by looking");
        running.stop().await;
    }
    let many = vec![ask_of(&counted); 2 * MOST_ASKS + 1];
    let running = Running::start(counting(&counted, 1).await, &path);
    assert_eq!(ask(&path, &many).await.unwrap().len(), many.len());
    running.stop().await;
}

#[tokio::test]
async fn only_the_servers_own_user_may_open_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("postern.sock");
    let _socket = bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["postern.sock"], "nothing is left beside it");
}

#[tokio::test]
async fn a_newer_server_takes_the_place_of_a_dead_one_and_of_a_living_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("postern.sock");
    let rates = rates(&["9/hour"]);
    assert!(matches!(ask(&path, &[ask_of(&rates)]).await, Err(AskError::Nobody)), "there was never one");
    drop(bind(&path).unwrap());
    assert!(path.exists());
    assert!(matches!(ask(&path, &[ask_of(&rates)]).await, Err(AskError::Nobody)), "it died");
    let older = Running::start(counting(&rates, 1).await, &path);
    assert_eq!(remaining(&path, &rates).await, 8);
    let newer = Running::start(counting(&rates, 5).await, &path);
    assert_eq!(remaining(&path, &rates).await, 4, "who asks now means the newer one");
    older.stop().await;
    assert_eq!(remaining(&path, &rates).await, 4, "the older one's end takes nothing from it");
    newer.stop().await;
    assert!(matches!(ask(&path, &[ask_of(&rates)]).await, Err(AskError::Nobody)));
}

#[test]
fn a_socket_replaces_nothing_but_sockets() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("postern.sock");
    std::fs::write(&path, "precious").unwrap();
    bind(&path).unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    bind(&folder.path().join("missing/postern.sock")).unwrap_err();
    bind(&folder.path().join("x".repeat(120))).unwrap_err();
}

async fn said(path: &Path, line: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // It may be closed before all of it was read.
    let _ = stream.write_all(line).await;
    let _ = stream.shutdown().await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("postern.sock");
    let running = Running::start(Arc::default(), &path);
    let look = |key: &str, rate: &str| format!(r#"{{"limit":"a","key":"{key}","rates":["{rate}"]}}"#);
    let fine = look(&"0".repeat(32), "5/minute");
    let whole = |looks: &str| format!("{{\"looks\":[{looks}]}}\n");
    assert!(said(&path, whole(&fine).as_bytes()).await.starts_with(r#"{"looked":[{"#));
    for line in [
        "\n".to_owned(),
        "GET / HTTP/1.1\r\n".to_owned(),
        whole(&fine).trim_end().to_owned(),
        "{\"looks\":[],\"take\":true}\n".to_owned(),
        whole(&look("00", "5/minute")),
        whole(&look(&"+".repeat(32), "5/minute")),
        whole(&look(&"0".repeat(32), "often")),
        whole(&vec![fine.as_str(); MOST_ASKS + 1].join(",")),
        format!("{}\n", " ".repeat(usize::try_from(MOST_BYTES).unwrap())),
    ] {
        let answer = said(&path, line.as_bytes()).await;
        // Nobody reads on where it is too long: that may close it before the answer is there.
        let is_refused = answer.starts_with(r#"{"refused":"#) || answer.is_empty() && line.len() > 200_000;
        assert!(is_refused, "{} → {answer}", line.get(..80).unwrap_or(&line));
    }
    assert_eq!(said(&path, b"\xff\xfe\n").await, "");
    running.stop().await;
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_waiting_for_long() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("postern.sock");
    let rates = rates(&["9/hour"]);
    let running = Running::start(counting(&rates, 2).await, &path);
    let mut silent = Vec::new();
    for _ in 0..MOST_AT_ONCE {
        silent.push(UnixStream::connect(&path).await.unwrap());
    }
    assert_eq!(remaining(&path, &rates).await, 7);
    running.stop().await;
}

#[test]
fn a_question_is_read_as_it_was_written() {
    let rates = rates(&["9/hour"]);
    let line = wire::line(&Question::of(&[ask_of(&rates)]));
    assert!(line.contains("\"key\":\"abababababababababababababababab\""), "{line}");
    assert_eq!(wire::read::<Question>(&line).unwrap().looks[0].read().unwrap(), (KEY.0, rates));
}

/// Whoever asks is about to start: it must never wait, as it would for a server that hangs.
#[test]
fn whether_somebody_listens_is_known_at_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("postern.sock");
    assert!(!is_living(&path), "nothing is there");
    let socket = bind(&path).unwrap();
    assert!(is_living(&path));
    // As many as its queue holds, and none of them is taken out.
    let waiting: Vec<_> = std::iter::from_fn(|| {
        let one = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        one.set_nonblocking(true).unwrap();
        one.connect(&socket2::SockAddr::unix(&path).unwrap()).ok().map(|()| one)
    })
    .take(1_000)
    .collect();
    assert!((1..1_000).contains(&waiting.len()));
    assert!(is_living(&path));
    drop((socket, waiting));
    assert!(!is_living(&path), "what a server left behind");
}
