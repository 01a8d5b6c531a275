//! Several cookie domains: one sign-in each, or one for all where the portals hand over.

use crate::harness::{
    browser::Browser,
    client::{Page, Person},
    server::{PASSWORD, POLICIES, Role, Server, Setup},
    upstream::{Seen, Upstream},
    wire::Request,
};

async fn scene(hands_over: bool) -> (Upstream, Server) {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.session = format!(
        "{{ hand_over: {hands_over}, cookies: [ {{ domain: test.localhost }}, \
         {{ domain: other.localhost, portal: \"http://auth.other.localhost:PORT\" }} ] }}"
    );
    setup.route = " }\n  - { name: other, host: app.other.localhost, upstream: app".to_owned();
    setup.policies = format!("{POLICIES}  - {{ name: others, domain: app.other.localhost, policy: one_factor }}\n");
    let server = setup.start().await;
    (upstream, server)
}

struct Addresses {
    app: String,
    auth: String,
    other_app: String,
    other_auth: String,
}

impl Addresses {
    fn of(server: &Server) -> Self {
        let other = |host: &str| format!("http://{}", host.replace("test.localhost", "other.localhost"));
        Self {
            app: format!("http://{}", server.app()),
            auth: format!("http://{}", server.auth()),
            other_app: other(&server.app()),
            other_auth: other(&server.auth()),
        }
    }
}

fn is_at(page: &Page, base: &str) -> bool {
    page.url.as_str().starts_with(&format!("{base}/"))
}

/// What the application says that it saw.
fn user_of(page: &Page) -> String {
    assert_eq!(page.status, 200, "{}: {}", page.url, page.body);
    let seen: Seen =
        serde_json::from_str(&page.body).unwrap_or_else(|fault| panic!("not the echo ({fault}): {}", page.body));
    seen.header("Remote-User").unwrap_or_default().to_owned()
}

async fn signs_in(person: &Person, form: &Page, user: &str) -> Page {
    let welcome = person.sign_in(form, user, PASSWORD).await;
    assert_eq!(welcome.status, 303, "{}", welcome.body);
    person.browse(welcome.location()).await
}

#[tokio::test]
async fn each_cookie_domain_has_a_sign_in_of_its_own() {
    let (_upstream, server) = scene(false).await;
    let at = Addresses::of(&server);
    let person = Person::new();
    for (app, auth, user) in [(&at.app, &at.auth, "alice"), (&at.other_app, &at.other_auth, "bob")] {
        let wanted = format!("{app}/reports?a=b");
        let form = person.browse(&wanted).await;
        assert!(form.status == 200 && is_at(&form, auth), "{}", form.url);
        let page = signs_in(&person, &form, user).await;
        assert_eq!((page.url.as_str(), user_of(&page)), (wanted.as_str(), user.to_owned()));
        assert_eq!(person.load(format!("{auth}/account")).await.status, 200);
    }
    assert_eq!(user_of(&person.load(format!("{}/x", at.app)).await), "alice", "the other sign-in did not touch it");
    // A sign-out is of one domain.
    let question = person.browse(format!("{}/logout", at.auth)).await;
    person.sign_out(&question).await;
    assert!(is_at(&person.browse(format!("{}/x", at.app)).await, &at.auth));
    assert_eq!(user_of(&person.load(format!("{}/x", at.other_app)).await), "bob");
}

#[tokio::test]
async fn a_session_counts_on_its_own_domain_alone_in_both_roles() {
    let (_upstream, server) = scene(false).await;
    let other = |host: String| host.replace("test.localhost", "other.localhost");
    let (here, there) = (server.app(), other(server.app()));
    let bob = server.sign_in("bob").await;
    let request = Request::new("POST", "/auth/login").host(other(server.auth()));
    let body = serde_json::json!({ "username": "bob", "password": PASSWORD });
    let reply = server.portal(request.json(&body)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let cookie = reply.all("Set-Cookie").find(|cookie| cookie.starts_with("postern_session=")).expect("a cookie");
    assert!(cookie.contains("Domain=other.localhost"), "{cookie}");
    let of_there = format!("postern_session={}", reply.set_cookie("postern_session").expect("a value"));
    for role in Role::BOTH {
        for (host, cookie, portal) in [
            (&here, &bob.gate, None),
            (&there, &of_there, None),
            (&here, &of_there, Some(server.auth())),
            (&there, &bob.gate, Some(other(server.auth()))),
        ] {
            let request = Request::get("/members/x").host(host).page().cookie(cookie.clone());
            let reply = server.ask(role, &request).await;
            match portal {
                None => assert_eq!(reply.status, 200, "{role:?} {host}: {reply:?}"),
                Some(portal) => {
                    assert_eq!(reply.status, 302, "{role:?} {host}: {reply:?}");
                    assert!(reply.location().starts_with(&format!("http://{portal}/?rd=")), "{role:?}: {reply:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn one_sign_in_is_handed_over_and_one_sign_out_ends_it() {
    let (_upstream, server) = scene(true).await;
    let at = Addresses::of(&server);
    let person = Person::new();
    let wanted = format!("{}/reports?a=b", at.other_app);
    let form = person.browse(&wanted).await;
    assert!(form.status == 200 && is_at(&form, &at.auth), "people sign in at home: {}", form.url);
    assert!(form.body.contains("app.other.localhost"), "{}", form.body);
    let page = signs_in(&person, &form, "bob").await;
    assert_eq!((page.url.as_str(), user_of(&page)), (wanted.as_str(), "bob".to_owned()));
    assert_eq!(user_of(&person.load(format!("{}/x", at.app)).await), "bob", "home is signed in to as well");
    assert_eq!(person.load(format!("{}/account", at.other_auth)).await.status, 200);
    let question = person.browse(format!("{}/logout", at.other_auth)).await;
    person.sign_out(&question).await;
    for app in [&at.app, &at.other_app] {
        let form = person.browse(format!("{app}/x")).await;
        assert!(form.status == 200 && is_at(&form, &at.auth), "{}", form.url);
    }
    // Who is known at home is asked nothing elsewhere.
    let person = Person::new();
    let form = person.browse(format!("{}/x", at.app)).await;
    signs_in(&person, &form, "alice").await;
    assert_eq!(user_of(&person.browse(format!("{}/y", at.other_app)).await), "alice");
}

/// Browsers have rules of their own about cookies that come with redirects, and about where a form may lead.
#[tokio::test]
async fn a_real_browser_is_handed_over() {
    let (_upstream, server) = scene(true).await;
    let at = Addresses::of(&server);
    let browser = Browser::start().await;
    let wanted = format!("{}/reports?a=b", at.other_app);
    browser.open(&wanted).await;
    let form = browser.url().await;
    assert!(form.starts_with(&format!("{}/hand-over?", at.auth)), "{form}");
    browser.fill("#username", "alice").await;
    browser.fill("#password", PASSWORD).await;
    browser.click("button[type=submit]").await;
    browser.waits_for_url("back at the page", |url| url == wanted).await;
    assert!(browser.text().await.contains("alice@example.com"));
    browser.open(&format!("{}/x", at.app)).await;
    assert!(browser.text().await.contains("alice@example.com"));
    // It signs out there, at a page that leads home again.
    let leaving = form_urlencoded::Serializer::new(String::new()).append_pair("rd", &wanted).finish();
    browser.open(&format!("{}/logout?{leaving}", at.other_auth)).await;
    browser.click("button[type=submit]").await;
    browser.waits_for_url("home again", |url| url.starts_with(&format!("{}/hand-over?", at.auth))).await;
    browser.find("#username").await;
}
