//! What a person and a program live through at a gate, whatever the gate is. Called by `journey_edge` and `journey_proxies`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::StreamExt;
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};

use crate::harness::{
    client::Person,
    front::Front,
    server::PASSWORD,
    upstream::Seen,
    wire::{Reply, Request},
};

/// A deep link with a query, a wrong password, the right one, and back to the very page; signing out ends it.
pub(crate) async fn a_person_signs_in_and_comes_back(front: &Front) {
    let person = Person::new();
    let wanted = front.app("/reports/a%20b?year=2026&q=x%2Fy&empty=");
    let gate = person.load(&wanted).await;
    assert_eq!(gate.status, 302);
    let portal = gate.location();
    assert!(portal.as_str().starts_with(&front.portal("/?")), "{portal}");
    let sent = |name: &str| portal.query_pairs().find(|(other, _)| other == name).map(|(_, value)| value.into_owned());
    assert_eq!((sent("rd"), sent("rm")), (Some(wanted.clone()), Some("GET".to_owned())));

    let form = person.load(&portal).await;
    assert_eq!(form.status, 200, "{}", form.body);
    let refused = person.sign_in(&form, "alice", "not her password").await;
    assert!(refused.status != 303 && refused.input("username").is_some(), "{} {}", refused.status, refused.body);
    assert_eq!(person.load(&wanted).await.status, 302, "a wrong password signs nobody in");

    let welcome = person.sign_in(&refused, "alice", PASSWORD).await;
    assert_eq!((welcome.status, welcome.location().as_str()), (303, wanted.as_str()));
    let page = person.load(&wanted).await;
    let seen: Seen = serde_json::from_str(&page.body).expect("the application's answer");
    assert_eq!(seen.target, "/reports/a%20b?year=2026&q=x%2Fy&empty=");
    assert_identity(&seen, ["alice", "Alice Ä.", "alice@example.com", "admins,dev"]);

    let goodbye = person.load(front.portal("/logout")).await;
    let left = person.sign_out(&goodbye).await;
    assert!(left.status == 303 || left.status == 200, "{} {}", left.status, left.body);
    assert_eq!(person.load(&wanted).await.status, 302, "signed out");
}

/// The upstream learns who asks from Postern alone, and never a secret of Postern's.
pub(crate) async fn the_upstream_sees_our_headers_and_no_others(front: &Front) {
    let bob = front.server.sign_in("bob").await;
    let spoofed = |request: Request| {
        request
            .header("Remote-User", "alice")
            .header("REMOTE-GROUPS", "admins")
            .header("remote-email", "alice@example.com")
            .header("Remote-Name", "Alice")
            .header("X-Forwarded-User", "alice")
    };

    let request = spoofed(Request::get("/app/x")).cookie(format!("a=1; {}; {}; b=2", bob.gate, bob.portal));
    let seen = Seen::of(&front.send(request).await);
    assert_identity(&seen, ["bob", "bob", "bob@example.com", "dev"]);
    assert_eq!(seen.header("Cookie"), Some("a=1; b=2"));

    let only_ours = Request::get("/app/x").cookie(bob.both());
    let seen = Seen::of(&front.send(only_ours).await);
    assert_eq!(seen.header("Cookie").unwrap_or_default(), "");

    let api_token = front.server.run(&["token", "create", "bob", "--name", "journey"]).trim().to_owned();
    for name in ["Authorization", "Proxy-Authorization"] {
        if name == "Proxy-Authorization" && !front.reads_proxy_authorization() {
            continue;
        }
        for ours in [
            format!("Bearer {}", bob.access_token),
            format!("Bearer {api_token}"),
            format!("Basic {}", STANDARD.encode(format!("bob:{PASSWORD}"))),
            format!("Basic {}", STANDARD.encode(format!("bob:{api_token}"))),
        ] {
            let request = spoofed(Request::get("/app/x")).header(name, ours.clone());
            let seen = Seen::of(&front.send(request).await);
            assert_identity(&seen, ["bob", "bob", "bob@example.com", "dev"]);
            assert_eq!(seen.header(name).unwrap_or_default(), "", "{name}");
            assert!(!format!("{seen:?}").contains(ours.split(' ').next_back().unwrap_or_default()), "{seen:?}");
        }
    }

    let theirs = Request::get("/app/x").cookie(bob.both()).header("Authorization", "Bearer the-apps-own");
    let seen = Seen::of(&front.send(theirs).await);
    assert_eq!(seen.header("Authorization"), Some("Bearer the-apps-own"));

    let seen = Seen::of(&front.send(spoofed(Request::get("/public/x"))).await);
    assert_identity(&seen, ["", "", "", ""]);
    let secrets = [&bob.gate, &bob.portal, &bob.access_token];
    for seen in front.upstream.seen() {
        let everything = format!("{seen:?}");
        assert!(secrets.iter().all(|secret| !everything.contains(value_of(secret))), "{everything}");
    }
}

