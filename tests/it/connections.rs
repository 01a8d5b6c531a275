//! How many connections there may be: of one source, in all, and what is closed at once (`server.connections`, `server.source_connections`).

use std::{net::Ipv4Addr, process::Command};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::{
    DEADLINE, eventually,
    program::Program,
    server::{Role, Server, Setup},
    tls::{self, Identity},
    upstream::Upstream,
    wire::{self, Request},
    within,
};

const ONE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const THIRD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

struct Scene {
    server: Server,
    /// Both listeners speak TLS.
    identity: Option<Identity>,
    _upstream: Upstream,
}

impl Scene {
    /// Nobody on this machine is a trusted proxy.
    async fn set(keys: &str) -> Self {
        Self::changed(keys, |setup| setup, None).await
    }

    async fn changed(keys: &str, change: impl FnOnce(Setup) -> Setup, identity: Option<Identity>) -> Self {
        let upstream = Upstream::start().await;
        let mut setup = Setup::with(&upstream);
        setup.forward_auth = ", trusted_proxies: [192.0.2.1/32]".to_owned();
        setup.server = format!("  {keys}\n");
        let setup = match &identity {
            Some(identity) => setup.over_tls(identity),
            None => setup,
        };
        Self { server: change(setup).start().await, identity, _upstream: upstream }
    }

    fn port(&self, role: Role) -> u16 {
        match role {
            Role::Edge => self.server.edge(),
            Role::ForwardAuth => self.server.forward_auth(),
        }
    }

    async fn connect(&self, role: Role, source: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((source, 0).into()).expect("an address of this machine");
        // The kernel takes it, whatever becomes of it.
        socket.connect((Ipv4Addr::LOCALHOST, self.port(role)).into()).await.expect("a connection")
    }

    /// `None`: the connection was closed instead.
    async fn handshake(&self, stream: TcpStream, protocol: &[u8]) -> Option<TlsStream<TcpStream>> {
        let client = tls::client(&[self.identity.as_ref().expect("TLS")], protocol);
        let name = ServerName::try_from("auth.test.localhost").expect("a name");
        TlsConnector::from(client).connect(name, stream).await.ok()
    }

    /// Asks on it, and leaves it open. `None`: the connection was closed instead.
    async fn ask_on(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<u16> {
        let request = Request::get("/auth/health").host(self.server.auth()).header("Connection", "keep-alive");
        within(DEADLINE, "an answer or the end", async {
            let _ = stream.write_all(&request.bytes()).await;
            Some(wire::read_reply(stream).await?.status)
        })
        .await
    }

    async fn ask(&self, role: Role, source: Ipv4Addr) -> Option<u16> {
        let mut stream = self.connect(role, source).await;
        match self.identity {
            None => self.ask_on(&mut stream).await,
            Some(_) => self.ask_on(&mut self.handshake(stream, b"http/1.1").await?).await,
        }
    }

    /// Idle connections, once they are counted.
    async fn hold(&self, role: Role, source: Ipv4Addr, count: usize) -> Vec<TcpStream> {
        let before = self.server.metric("postern_connections_open", &[]).await;
        let mut held = Vec::new();
        for _ in 0..count {
            held.push(self.connect(role, source).await);
            self.open(before + f64::from(u32::try_from(held.len()).expect("few"))).await;
        }
        held
    }

    /// As [`Self::hold`], once each was served: whoever never asked is closed after some seconds.
    async fn hold_served(&self, role: Role, source: Ipv4Addr, count: usize) -> Vec<TcpStream> {
        let mut held = self.hold(role, source, count).await;
        for stream in &mut held {
            assert_eq!(self.ask_on(stream).await, Some(200), "{role:?}");
        }
        held
    }

    /// Waits until so many are open.
    async fn open(&self, count: f64) {
        let what = format!("{count} connections are open");
        eventually(&what, || async {
            (self.server.metric("postern_connections_open", &[]).await == count).then_some(())
        })
        .await;
    }

    async fn refused(&self, why: &str) -> f64 {
        self.server.metric("postern_connections_refused_total", &[&format!("why=\"{why}\"")]).await
    }
}

/// Closed without a byte.
async fn is_closed(mut stream: TcpStream) -> bool {
    within(DEADLINE, "the end of a connection", async { matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)) }).await
}

