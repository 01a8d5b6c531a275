//! Where a session is said to be, and the mail to whoever's name was signed in with from a new device.

use std::{path::Path, time::Duration};

use postern::{
    ports::{Mail, UserChange, Whom},
    store::Countries,
};
use serde_json::json;

use crate::{
    harness::{Ask, Browser, HTTP, HTTPS, ON_HTTP, ON_HTTPS, PASSWORD, World},
    mmdb,
};

const TOLD: &str = "notifier: { new_device: true, filesystem: { folder: never-written } }\n";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const DAY: Duration = Duration::from_secs(86_400);

async fn telling() -> World {
    World::of(&format!("{ON_HTTPS}{TOLD}")).await
}

fn with_countries(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("countries.mmdb");
    mmdb::countries(&file);
    world.stores.geo.swap(Some(Countries::read(&file).unwrap()));
}

/// By the API, as somebody's browser would.
async fn login(browser: &mut Browser<'_>, portal: &str, user: &str, user_agent: &str) -> Vec<String> {
    let body = json!({ "username": user, "password": PASSWORD });
    let ask = Ask::post(format!("{portal}/auth/login")).header("user-agent", user_agent).json(&body);
    let reply = browser.send(ask).await;
    assert_eq!(reply.status, 200, "{reply:#?}");
    reply.set_cookies().iter().map(|cookie| (*cookie).to_owned()).collect()
}

#[tokio::test]
async fn a_session_is_told_with_its_browser_and_its_country() {
    let world = World::https().await;
    let mut bob = Browser::at(&world, HTTPS);
    login(&mut bob, HTTPS, "bob", FIREFOX).await;
    let told = bob.api("GET", "/auth/sessions").await.json()["sessions"][0].clone();
    assert_eq!([&told["country"], &told["place"]], [&json!(null), &json!(null)], "no database of addresses");

    with_countries(&world);
    let told = bob.api("GET", "/auth/sessions").await.json()["sessions"][0].clone();
    for (key, value) in [
        ("browser", "Firefox"),
        ("os", "Linux"),
        ("device", "Linux"),
        ("ip", "192.0.2.7"),
        ("country", "DE"),
        ("place", "Germany"),
    ] {
        assert_eq!(told[key], value, "{key}");
    }
    let page = bob.load("/account").await;
    assert!(page.body.contains("<strong>Firefox on Linux</strong>"), "{}", page.body);
    assert!(page.body.contains("from 192.0.2.7 (Germany)"), "{}", page.body);
}

