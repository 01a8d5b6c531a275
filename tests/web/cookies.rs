//! Cookies, word by word (CONTRACT 7 "Two cookies").

use serde_json::json;

use crate::harness::{Ask, Browser, HTTP, HTTPS, ON_HTTPS, PASSWORD, Reply, World};

/// By which the browser is known to its people, whether they are remembered or not.
const DEVICE: &str = "__Host-postern_device=*; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=34560000";

/// What is set, with the value taken out.
fn shapes(reply: &Reply) -> Vec<String> {
    let shape = |set: &str| {
        let (name, rest) = set.split_once('=').unwrap();
        let (value, attributes) = rest.split_once(';').unwrap();
        assert!(value.is_empty() || value.len() >= 43, "{set}");
        format!("{name}={};{attributes}", if value.is_empty() { "" } else { "*" })
    };
    reply.set_cookies().into_iter().map(shape).collect()
}

async fn login(world: &World, portal: &str, remember_me: bool) -> Reply {
    let body = json!({ "username": "bob", "password": PASSWORD, "remember_me": remember_me });
    let reply = world.send(Ask::post(format!("{portal}/auth/login")).json(&body)).await;
    assert_eq!(reply.status, 200);
    reply
}

#[tokio::test]
async fn on_https() {
    let world = World::https().await;
    assert_eq!(
        shapes(&login(&world, HTTPS, false).await),
        [
            "postern_session=*; Path=/; HttpOnly; Domain=example.com; Secure; SameSite=Lax",
            "__Host-postern_portal=*; Path=/; HttpOnly; Secure; SameSite=Lax",
            DEVICE,
        ]
    );
    assert_eq!(
        shapes(&login(&world, HTTPS, true).await),
        [
            "postern_session=*; Path=/; HttpOnly; Domain=example.com; Secure; SameSite=Lax; Max-Age=2592000",
            "__Host-postern_portal=*; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=2592000",
            DEVICE,
        ]
    );
    let mut browser = Browser::at(&world, HTTPS);
    let page = browser.load("/").await;
    assert_eq!(shapes(&page), ["__Host-postern_csrf=*; Path=/; HttpOnly; Secure; SameSite=Lax"]);
    assert_eq!(shapes(&browser.load("/").await), [""; 0], "one pre-session a browser");
}

#[tokio::test]
async fn on_http() {
    let world = World::http().await;
    assert_eq!(
        shapes(&login(&world, HTTP, false).await),
        [
            "postern_session=*; Path=/; HttpOnly; Domain=example.com; SameSite=Lax",
            "postern_portal=*; Path=/; HttpOnly; SameSite=Lax",
            "postern_device=*; Path=/; HttpOnly; SameSite=Lax; Max-Age=34560000",
        ]
    );
    let page = Browser::at(&world, HTTP).load("/").await;
    assert_eq!(shapes(&page), ["postern_csrf=*; Path=/; HttpOnly; SameSite=Lax"]);
}

/// `Secure` follows `portal.url`, never the connection: a proxy in front may end TLS.
#[tokio::test]
async fn secure_follows_the_portals_url() {
    let world = World::https().await;
    let reply = login(&world, "http://auth.example.com", false).await;
    assert!(shapes(&reply).iter().all(|set| set.contains("; Secure")), "{:?}", shapes(&reply));
    let world = World::http().await;
    let reply = login(&world, "https://auth.example.com", false).await;
    assert!(shapes(&reply).iter().all(|set| !set.contains("; Secure")), "{:?}", shapes(&reply));
}

