//! One sign-in for several cookie domains (`session.hand_over`): the way from one portal to the next, and everything that must not work on it.

use std::time::Duration;

use crate::harness::{Ask, Browser, PASSWORD, Reply, World};

/// Three domains; people sign in at the first.
const ON_THREE: &str = r#"
portal: { url: "https://auth.example.com" }
session:
  hand_over: true
  cookies:
    - { domain: example.com }
    - { domain: example.net, portal: "https://auth.example.net" }
    - { domain: example.org, portal: "https://auth.example.org" }
"#;

const RULES: &str = r#"
default: deny
rules:
  - { name: closed, domain: app.example.net, path: "/closed/**", policy: deny }
  - { name: members, domain: ["*.example.com", "*.example.net", "*.example.org"], policy: one_factor }
"#;

const HOME: &str = "https://auth.example.com";
const NET: &str = "https://auth.example.net";
const ORG: &str = "https://auth.example.org";
const WANTED: &str = "https://app.example.net/a?b=%2F#part";

async fn three() -> World {
    let mut world = World::of(ON_THREE).await;
    world.policies(RULES);
    world
}

fn wants(rd: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("rd", rd).append_pair("rm", "GET").finish();
    format!("/?{query}")
}

/// Below a portal.
fn path_of<'r>(reply: &'r Reply, portal: &str) -> &'r str {
    assert_eq!(reply.status, 303, "{reply:#?}");
    reply.location().strip_prefix(portal).unwrap_or_else(|| panic!("not at {portal}: {reply:#?}"))
}

/// One browser: what it keeps for each of the three origins.
struct Person<'w> {
    home: Browser<'w>,
    net: Browser<'w>,
    org: Browser<'w>,
}

impl<'w> Person<'w> {
    fn of(world: &'w World) -> Self {
        Self { home: Browser::at(world, HOME), net: Browser::at(world, NET), org: Browser::at(world, ORG) }
    }

    async fn signed_in(world: &'w World, user: &str) -> Self {
        let mut person = Self::of(world);
        person.home = Browser::signed_in(world, HOME, user).await;
        person
    }

    /// What home is asked for by the portal of `example.net`.
    async fn sent_home(&mut self) -> String {
        let sent = self.net.load(&wants(WANTED)).await;
        let path = path_of(&sent, HOME).to_owned();
        assert!(path.starts_with("/hand-over?"), "{path}");
        path
    }

    /// The way back, where home knows the person.
    async fn code(&mut self) -> String {
        let asked = self.sent_home().await;
        path_of(&self.home.load(&asked).await, NET).to_owned()
    }

    async fn handed_over(world: &'w World, user: &str) -> Self {
        let mut person = Self::signed_in(world, user).await;
        let code = person.code().await;
        assert_eq!(person.net.load(&code).await.location(), WANTED);
        person
    }
}

/// Nobody was signed in, and the page says why.
fn assert_refused(reply: &Reply) {
    assert_eq!(reply.status, 403, "{reply:#?}");
    assert!(reply.is_page() && reply.body.contains("did not arrive"), "{reply:#?}");
    assert!(reply.cookie("postern_session").is_none() && reply.cookie("__Host-postern_portal").is_none(), "{reply:#?}");
}

fn query_of(path: &str, name: &str) -> String {
    let query = path.split_once('?').unwrap().1;
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).unwrap().1.into_owned()
}