#[tokio::test]
async fn a_new_device_is_told_once_and_by_user() {
    let world = telling().await;
    with_countries(&world);
    let mut browser = Browser::at(&world, HTTPS);
    let cookies = login(&mut browser, HTTPS, "bob", FIREFOX).await;
    let device = cookies.iter().find(|cookie| cookie.starts_with("__Host-postern_device=")).unwrap();
    let (value, attributes) = device.split_once('=').unwrap().1.split_once(';').unwrap();
    assert_eq!(value.len(), 43);
    assert_eq!(attributes, " Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=34560000");

    let [mail] = world.mailbox.taken().try_into().unwrap();
    assert_eq!((mail.to.as_str(), mail.user.as_str()), ("bob@example.com", "bob"));
    assert_eq!(mail.subject, "New sign-in to Postern: Firefox on Linux");
    for told in [
        "Hello bob of the tests,",
        "15 January 2027 at 08:00 UTC",
        "Firefox on Linux",
        "192.0.2.7 (Germany)",
        "https://auth.example.com/account",
    ] {
        assert!(mail.text.contains(told), "no {told:?} in {}", mail.text);
        assert!(mail.html.contains(told), "no {told:?} in {}", mail.html);
    }
    let secrets: Vec<&str> = browser.jar.values().map(String::as_str).collect();
    assert!(
        secrets.len() >= 3 && !secrets.iter().any(|secret| mail.text.contains(secret) || mail.html.contains(secret))
    );

    // The same browser, for whichever way in.
    login(&mut browser, HTTPS, "bob", FIREFOX).await;
    assert_eq!(browser.sign_in("bob", PASSWORD, &[]).await.status, 303);
    assert_eq!(browser.jar("__Host-postern_device"), Some(value), "it stays the same browser");
    let bobs = value.to_owned();
    assert_eq!(world.mailbox.taken(), []);
    // Somebody else there is told once as well, and nobody is new again for it.
    for (user, mails) in [("alice", 1), ("alice", 0), ("bob", 0)] {
        login(&mut browser, HTTPS, user, FIREFOX).await;
        assert_eq!(world.mailbox.taken().len(), mails, "{user}");
    }
    // Each has a value of their own there: what somebody saw of the browser before is nobody else's.
    let both = browser.jar("__Host-postern_device").unwrap();
    let (first, second) = both.split_once('.').unwrap();
    assert!(first == bobs && second.len() == 43 && second != bobs, "{both}");
    // Another browser, and one that forgot its cookies.
    login(&mut Browser::at(&world, HTTPS), HTTPS, "bob", FIREFOX).await;
    browser.jar.remove("__Host-postern_device");
    login(&mut browser, HTTPS, "BOB", FIREFOX).await;
    assert_eq!(world.mailbox.taken().iter().map(|mail| mail.user.as_str()).collect::<Vec<_>>(), ["bob", "bob"]);
}

#[tokio::test]
async fn what_ends_every_token_makes_every_device_new() {
    let world = telling().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    world.mailbox.taken();
    world.stores.users.revoke(Whom::One("bob")).await.unwrap();
    for mails in [1, 0] {
        login(&mut browser, HTTPS, "bob", FIREFOX).await;
        assert_eq!(world.mailbox.taken().len(), mails);
    }
    // Unused for so long, and each use counts.
    world.pass(DAY * 399);
    login(&mut browser, HTTPS, "bob", FIREFOX).await;
    world.pass(DAY * 399);
    login(&mut browser, HTTPS, "bob", FIREFOX).await;
    assert_eq!(world.mailbox.taken(), []);
    world.pass(DAY * 401);
    login(&mut browser, HTTPS, "bob", FIREFOX).await;
    assert_eq!(world.mailbox.taken().len(), 1);
    // Whoever gets the name of somebody who is gone is somebody else.
    world.stores.users.delete("bob").await.unwrap();
    world.add_user("bob", &["dev"]).await;
    login(&mut browser, HTTPS, "bob", FIREFOX).await;
    assert_eq!(world.mailbox.taken().len(), 1);
}

#[tokio::test]
async fn nobody_is_told_where_nothing_is_switched_on_or_no_address_is_known() {
    let world = World::https().await;
    let cookies = login(&mut Browser::at(&world, HTTPS), HTTPS, "bob", FIREFOX).await;
    assert!(cookies.iter().any(|cookie| cookie.contains("postern_device")), "regulation knows it: {cookies:?}");
    assert_eq!(world.mailbox.taken(), []);
    let world = World::of(&format!("{ON_HTTPS}regulation: {{ max_retries: 0 }}\n")).await;
    let cookies = login(&mut Browser::at(&world, HTTPS), HTTPS, "bob", FIREFOX).await;
    assert!(!cookies.iter().any(|cookie| cookie.contains("postern_device")), "{cookies:?}");
    assert_eq!(world.mailbox.taken(), []);

    let world = telling().await;
    let change = UserChange { email: Some(None), ..UserChange::default() };
    world.stores.users.update("bob", change).await.unwrap();
    login(&mut Browser::at(&world, HTTPS), HTTPS, "bob", FIREFOX).await;
    assert_eq!(world.mailbox.taken(), []);
    // A wrong password is no sign-in.
    assert_eq!(Browser::at(&world, HTTPS).sign_in("alice", "wrong", &[]).await.status, 401);
    assert_eq!(world.mailbox.taken(), []);
}