#[tokio::test]
async fn as_the_cookie_domain_says() {
    let world = World::of(
        r#"
portal: { url: "https://auth.example.com" }
session:
  remember_me: 7d
  cookies:
    - { domain: example.com, name: gate, same_site: strict }
    - { domain: example.org, portal: "https://login.example.org", same_site: none }
"#,
    )
    .await;
    assert_eq!(
        shapes(&login(&world, HTTPS, true).await),
        [
            "gate=*; Path=/; HttpOnly; Domain=example.com; Secure; SameSite=Strict; Max-Age=604800",
            "__Host-postern_portal=*; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=604800",
            DEVICE,
        ]
    );
    let other = login(&world, "https://login.example.org", false).await;
    assert_eq!(shapes(&other)[0], "postern_session=*; Path=/; HttpOnly; Domain=example.org; Secure; SameSite=None");
    // A sign-in counts on its own domain alone.
    let cookies = format!(
        "gate={}; __Host-postern_portal={}",
        other.cookie("postern_session").unwrap(),
        other.cookie("__Host-postern_portal").unwrap()
    );
    assert_eq!(world.send(Ask::get(format!("{HTTPS}/auth/me")).cookie(&cookies)).await.status, 401);
}

#[tokio::test]
async fn nobody_is_remembered_where_that_is_not_offered() {
    let world = World::of(
        r#"
portal: { url: "https://auth.example.com" }
session: { remember_me: 0s, cookies: [ { domain: example.com } ] }
"#,
    )
    .await;
    assert!(!Browser::at(&world, HTTPS).load("/").await.body.contains("remember_me"));
    let reply = login(&world, HTTPS, true).await;
    let lasting: Vec<String> = shapes(&reply).into_iter().filter(|set| set.contains("Max-Age")).collect();
    assert_eq!(lasting, [DEVICE], "which signs nobody in");
}

#[tokio::test]
async fn signing_out_takes_them_away() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let reply = browser.api("POST", "/auth/logout").await;
    assert_eq!(reply.status, 204);
    assert_eq!(
        shapes(&reply),
        [
            "postern_session=; Path=/; HttpOnly; Domain=example.com; Secure; SameSite=Lax; Max-Age=0",
            "__Host-postern_portal=; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=0",
        ]
    );
}

/// Stores hold SHA-256 alone, and the two values and the id have nothing to do with one another.
#[tokio::test]
async fn values_are_opaque() {
    let world = World::https().await;
    let reply = login(&world, HTTPS, false).await;
    let (gate, portal) = (reply.cookie("postern_session").unwrap(), reply.cookie("__Host-postern_portal").unwrap());
    assert_eq!((gate.len(), portal.len()), (43, 43));
    assert_ne!(gate, portal);
    assert!(!reply.body.contains(&gate) && !reply.body.contains(&portal));
    let stored = &world.stores.sessions.list(Some("bob")).await.unwrap()[0];
    assert_ne!(stored.id.as_str(), gate);
    assert_eq!(stored.gate_hash, postern::core::session::TokenHash::of(&gate));
}

/// Whatever the portal sets is taken out of what goes to an upstream and comes from one (CONTRACT 6, THREATS 60).
#[tokio::test]
async fn threat_29_and_60_every_cookie_that_is_set_is_known_as_ours() {
    for (yaml, portal) in [
        (ON_HTTPS, HTTPS),
        (crate::harness::ON_HTTP, HTTP),
        ("portal: { path: /_postern }\n", "https://app.example.com/_postern"),
        ("portal: { path: /_postern }\n", "http://app.example.com/_postern"),
    ] {
        let world = World::of(yaml).await;
        let mut browser = Browser::at(&world, portal);
        let rd = format!("{}/x", portal.trim_end_matches("/_postern").replace("auth.", "app."));
        browser.load("/").await;
        assert_eq!(browser.sign_in("bob", PASSWORD, &[("rd", &rd)]).await.location(), rd);
        let set: Vec<String> =
            browser.cookies().split("; ").map(|pair| pair.split_once('=').unwrap().0.to_owned()).collect();
        assert_eq!(set.len(), 5, "the gate's, the portal's, the form's, the device's and the returns': {set:?}");
        for name in set {
            assert!(world.site.own_cookies.contains(&name), "{name} is missing of {:?}", world.site.own_cookies);
        }
    }
}
