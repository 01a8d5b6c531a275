//! The paths of the listener: the portal beside the dialects, and where a dialect sends people to sign in.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_name_another_portal_of_the_cookies_domain() {
    let running = started();
    let ask = async |head: String| running.ask(&head).await;
    let rd = "rd=https%3A%2F%2Fapp.example.com%2Fstaff%2Fx&rm=GET";
    let named = |by: By, portal: &str| match by {
        By::ExtAuthz => question(by, "GET", APP, "/staff/x", &format!("{PAGE}X-Authelia-URL: {portal}\r\n")),
        _ => {
            let encoded: String = form_urlencoded::byte_serialize(portal.as_bytes()).collect();
            let asked = question(by, "GET", APP, "/staff/x", PAGE);
            let query = if by == By::Legacy { "?rd=" } else { "?authelia_url=" };
            let (path, rest) = asked.split_once(" HTTP/1.1").unwrap();
            format!("{}{query}{encoded} HTTP/1.1{rest}", path.split('?').next().unwrap())
        }
    };
    for by in ALL {
        for (portal, location) in [
            ("https://login.example.com", format!("https://login.example.com/?{rd}")),
            (
                "https://login.example.com:8443/sub?theme=dark",
                format!("https://login.example.com:8443/sub/?theme=dark&{rd}"),
            ),
            ("https://example.com/", format!("https://example.com/?{rd}")),
        ] {
            assert_eq!(ask(named(by, portal)).await.one("location"), Some(&*location), "{portal}");
        }
        let rejected = match by {
            By::AuthRequest => "403 400 staff -",
            By::Legacy => "401 - staff -",
            _ => "400 - staff -",
        };
        for portal in [
            "https://evil.test",
            "https://example.com.evil.test",
            "https://evilexample.com",
            "http://auth.example.com",
            "https://auth.example.com@evil.test",
            "https://user@auth.example.com",
            "https://auth.example.com/#x",
            "javascript:alert(1)",
            "//auth.example.com",
            "auth.example.com",
        ] {
            assert_eq!(ask(named(by, portal)).await.told(), rejected, "{portal}");
        }
    }
    // The legacy path redirects only where a portal is named.
    let asked = question(By::Legacy, "GET", APP, "/staff/x", PAGE).replace("?rd=https://auth.example.com/", "");
    assert_eq!(ask(asked.clone()).await.told(), "401 - staff -");
    let by_header = format!("{asked}X-Authelia-URL: https://login.example.com\r\n");
    assert_eq!(ask(by_header).await.told(), format!("302 - staff https://login.example.com/?{rd}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_on_http_is_asked_for_again_over_https() {
    let running = started();
    for (url, rd) in [
        ("http://app.example.com/staff/x", "https%3A%2F%2Fapp.example.com%2Fstaff%2Fx"),
        ("http://app.example.com:80/staff/x", "https%3A%2F%2Fapp.example.com%2Fstaff%2Fx"),
        ("http://app.example.com:8080/staff/x", "https%3A%2F%2Fapp.example.com%3A8080%2Fstaff%2Fx"),
        ("ws://app.example.com/staff/x", "https%3A%2F%2Fapp.example.com%2Fstaff%2Fx"),
        ("https://app.example.com:443/staff/x", "https%3A%2F%2Fapp.example.com%3A443%2Fstaff%2Fx"),
    ] {
        let answer = running
            .ask(&format!(
                "GET /api/authz/auth-request HTTP/1.1\r\nHost: x\r\nX-Original-URL: {url}\r\nX-Original-Method: GET\r\n{PAGE}"
            ))
            .await;
        assert_eq!(answer.one("location"), Some(&*format!("https://auth.example.com/?rd={rd}&rm=GET")), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_13_15_paths_are_matched_whatever_the_host_and_the_rest_is_the_portals() {
    let running = started();
    let get =
        async |path: &str, host: &str| running.ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{PAGE}")).await;
    for host in ["auth.example.com", "app.example.com", "127.0.0.1:9091", "evil.test"] {
        assert_eq!(get("/healthz", host).await.status(), 200, "{host}");
        assert_eq!(get("/.well-known/jwks.json", host).await.body(), "keys", "{host}");
        let asked =
            question(By::ForwardAuth, "GET", APP, "/public/x", "").replace("Host: postern", &format!("Host: {host}"));
        assert_eq!(running.ask(&asked).await.status(), 200, "{host}");
        let asked = asked.replace("GET /api", &format!("GET http://{host}/api"));
        assert_eq!(running.ask(&asked).await.status(), 200, "{host}, absolute");
    }
    assert!(get("/healthz", "x").await.one("x-request-id").is_some());
    assert_eq!(running.ask("HEAD /healthz HTTP/1.1\r\nHost: x").await.status(), 200);
    assert_eq!(running.ask("POST /healthz HTTP/1.1\r\nHost: x").await.status(), 404);
    for (path, host, status) in [
        ("/", "AUTH.example.com.:8080", 200),
        ("/nowhere", "auth.example.com", 404),
        ("/", "app.example.com", 404),
        ("/api/authz/ext-authz", "app.example.com", 404),
        ("/api/authz/forward-auth/", "app.example.com", 404),
        ("/%2e%2e/", "auth.example.com", 400),
        ("/auth/login%3Fx", "auth.example.com", 404),
        ("/%2561", "auth.example.com", 404),
        ("/", "a b", 400),
        ("/", "auth.example.com\r\nHost: app.example.com", 400),
    ] {
        let answer = get(path, host).await;
        assert_eq!(answer.status(), status, "{host}{path}");
        assert!(status == 400 || status == 200 || answer.all("location").is_empty());
    }
    assert_eq!(get("http://auth.example.com/", "app.example.com").await.status(), 400, "threat_14");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_portal_hears_how_the_client_came() {
    let running = started();
    let ask =
        async |more: &str| running.ask(&format!("GET /?rd=a%26b HTTP/1.1\r\nHost: auth.example.com\r\n{more}")).await;
    let told = ask("X-Forwarded-Proto: https\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Host: evil.test").await;
    assert_eq!(told.body(), "/?rd=a%26b https://auth.example.com/?rd=a%26b Some(198.51.100.7)");
    assert_eq!(ask("").await.body(), "/?rd=a%26b http://auth.example.com/?rd=a%26b None");
    for proto in ["X-Forwarded-Proto: javascript", "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http"] {
        assert_eq!(ask(proto).await.status(), 400, "{proto}");
    }
    let flood = ask("X-Forwarded-For: 203.0.113.9").await;
    assert_eq!((flood.status(), flood.one("retry-after")), (429, Some("3")));
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_path_the_portal_is_on_every_host() {
    let running = started_with(
        |site| {
            site.portal.mount = crate::core::site::Mount::Path("/_postern".to_owned());
            site.cookies[0].domain.clear();
            site.cookies[0].portal = None;
        },
        None,
    );
    let portal = running.ask("GET /_postern/ HTTP/1.1\r\nHost: app.example.com").await;
    assert_eq!(portal.body(), "/ http://app.example.com/_postern/ None");
    let answer = running.ask(&question(By::ForwardAuth, "GET", "app.example.com:8443", "/staff/x", PAGE)).await;
    let rd = "rd=https%3A%2F%2Fapp.example.com%3A8443%2Fstaff%2Fx&rm=GET";
    assert_eq!(answer.told(), format!("302 - staff https://app.example.com:8443/_postern/?{rd}"));
    let query = "?authelia_url=https://other.example.com/_postern HTTP";
    let foreign = question(By::ForwardAuth, "GET", APP, "/staff/x", PAGE).replacen(" HTTP", query, 1);
    assert_eq!(running.ask(&foreign).await.status(), 400, "its own origin alone");
}