#[tokio::test]
async fn threat_58_a_source_that_holds_its_share_is_closed_and_others_are_served() {
    for role in Role::BOTH {
        let scene = Scene::set("source_connections: 4").await;
        let mut held = scene.hold(role, ONE, 4).await;
        // After a request they are held as well.
        for stream in &mut held[..2] {
            assert_eq!(scene.ask_on(stream).await, Some(200), "{role:?}");
        }
        assert!(is_closed(scene.connect(role, ONE).await).await, "{role:?}: nobody has to ask to be closed");
        for _ in 0..8 {
            assert_eq!(scene.ask(role, ONE).await, None, "{role:?}");
        }
        assert_eq!((scene.refused("source").await, scene.refused("all").await), (9.0, 0.0), "{role:?}");
        assert_eq!(scene.ask(role, OTHER).await, Some(200), "{role:?}: another source");
        for stream in &mut held {
            assert_eq!(scene.ask_on(stream).await, Some(200), "{role:?}: whoever is in is served");
        }
        drop(held);
        scene.open(0.0).await;
        assert_eq!(scene.ask(role, ONE).await, Some(200), "{role:?}: all places were given back");
        let log = scene.server.log();
        assert_eq!(log.matches("server.source_connections allows").count(), 1, "one warning for all of them: {log}");
    }
}

#[tokio::test]
async fn threat_58_half_done_handshakes_count_and_one_too_many_gets_none() {
    for role in Role::BOTH {
        let scene = Scene::changed("source_connections: 4", |setup| setup, Some(tls::certificate())).await;
        // One that says nothing, one that stops in the middle of its hello, one that speaks HTTP/2 and then nothing, one that asked.
        let mut held = scene.hold(role, ONE, 4).await;
        held[1].write_all(&[0x16, 0x03, 0x01, 0x02]).await.expect("a part of a hello");
        let (fourth, third) = (held.pop().expect("one"), held.pop().expect("one"));
        let third = scene.handshake(third, b"h2").await.expect("a handshake");
        let mut fourth = scene.handshake(fourth, b"http/1.1").await.expect("a handshake");
        assert_eq!(scene.ask_on(&mut fourth).await, Some(200), "{role:?}");
        assert!(is_closed(scene.connect(role, ONE).await).await, "{role:?}: before any handshake");
        for _ in 0..5 {
            assert_eq!(scene.ask(role, ONE).await, None, "{role:?}");
        }
        assert_eq!(scene.refused("source").await, 6.0, "{role:?}");
        assert_eq!(scene.ask(role, OTHER).await, Some(200), "{role:?}: another source");
        // The place of each comes back, also of a handshake that ends in the middle or fails.
        scene.open(4.0).await;
        drop(held.pop());
        scene.open(3.0).await;
        held[0].write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("no hello at all");
        scene.open(2.0).await;
        drop(third);
        scene.open(1.0).await;
        drop(fourth);
        scene.open(0.0).await;
        assert_eq!(scene.ask(role, ONE).await, Some(200), "{role:?}");
    }
}

#[tokio::test]
async fn threat_58_all_listeners_have_one_count() {
    let scene = Scene::set("connections: 6\n  source_connections: 3").await;
    let mut of_one = scene.hold_served(Role::Edge, ONE, 2).await;
    of_one.extend(scene.hold_served(Role::ForwardAuth, ONE, 1).await);
    for role in Role::BOTH {
        assert_eq!(scene.ask(role, ONE).await, None, "{role:?}");
    }
    assert_eq!((scene.refused("source").await, scene.refused("all").await), (2.0, 0.0));
    let of_other = scene.hold_served(Role::ForwardAuth, OTHER, 3).await;
    for role in Role::BOTH {
        assert_eq!(scene.ask(role, THIRD).await, None, "{role:?}");
    }
    // Neither where both are full.
    assert_eq!(scene.ask(Role::Edge, ONE).await, None);
    assert_eq!((scene.refused("source").await, scene.refused("all").await), (3.0, 2.0));
    drop(of_one.pop());
    scene.open(5.0).await;
    assert_eq!(scene.ask(Role::Edge, THIRD).await, Some(200), "a place that was given back is anybody's");
    drop((of_one, of_other));
    scene.open(0.0).await;
}