/// 403 for another group, 401 for an API call, 303 for a POST, 400 for a path that can be read in two ways (or the verdict about
/// the one that the proxy makes of it).
pub(crate) async fn each_verdict_reaches_the_client(front: &Front) {
    let alice = front.server.sign_in("alice").await;
    let bob = front.server.sign_in("bob").await;
    let admin = |cookie: &str| Request::get("/admin/users").page().cookie(cookie.to_owned());
    assert_eq!(front.send(admin(&alice.gate)).await.status, 200);
    let before = front.upstream.seen().len();

    let refused = front.send(admin(&bob.gate)).await;
    assert_eq!(refused.status, 403);
    assert!(refused.header("X-Request-Id").is_some(), "{refused:?}");

    let api = front.send(Request::get("/api").header("Accept", "application/json")).await;
    assert_eq!((api.status, rm_of(&api).as_deref()), (401, Some("GET")));

    let form = front.send(Request::new("POST", "/form").page().form(&[("a", "b")])).await;
    assert_eq!((form.status, rm_of(&form).as_deref()), (303, Some("POST")));

    let preflight = Request::new("OPTIONS", "/api")
        .header("Origin", "http://elsewhere.example")
        .header("Access-Control-Request-Method", "PUT");
    let preflight = front.send(preflight).await;
    assert_eq!((preflight.status, preflight.header("Location")), (401, None));

    let failed =
        front.send(Request::get("/api").header("Authorization", format!("Bearer {}x", alice.access_token))).await;
    assert_eq!((failed.status, failed.header("Location")), (401, None));
    assert!(
        failed.header("WWW-Authenticate").is_some_and(|challenge| challenge.contains("invalid_token")),
        "{failed:?}"
    );

    for ambiguous in ["/public/../admin/users", "/public/%2e%2e/admin/users", "/public%2fx"] {
        let reply = front.send(Request::get(ambiguous).page().cookie(bob.gate.clone())).await;
        let is_clean = front.cleans_paths() && ambiguous.contains("/admin");
        assert_eq!(reply.status, if is_clean { 403 } else { 400 }, "{ambiguous}");
    }
    assert_eq!(front.upstream.seen().len(), before, "nothing of this reached the application");

    let posted = front.send(Request::new("POST", "/form").cookie(bob.gate.clone()).form(&[("a", "b")])).await;
    let seen = Seen::of(&posted);
    assert_eq!((seen.method.as_str(), seen.body.as_str()), ("POST", "a=b"));
}

/// A WebSocket goes through, with the identity on its handshake; one that a foreign page opens does not.
pub(crate) async fn a_websocket_is_let_through(front: &Front) {
    let bob = front.server.sign_in("bob").await;
    let own = format!("http://{}", front.server.app());
    let seen = websocket(front, &bob.gate, &own).await.expect("a WebSocket");
    assert_identity(&seen, ["bob", "bob", "bob@example.com", "dev"]);

    let foreign = websocket(front, &bob.gate, "http://evil.example").await;
    assert!(foreign.is_err_and(|status| [401, 403].contains(&status)), "a foreign page's handshake");
}

/// Opens a WebSocket as a page of `origin` would; what the application saw of the handshake, or the status of the refusal.
async fn websocket(front: &Front, cookie: &str, origin: &str) -> Result<Seen, u16> {
    let mut request = front.app("/socket").replacen("http", "ws", 1).into_client_request().expect("a request");
    request.headers_mut().insert("Cookie", cookie.parse().expect("a cookie"));
    request.headers_mut().insert("Origin", origin.parse().expect("an origin"));
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", front.port())).await.expect("a connection");
    match client_async(request, stream).await {
        Ok((mut socket, _)) => {
            let hello = socket.next().await.expect("a message").expect("a message");
            Ok(serde_json::from_str(hello.to_text().expect("text")).expect("the handshake"))
        }
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(fault) => panic!("{fault}"),
    }
}

fn assert_identity(seen: &Seen, expected: [&str; 4]) {
    let names = ["Remote-User", "Remote-Name", "Remote-Email", "Remote-Groups"];
    let found = names.map(|name| seen.header(name).unwrap_or_default());
    assert_eq!(found, expected, "{seen:?}");
}

/// `name=value` of a cookie, or a token: the secret itself.
fn value_of(secret: &str) -> &str {
    secret.split_once('=').map_or(secret, |(_, value)| value)
}

fn rm_of(reply: &Reply) -> Option<String> {
    let url = url::Url::parse(reply.location()).expect("an absolute URL");
    url.query_pairs().find(|(name, _)| name == "rm").map(|(_, value)| value.into_owned())
}