#[tokio::test]
async fn on_plain_http_the_cookie_has_its_plain_name() {
    let world = World::of(&format!("{ON_HTTP}{TOLD}")).await;
    let cookies = login(&mut Browser::at(&world, HTTP), HTTP, "bob", FIREFOX).await;
    let device = cookies.iter().find(|cookie| cookie.starts_with("postern_device=")).unwrap();
    assert!(!device.contains("Secure") && device.contains("HttpOnly"), "{device}");
}

/// What others chose never becomes a header, a tag or a sentence of ours.
#[tokio::test]
async fn text_of_others_stays_text() {
    let world = telling().await;
    let change = UserChange { display_name: Some("<b>Bob</b> \u{202e}& friends".to_owned()), ..UserChange::default() };
    world.stores.users.update("bob", change).await.unwrap();
    let hostile = "Evil-Browser-https://evil.example/<script>alert(1)</script>/1.0 (call +1-555; Linux)";
    let mut browser = Browser::at(&world, HTTPS);
    login(&mut browser, HTTPS, "bob", hostile).await;
    let [Mail { subject, text, html, .. }] = world.mailbox.taken().try_into().unwrap();
    assert!(subject.chars().all(|letter| letter.is_ascii_graphic() || letter == ' '), "{subject}");
    assert!(!subject.contains("://") && !text.contains("evil.example/"), "{text}");
    assert!(!html.contains("<script") && !html.contains("<b>") && html.contains("&#60;b&#62;Bob"), "{html}");
    assert!(!text.contains('\u{202e}') && text.contains("<b>Bob</b>"), "{text}");
    // A value that is none of ours is not kept.
    browser.toss("__Host-postern_device", "x");
    login(&mut browser, HTTPS, "bob", FIREFOX).await;
    assert_eq!(world.mailbox.taken().len(), 1);
    assert_eq!(browser.jar("__Host-postern_device").map(str::len), Some(43));
}

#[test]
fn what_is_no_database_of_countries_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fault = |path: &Path| Countries::read(path).err().unwrap_or_default();
    assert!(fault(&at("missing.mmdb")).contains("cannot be read"));
    std::fs::write(at("text.mmdb"), "no database").unwrap();
    assert!(fault(&at("text.mmdb")).contains("no database in MaxMind's format"));
    mmdb::networks(&at("asn.mmdb"));
    assert!(fault(&at("asn.mmdb")).contains("names no countries (it is of the type `GeoLite2-ASN`)"));
    mmdb::countries(&at("whole.mmdb"));
    assert_eq!(fault(&at("whole.mmdb")), "");
    let whole = std::fs::read(at("whole.mmdb")).unwrap();
    std::fs::write(at("half.mmdb"), &whole[..whole.len() / 2]).unwrap();
    assert!(fault(&at("half.mmdb")).contains("damaged"));
}

#[test]
fn addresses_are_in_countries() {
    use postern::ports::Geo as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("countries.mmdb");
    mmdb::countries(&file);
    let geo = postern::store::MaxMindGeo::default();
    let country = |address: &str| geo.country(address.parse().unwrap()).map(|country| (country.code, country.name));
    assert_eq!(country("192.0.2.7"), None, "none configured");
    geo.swap(Some(Countries::read(&file).unwrap()));
    let (germany, japan) = (("DE".to_owned(), "Germany".to_owned()), ("JP".to_owned(), "Japan".to_owned()));
    for address in ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"] {
        assert_eq!(country(address), Some(germany.clone()), "{address}");
    }
    assert_eq!(country("198.51.100.1"), Some(japan), "where it is registered, for want of better");
    for address in ["203.0.113.1", "::1", "127.0.0.1", "0.0.0.0"] {
        assert_eq!(country(address), None, "{address}");
    }
}