fn with_query(path: &str, name: &str, value: &str) -> String {
    let (path, query) = path.split_once('?').unwrap();
    let pairs = form_urlencoded::parse(query.as_bytes());
    let changed = pairs.map(|(key, old)| if key == name { (key, value.into()) } else { (key, old) });
    format!("{path}?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(changed).finish())
}

#[tokio::test]
async fn who_signs_in_at_home_is_signed_in_everywhere() {
    let world = three().await;
    let mut person = Person::of(&world);
    let asked = person.sent_home().await;
    let form = person.home.load(&asked).await;
    assert_eq!(form.status, 200, "{form:#?}");
    assert!(form.body.contains("to go on to <strong>app.example.net</strong>"), "{}", form.body);
    // Chromium looks at each redirect after a form.
    let policy = form.header("content-security-policy").unwrap();
    assert!(policy.contains("https://*.example.net:*"), "{policy}");
    let fields = ["csrf_token", "rd", "rm", "state"].map(|name| (name, form.field(name)));
    let mut fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    fields.extend([("username", "bob"), ("password", "wrong")]);
    let again = person.home.post("/", &fields).await;
    assert_eq!((again.status.as_u16(), again.field("state")), (401, query_of(&asked, "state")));
    *fields.last_mut().unwrap() = ("password", PASSWORD);
    let given = person.home.post("/", &fields).await;
    let code = path_of(&given, NET).to_owned();
    world.recorded();
    let arrived = person.net.load(&code).await;
    assert_eq!(arrived.location(), WANTED);
    let events: Vec<_> = world.recorded().into_iter().map(|event| (event.event, event.user, event.detail)).collect();
    assert_eq!(events, [("hand_over", Some("bob".to_owned()), "accepted")]);
    assert!(person.net.is_signed_in().await && person.home.is_signed_in().await && !person.org.is_signed_in().await);
    // At the next nobody is asked anything, and what was handed over opens the account there too.
    let sent = person.org.load(&wants("https://app.example.org/")).await;
    let back = person.home.load(path_of(&sent, HOME)).await;
    let arrived = person.org.load(path_of(&back, ORG)).await;
    assert_eq!(arrived.location(), "https://app.example.org/");
    assert!(person.org.is_signed_in().await);
    assert_eq!(person.org.load("/account").await.status, 200);
}

#[tokio::test]
async fn what_is_handed_over_is_the_same_sign_in_and_no_younger() {
    let world = three().await;
    let mut person = Person::of(&world);
    person.home.sign_in("alice", PASSWORD, &[("remember_me", "true")]).await;
    world.pass(Duration::from_secs(3600));
    let code = person.code().await;
    let arrived = person.net.load(&code).await;
    let set: Vec<_> = arrived.set_cookies().into_iter().filter(|set| set.starts_with("postern_session=")).collect();
    assert!(set.len() == 1 && set[0].contains("Domain=example.net") && set[0].contains("Max-Age="), "{set:?}");
    let sessions = world.stores.sessions.list(Some("alice")).await.unwrap();
    let of = |domain: &str| sessions.iter().find(|session| session.domain == domain).unwrap();
    let (home, net) = (of("example.com"), of("example.net"));
    assert_eq!(
        (net.factor, net.remembered, net.created_at, net.signed_in_at),
        (home.factor, home.remembered, home.created_at, home.signed_in_at)
    );
    assert!(net.id != home.id && net.gate_hash != home.gate_hash && net.portal_hash != home.portal_hash);
}

#[tokio::test]
async fn a_code_is_taken_once_and_for_seconds() {
    let world = three().await;
    let mut person = Person::handed_over(&world, "bob").await;
    person.net = Browser::at(&world, NET);
    let code = person.code().await;
    assert_eq!(person.net.load(&code).await.status, 303);
    world.recorded();
    assert_refused(&person.net.load(&code).await);
    assert_eq!(world.recorded().pop().map(|event| event.detail), Some("unknown"));
    let mut late = Person::signed_in(&world, "bob").await;
    let code = late.code().await;
    world.pass(Duration::from_secs(30));
    assert_refused(&late.net.load(&code).await);
    assert!(!late.net.is_signed_in().await);
    // Whoever comes in time.
    let code = late.code().await;
    world.pass(Duration::from_millis(29_900));
    assert_eq!(late.net.load(&code).await.location(), WANTED);
}

/// An attacker's code in a victim's browser would sign the victim in as the attacker; a victim's in the attacker's, the other way round.
#[tokio::test]
async fn a_code_counts_in_the_browser_that_asked_for_it_and_for_what_it_asked() {
    let world = three().await;
    let mut attacker = Person::signed_in(&world, "alice").await;
    let mut victim = Person::signed_in(&world, "bob").await;
    let planted = attacker.code().await;
    assert_refused(&victim.net.load(&planted).await);
    assert!(!victim.net.is_signed_in().await);
    assert_refused(&attacker.net.load(&planted).await);

    // The state of the attacker in the victim's browser.
    victim.sent_home().await;
    let asked = attacker.sent_home().await;
    let stolen = path_of(&victim.home.load(&asked).await, NET).to_owned();
    assert_refused(&victim.net.load(&stolen).await);
    let asked = attacker.sent_home().await;
    let leaked = path_of(&victim.home.load(&asked).await, NET).to_owned();
    victim.net.forget("__Host-postern_csrf");
    assert_refused(&victim.net.load(&leaked).await);
    assert!(!victim.net.is_signed_in().await && !attacker.net.is_signed_in().await);
}

#[tokio::test]
async fn nothing_of_what_was_asked_can_be_changed_on_the_way() {
    let world = three().await;
    let mut person = Person::signed_in(&world, "bob").await;
    for (name, value) in [
        ("rd", "https://app.example.net/another"),
        ("rm", "POST"),
        ("state", "1800000000000.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ] {
        let asked = person.sent_home().await;
        let changed = with_query(&asked, name, value);
        assert_ne!(asked, changed);
        let given = person.home.load(&changed).await;
        assert_refused(&person.net.load(path_of(&given, NET)).await);
        assert_eq!(world.recorded().pop().map(|event| event.detail), Some("other_browser"), "{name}");
    }
    // Another domain's page goes to the other domain's portal, where the state is nobody's.
    let asked = person.sent_home().await;
    let given = person.home.load(&with_query(&asked, "rd", "https://app.example.org/")).await;
    assert_refused(&person.org.load(path_of(&given, ORG)).await);
    // A code for the one, brought to the other.
    let code = person.code().await;
    person.org.toss("__Host-postern_csrf", person.net.jar("__Host-postern_csrf").unwrap());
    assert_refused(&person.org.load(&code).await);
    assert_eq!(world.recorded().pop().map(|event| event.detail), Some("other_domain"));
    for code in ["", "?code=", "?code=x", "?code=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert_refused(&person.net.load(&format!("/hand-over/accept{code}")).await);
    }
    assert!(!person.net.is_signed_in().await && !person.org.is_signed_in().await);
}

#[tokio::test]
async fn a_state_is_given_a_quarter_of_an_hour() {
    let world = three().await;
    let mut person = Person::signed_in(&world, "bob").await;
    let asked = person.sent_home().await;
    world.pass(Duration::from_secs(15 * 60));
    let given = person.home.load(&asked).await;
    assert_refused(&person.net.load(path_of(&given, NET)).await);
}

#[tokio::test]
async fn what_ended_meanwhile_is_not_handed_over() {
    let world = three().await;
    let mut person = Person::signed_in(&world, "bob").await;
    let code = person.code().await;
    assert_eq!(person.home.api("POST", "/auth/logout").await.status, 204);
    world.recorded();
    assert_refused(&person.net.load(&code).await);
    assert_eq!(world.recorded().pop().map(|event| event.detail), Some("session_ended"));

    let mut person = Person::signed_in(&world, "bob").await;
    let code = person.code().await;
    let disabled = postern::ports::UserChange { disabled: Some(true), ..Default::default() };
    world.stores.users.update("bob", disabled).await.unwrap();
    assert_refused(&person.net.load(&code).await);

    // Between the look at it and the new session.
    let mut person = Person::signed_in(&world, "alice").await;
    let code = person.code().await;
    world.recorded();
    world.sessions.ends_parents.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_refused(&person.net.load(&code).await);
    assert_eq!(world.recorded().pop().map(|event| event.detail), Some("session_ended"));
}

/// Where another domain became home: there is one step from a sign-in to what ends with it, and no two.
#[tokio::test]
async fn what_was_handed_over_is_not_handed_on() {
    let mut world = three().await;
    let jar = Person::handed_over(&world, "bob").await.net.jar;
    std::sync::Arc::get_mut(&mut world.site).unwrap().cookies.rotate_left(1);
    let mut person = Person::of(&world);
    person.net.jar = jar;
    assert!(person.net.is_signed_in().await);
    let sent = person.org.load(&wants("https://app.example.org/")).await;
    let form = person.net.load(path_of(&sent, NET)).await;
    assert_eq!(form.status, 200, "{form:#?}");
    let fields = ["csrf_token", "rd", "rm", "state"].map(|name| (name, form.field(name)));
    let mut fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    fields.extend([("username", "bob"), ("password", PASSWORD)]);
    let given = person.net.post("/", &fields).await;
    assert_eq!(person.org.load(path_of(&given, ORG)).await.location(), "https://app.example.org/");
}

/// THREATS 59: every application of the home domain sees that cookie.
#[tokio::test]
async fn threat_59_the_session_cookie_alone_hands_nothing_over() {
    let world = three().await;
    let mut person = Person::signed_in(&world, "bob").await;
    let asked = person.sent_home().await;
    person.home.forget("__Host-postern_portal");
    let form = person.home.load(&asked).await;
    assert_eq!(form.status, 200);
    form.field("csrf_token");
}

#[tokio::test]
async fn threat_43_44_home_sends_nobody_anywhere_but_to_a_portal_of_ours() {
    let world = three().await;
    let mut person = Person::signed_in(&world, "bob").await;
    let asked = person.sent_home().await;
    for rd in [
        "",
        "https://evil.example/",
        "//app.example.net/",
        "https://app.example.net@evil.example/",
        "https://app.example.net.evil.example/",
        "https://evilexample.net/",
        "http://app.example.net/",
        "javascript:alert(1)",
        "https://app.example.net\\@evil.example/",
        "https://app.example.net./",
        // Its own domain is no other's.
        "https://app.example.com/",
    ] {
        let reply = person.home.load(&with_query(&asked, "rd", rd)).await;
        assert_eq!(reply.status, 400, "{rd}: {reply:#?}");
    }
    for state in ["", "a b", "<script>", &"1".repeat(101)] {
        assert_eq!(person.home.load(&with_query(&asked, "state", state)).await.status, 400, "{state}");
    }
    // Only home hands over, and only the others accept.
    assert_eq!(person.net.load(&asked).await.status, 400);
    assert_eq!(person.home.load("/hand-over/accept?code=x").await.status, 404);
}

#[tokio::test]
async fn one_sign_out_ends_what_was_handed_over() {
    for at_home in [true, false] {
        let world = three().await;
        let mut person = Person::handed_over(&world, "bob").await;
        let sent = person.org.load(&wants("https://app.example.org/")).await;
        let back = person.home.load(path_of(&sent, HOME)).await;
        assert_eq!(person.org.load(path_of(&back, ORG)).await.status, 303);
        let mut other = Person::handed_over(&world, "bob").await;
        let leaving = if at_home { &mut person.home } else { &mut person.net };
        assert_eq!(leaving.api("POST", "/auth/logout").await.status, 204);
        for browser in [&mut person.home, &mut person.net, &mut person.org] {
            assert!(!browser.is_signed_in().await, "{at_home}");
        }
        assert!(
            other.home.is_signed_in().await && other.net.is_signed_in().await,
            "another sign-in of the same person"
        );
    }
}

#[tokio::test]
async fn a_sign_in_is_told_once_however_many_domains_it_reaches() {
    let world = three().await;
    let mut person = Person::handed_over(&world, "bob").await;
    let mut other = Person::handed_over(&world, "bob").await;
    let sent = person.org.load(&wants("https://app.example.org/")).await;
    let back = person.home.load(path_of(&sent, HOME)).await;
    assert_eq!(person.org.load(path_of(&back, ORG)).await.status, 303);
    for browser in [&mut person.home, &mut person.net, &mut person.org] {
        let listed = browser.api("GET", "/auth/sessions").await.json();
        let listed = listed["sessions"].as_array().unwrap();
        let own = listed.iter().filter(|session| session["current"] == true).count();
        assert_eq!((listed.len(), own), (2, 1), "{listed:?}");
        let page = browser.load("/account").await;
        assert!(page.status == 200 && page.body.contains("this browser"), "{}", page.body);
    }
    // All others: none of those that belong to this one.
    let token = person.net.load("/account").await.field("csrf_token");
    let ended = person.net.post("/account/sessions/end-others", &[("csrf_token", &token)]).await;
    assert!(ended.status.as_u16() < 400, "{ended:#?}");
    for browser in [&mut person.home, &mut person.net, &mut person.org] {
        assert!(browser.is_signed_in().await);
    }
    assert!(!other.home.is_signed_in().await && !other.net.is_signed_in().await);
}

/// A sign-in in place of the one at home ends what came from it; one in place of what was handed over ends that alone.
#[tokio::test]
async fn a_new_sign_in_ends_what_came_from_the_old_one() {
    let world = three().await;
    let mut person = Person::handed_over(&world, "bob").await;
    assert_eq!(person.net.sign_in("bob", PASSWORD, &[]).await.status, 303);
    assert!(person.home.is_signed_in().await && person.net.is_signed_in().await);
    let mut person = Person::handed_over(&world, "bob").await;
    assert_eq!(person.home.sign_in("bob", PASSWORD, &[]).await.status, 303);
    assert!(person.home.is_signed_in().await && !person.net.is_signed_in().await);
}

/// THREATS 70.
#[tokio::test]
async fn threat_70_nothing_goes_round_in_circles() {
    let world = three().await;
    // A page that the rules refuse.
    let mut person = Person::signed_in(&world, "bob").await;
    let sent = person.net.load(&wants("https://app.example.net/closed/x")).await;
    let back = person.home.load(path_of(&sent, HOME)).await;
    assert_eq!(person.net.load(path_of(&back, NET)).await.status, 403);
    // A browser that keeps no cookie of the other portal's.
    let sent = world.send(Ask::page(format!("{NET}{}", wants(WANTED)))).await;
    let back = person.home.load(path_of(&sent, HOME)).await;
    assert_refused(&world.send(Ask::page(back.location())).await);
    // Who leads nowhere, or has just signed out, is at the portal that they came to.
    for path in ["/", "/?rd=https://evil.example/", "/?signed_out"] {
        let mut stranger = Browser::at(&world, NET);
        assert_eq!(stranger.load(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn without_the_setting_each_domain_is_signed_in_to_by_itself() {
    let yaml = ON_THREE.replace("hand_over: true", "hand_over: false");
    let mut world = World::of(&yaml).await;
    world.policies(RULES);
    let mut person = Person::signed_in(&world, "bob").await;
    assert_eq!(person.net.load(&wants(WANTED)).await.status, 200, "the form");
    assert_eq!(person.net.sign_in("bob", PASSWORD, &[("rd", WANTED), ("rm", "GET")]).await.location(), WANTED);
    assert_eq!(person.home.api("POST", "/auth/logout").await.status, 204);
    assert!(person.net.is_signed_in().await, "another sign-in");
    let query = "/hand-over?rd=https%3A%2F%2Fapp.example.net%2F&rm=GET&state=1.x";
    assert_eq!(person.home.load(query).await.status, 400);
    assert_eq!(person.net.load("/hand-over/accept?code=x").await.status, 404);
}