#[tokio::test]
async fn a_trusted_proxy_has_no_share_but_is_one_of_all() {
    for role in Role::BOTH {
        let trusting = |mut setup: Setup| {
            let trusted = ", trusted_proxies: [127.0.0.1/32]".to_owned();
            match role {
                Role::Edge => setup.edge = trusted,
                Role::ForwardAuth => setup.forward_auth = trusted,
            }
            setup
        };
        let scene = Scene::changed("connections: 6\n  source_connections: 1", trusting, None).await;
        let of_the_proxy = scene.hold_served(role, ONE, 5).await;
        let elsewhere = if role == Role::Edge { Role::ForwardAuth } else { Role::Edge };
        let there = scene.hold_served(elsewhere, ONE, 1).await;
        assert_eq!((scene.refused("source").await, scene.refused("all").await), (0.0, 0.0), "{role:?}");
        assert_eq!(scene.ask(role, ONE).await, None, "{role:?}: there are no more than six");
        assert_eq!((scene.refused("source").await, scene.refused("all").await), (0.0, 1.0), "{role:?}");
        drop(of_the_proxy);
        scene.open(1.0).await;
        assert_eq!(scene.ask(elsewhere, ONE).await, None, "where it is not trusted, it is a source like any other");
        assert_eq!(scene.refused("source").await, 1.0, "{role:?}");
        drop(there);
    }
}

#[tokio::test]
async fn a_reload_sets_other_bounds_and_closes_nobody() {
    let scene = Scene::set("source_connections: 2").await;
    let config = std::fs::read_to_string(scene.server.folder().join("config/postern.yaml")).expect("the configuration");
    let write = |keys: &str| {
        scene.server.write("config/postern.yaml", &config.replace("source_connections: 2", keys));
    };
    let becomes = async |what: &str, expected: Option<u16>| {
        eventually(what, || async { (scene.ask(Role::Edge, ONE).await == expected).then_some(()) }).await;
    };
    let mut held = scene.hold_served(Role::Edge, ONE, 2).await;
    assert_eq!(scene.ask(Role::Edge, ONE).await, None);
    write("source_connections: 3");
    becomes("there is a third place", Some(200)).await;
    scene.open(2.0).await;
    held.extend(scene.hold_served(Role::Edge, ONE, 1).await);
    assert_eq!(scene.ask(Role::Edge, ONE).await, None, "and no fourth");
    write("source_connections: none");
    becomes("one source may hold more", Some(200)).await;
    scene.open(3.0).await;
    held.extend(scene.hold_served(Role::Edge, ONE, 10).await);
    write("source_connections: 1");
    becomes("the share is smaller", None).await;
    for stream in &mut held {
        assert_eq!(scene.ask_on(stream).await, Some(200), "whoever was in stays in");
    }
    let others = scene.refused("all").await;
    write("connections: 5\n  source_connections: none");
    eventually("all are fewer", || async {
        scene.ask(Role::ForwardAuth, OTHER).await;
        (scene.refused("all").await > others).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_more_are_held_than_the_system_allows_files_for_and_the_log_says_so() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).prepare();
    let mut limited = Command::new("/bin/sh");
    limited.env_clear().args(["-c", "ulimit -n 600 && exec \"$0\" serve", env!("CARGO_BIN_EXE_postern")]);
    let mut program = Program::start("postern", server.folder(), &mut limited);
    program.answers(server.admin(), "/readyz").await;
    let log = program.log();
    let told = "server.connections is 16384, but this process may have 600 files open only, which do for 172 connections: \
                no more are held, and 21 of one source. Allow it 33024 files (LimitNOFILE= of the systemd unit, `ulimit -n`)";
    assert!(log.contains(told), "{log}");
    let scene = Scene { server, identity: None, _upstream: upstream };
    let held = scene.hold(Role::Edge, ONE, 21).await;
    assert_eq!(scene.ask(Role::Edge, ONE).await, None);
    assert_eq!(scene.ask(Role::Edge, OTHER).await, Some(200));
    drop(held);
}
