//! What each dialect answers to each verdict, and whose word counts.

use std::sync::atomic::Ordering;

use super::*;
use crate::core::route::HeaderTemplate;

#[tokio::test(flavor = "multi_thread")]
async fn every_verdict_has_its_answer_in_every_dialect() {
    let running = started();
    let signed_in = cookie("a");
    let failed = format!("{API}Proxy-Authorization: Bearer {}\r\n", token(2, |_| {}));
    let preflight = format!("{PAGE}Origin: https://x.test\r\nAccess-Control-Request-Method: PUT\r\n");
    let websocket = format!("{PAGE}Sec-WebSocket-Key: x\r\n");
    let page_of_bob = format!("{PAGE}{signed_in}");
    let staff = |method: &str| {
        format!(
            "https://auth.example.com/?rd=https%3A%2F%2Fapp.example.com%2Fstaff%2Fx%3Fa%3Db%26c%3D%252F%2B%7E&rm={method}"
        )
    };
    let to_sign_in = |status: u16, method: &str| {
        let location = staff(method);
        [
            format!("{status} - staff {location}"),
            format!("401 {status} staff {location}"),
            format!("{status} - staff {location}"),
            format!("{status} - staff {location}"),
        ]
    };
    let told = |four: [&str; 4]| four.map(str::to_owned);
    let same = |one: &str| [one; 4].map(str::to_owned);
    let admin = "https://auth.example.com/?rd=https%3A%2F%2Fapp.example.com%2Fadmin%2F&rm=GET";
    let step_up = |status: u16| {
        [
            format!("{status} - admin {admin}"),
            format!("401 {status} admin {admin}"),
            format!("{status} - admin {admin}"),
            format!("{status} - admin {admin}"),
        ]
    };
    let wanted = "/staff/x?a=b&c=%2F+~";
    let cases: Vec<(&str, &str, &str, &str, [String; 4])> = vec![
        ("a page", "GET", wanted, PAGE, to_sign_in(302, "GET")),
        ("a head", "HEAD", wanted, PAGE, to_sign_in(302, "HEAD")),
        ("a form", "POST", wanted, PAGE, to_sign_in(303, "POST")),
        ("a deletion", "DELETE", wanted, PAGE, to_sign_in(303, "DELETE")),
        ("a navigation", "GET", wanted, "Sec-Fetch-Mode: navigate\r\n", to_sign_in(302, "GET")),
        ("a fetch", "GET", wanted, "Sec-Fetch-Mode: cors\r\nAccept: text/html\r\n", to_sign_in(401, "GET")),
        ("curl", "GET", wanted, "Accept: */*\r\n", to_sign_in(302, "GET")),
        ("no accept", "GET", wanted, "", to_sign_in(401, "GET")),
        ("xhr", "GET", wanted, "Accept: text/html\r\nX-Requested-With: XMLHttpRequest\r\n", to_sign_in(401, "GET")),
        ("an api call", "PUT", wanted, API, to_sign_in(401, "PUT")),
        ("a websocket", "GET", wanted, &websocket, to_sign_in(401, "GET")),
        (
            "a websocket of http/2",
            "GET",
            wanted,
            "Accept: */*\r\nSec-WebSocket-Version: 13\r\n",
            to_sign_in(401, "GET"),
        ),
        (
            "a preflight",
            "OPTIONS",
            "/staff/x",
            &preflight,
            told(["401 - staff -", "401 401 staff -", "401 - staff -", "401 - staff -"]),
        ),
        ("a second factor, page", "GET", "/admin/", &page_of_bob, step_up(302)),
        ("a second factor, api", "GET", "/admin/", &signed_in, step_up(401)),
        ("refused", "GET", "/elsewhere", PAGE, same("403 - default -")),
        ("refused to bob", "GET", "/elsewhere", &signed_in, same("403 - default -")),
        (
            "a failed token",
            "GET",
            "/staff/x",
            &failed,
            told(["401 - staff -", "401 401 staff -", "401 - staff -", "401 - staff -"]),
        ),
        (
            "too many",
            "GET",
            "/staff/x",
            "X-Forwarded-For: 203.0.113.9\r\n",
            told(["429 - - -", "403 429 - -", "429 - - -", "429 - - -"]),
        ),
        (
            "ambiguous",
            "GET",
            "/public/%2e%2e/admin/",
            PAGE,
            told(["400 - - -", "403 400 - -", "400 - - -", "401 - - -"]),
        ),
        ("lower case", "get", "/staff/x", PAGE, told(["400 - - -", "403 400 - -", "400 - - -", "401 - - -"])),
        (
            "threat_24 respelled",
            "GET",
            "/public/x",
            "Remote_User: admin\r\n",
            told(["400 - - -", "403 400 - -", "400 - - -", "401 - - -"]),
        ),
        (
            "threat_24 dotted",
            "GET",
            "/public/x",
            "Remote.Groups: admins\r\n",
            told(["400 - - -", "403 400 - -", "400 - - -", "401 - - -"]),
        ),
    ];
    for (what, method, path, more, expected) in cases {
        for (by, expected) in ALL.into_iter().zip(expected) {
            let answer = running.ask(&question(by, method, APP, path, more)).await;
            assert_eq!(answer.told(), expected, "{what}: {}", answer.0);
            assert!(answer.one("x-request-id").is_some_and(|id| !id.is_empty()), "{what}");
            let challenge = (what == "a failed token").then_some(r#"Bearer error="invalid_token""#);
            assert_eq!(answer.one("www-authenticate"), challenge, "{what}");
            assert_eq!(answer.one("retry-after"), (what == "too many").then_some("3"), "{what}");
            assert_eq!(answer.one("remote-user"), None, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_32_67_a_store_that_is_down_closes_every_dialect_but_for_bypass() {
    let running = started();
    running.stores.down.store(true, Ordering::SeqCst);
    let expected = ["503 - staff -", "403 503 staff -", "403 503 staff -", "503 - staff -"];
    for (by, expected) in ALL.into_iter().zip(expected) {
        let asked = |path| question(by, "GET", APP, path, &cookie("a"));
        assert_eq!(running.ask(&asked("/staff/x")).await.told(), expected);
        let bypass = running.ask(&asked("/public/x")).await;
        assert_eq!((bypass.status(), bypass.one("remote-user")), (200, Some("")));
        let by_token = format!("Proxy-Authorization: Bearer {}\r\n", token(1, |_| {}));
        assert_eq!(running.ask(&question(by, "GET", APP, "/staff/x", &by_token)).await.told(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_no_cookie_reaches_is_rejected_only_where_sign_in_is_needed() {
    let running = started();
    for (by, expected) in ALL.into_iter().zip(["400 - staff -", "403 400 staff -", "400 - staff -", "401 - staff -"]) {
        let ask = async |path| running.ask(&question(by, "GET", "app.elsewhere.test", path, PAGE)).await.told();
        assert_eq!(ask("/staff/x").await, expected);
        assert_eq!(ask("/elsewhere").await, "403 - default -");
        assert_eq!(ask("/public/x").await, "200 - - -");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_23_29_forward_tells_every_header_and_nothing_of_ours() {
    let template = HeaderTemplate::parse("X-Webauth-User", "{user.name}").unwrap();
    let running = started_with(|site| site.listeners[0].headers = vec![template], None);
    let ours = token(1, |_| {});
    let spoofed = "Remote-User: admin\r\nRemote-Groups: admins\r\nX-Webauth-User: admin\r\nX-Request-Id: mine\r\n";
    for by in ALL {
        let ask = async |path: &str, more: &str| {
            running.ask(&question(by, "POST", APP, path, &format!("{spoofed}{more}"))).await
        };
        let seen = |answer: &Answer| -> Vec<String> {
            assert_eq!(answer.status(), 200, "{}", answer.0);
            assert_eq!(answer.one("x-request-id"), Some("mine"), "a trusted proxy's goes on");
            assert!(answer.one("traceparent").is_some_and(|trace| trace.len() == 55));
            ["remote-user", "remote-name", "remote-email", "remote-groups", "x-webauth-user", "cookie", "authorization"]
                .map(|name| answer.one(name).unwrap_or("missing").to_owned())
                .to_vec()
        };
        let anonymous = ask("/public/x", "").await;
        assert_eq!(seen(&anonymous), ["", "", "", "", "", "", ""]);
        let session =
            format!("Cookie: a=1; postern_session={}; b=2\r\nCookie: c=3; =postern_session=x\r\n", cookie_of('a'));
        let theirs = "Authorization: Basic dXNlcjpwYXNz\r\n";
        let bob = ask("/staff/x", &format!("{session}{theirs}")).await;
        assert_eq!(seen(&bob), ["bob", "Bob", "", "staff,admins", "bob", "a=1; b=2; c=3", "Basic dXNlcjpwYXNz"]);
        // Our own token never goes on: beside a session, on a public page, or where this header is not read.
        let token = format!("Authorization: Bearer {ours}\r\n");
        let beside = ask("/staff/x", &format!("{}{token}", cookie("a"))).await;
        assert_eq!(seen(&beside), ["bob", "Bob", "", "staff,admins", "bob", "", ""]);
        assert_eq!(seen(&ask("/public/x", &token).await), ["", "", "", "", "", "", ""]);
        assert_eq!(seen(&ask("/public/x", &format!("{token}{theirs}")).await)[6], "");
        // The application's own header is left alone where ours came as the proxy's.
        let both = format!("Proxy-Authorization: Bearer {ours}\r\n{theirs}");
        let both = ask("/staff/x", &both).await;
        assert_eq!(seen(&both), ["bob", "Bob", "", "staff,admins", "bob", "", "Basic dXNlcjpwYXNz"]);
        assert!(!both.0.contains(&ours));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_count_in_their_order() {
    let running = started();
    let (good, bad) = (token(1, |_| {}), token(2, |_| {}));
    let foreign = token(2, |claims| claims.iss = "https://idp.test".to_owned());
    let ask = async |by, more: String| running.ask(&question(by, "GET", APP, "/staff/x", &more)).await.told();
    for by in [By::ForwardAuth, By::AuthRequest, By::ExtAuthz] {
        let failed = if by == By::AuthRequest { "401 401 staff -" } else { "401 - staff -" };
        let one = |name: &str, token: &str| format!("{API}{name}: Bearer {token}\r\n");
        assert_eq!(ask(by, one("Authorization", &good)).await, "200 - - -");
        assert_eq!(ask(by, one("Proxy-Authorization", &good)).await, "200 - - -");
        let both = |proxy: &str, own: &str| {
            format!("{API}Proxy-Authorization: Bearer {proxy}\r\nAuthorization: Bearer {own}\r\n")
        };
        assert_eq!(ask(by, both(&good, &bad)).await, "200 - - -", "the proxy's before the application's");
        assert_eq!(ask(by, both(&bad, &good)).await, failed, "never a fall-back");
        assert_eq!(ask(by, both(&foreign, &good)).await, "200 - - -", "another's token belongs to the application");
    }
    let legacy = async |query: &str, more: &str| {
        let asked = question(By::Legacy, "GET", APP, "/staff/x", more).replace("?rd=", &format!("?{query}rd="));
        running.ask(&asked).await.status()
    };
    assert_eq!(legacy("", &format!("Proxy-Authorization: bearer {good}\r\n")).await, 200);
    assert_eq!(legacy("", &format!("Authorization: Bearer {good}\r\n")).await, 401, "not read");
    assert_eq!(legacy("auth=basic&", &format!("Authorization: Bearer {good}\r\n")).await, 200);
    assert_eq!(legacy("auth=basic&", &format!("Proxy-Authorization: Bearer {good}\r\n")).await, 401, "not read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_may_leave_the_header_to_the_application() {
    let running = started_with(|site| site.listeners[0].authorization_is_apps = true, None);
    let failed = format!("{API}Authorization: Bearer {}\r\n", token(2, |_| {}));
    let answer = running.ask(&question(By::ForwardAuth, "GET", APP, "/staff/x", &failed)).await;
    assert_eq!((answer.status(), answer.one("www-authenticate")), (401, None), "as if it were not there");
    assert!(answer.one("location").is_some());
    let theirs = format!("{}Authorization: Bearer theirs\r\n", cookie("a"));
    let answer = running.ask(&question(By::ForwardAuth, "GET", APP, "/staff/x", &theirs)).await;
    assert_eq!(answer.one("authorization"), Some("Bearer theirs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_33_61_cookies_that_do_not_count() {
    let running = started();
    running.stores.store(&session('b', 1));
    let ask =
        async |more: String| running.ask(&question(By::ForwardAuth, "GET", APP, "/staff/x", &more)).await.status();
    assert_eq!(ask(cookie("a")).await, 200);
    assert_eq!(ask(cookie("ab")).await, 401, "two live sessions");
    assert_eq!(ask(cookie("zya")).await, 200, "dead ones do no harm");
    assert_eq!(ask(cookie("wxyab")).await, 401, "one's own pushed out of sight");
    assert!(running.metrics.render().contains("postern_session_cookie_conflicts_total 2"));
    for handshake in ["Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"] {
        let from = |origin: &str| format!("{}{handshake}\r\n{origin}\r\n", cookie("a"));
        assert_eq!(ask(from("Origin: https://evil.test")).await, 401, "{handshake}");
        assert_eq!(ask(from("Origin: https://postern")).await, 401, "the asking proxy's Host is not the request's");
        assert_eq!(ask(from("Origin: https://app.example.com")).await, 200);
        assert_eq!(ask(from("X: y")).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_17_18_a_stranger_is_refused_before_anything_is_believed() {
    let running = started_with(|site| site.listeners[0].trusted_proxies.clear(), None);
    for by in ALL {
        for path in ["/public/x", "/staff/x", "/public/../x"] {
            let answer = running.ask(&question(by, "GET", APP, path, &cookie("a"))).await;
            assert_eq!((answer.status(), answer.one("remote-user"), answer.one("location")), (403, None, None));
            assert!(answer.one("x-request-id").is_some(), "every answer carries one");
        }
    }
    assert_eq!(running.stores.reads.load(Ordering::SeqCst), 0);
    let portal = running.ask("GET / HTTP/1.1\r\nHost: auth.example.com\r\nX-Forwarded-For: 192.0.2.1").await;
    assert_eq!(portal.body(), "/ http://auth.example.com/ Some(127.0.0.1)", "the portal is for everybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_62_connect_is_not_served() {
    let running = started();
    let connect = running.ask("CONNECT app.example.com:443 HTTP/1.1\r\nHost: app.example.com:443").await;
    assert_eq!(connect.status(), 405);
    let told = |by| question(by, "CONNECT", APP, "/public/x", "");
    assert_eq!(running.ask(&told(By::ForwardAuth)).await.status(), 405);
    assert_eq!(running.ask(&told(By::AuthRequest)).await.told(), "403 405 - -");
    assert_eq!(running.ask(&told(By::Legacy)).await.status(), 401);
}
