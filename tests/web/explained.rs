//! The denied page tells what the rules say: to people of the groups of `portal.explain_to`, and to nobody else.

use postern::{
    core::{
        answer::Answer,
        client_ip::ClientAddress,
        identity::{Factor, Identity},
        policy::Question,
        target::Target,
        time::Timestamp,
        user::User,
    },
    portal::{Told, render},
};

use crate::harness::{Browser, HTTPS, PASSWORD, World};

const TO_DEV: &str = r#"
portal: { url: "https://auth.example.com", explain_to: ["group:operators", "group:dev"] }
session: { cookies: [ { domain: example.com } ] }
"#;
const HEADING: &str = "What the rules say";

fn denied(rd: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("rd", rd).append_pair("rm", "GET").finish();
    format!("/denied?{query}")
}

#[tokio::test]
async fn whoever_may_know_is_told_why() {
    let world = World::of(TO_DEV).await;
    let rd = "https://app.example.com/admin/x?secret=1";
    let mut browser = Browser::at(&world, HTTPS);
    // Also at once after the password, and wherever the portal says no.
    let first = browser.sign_in("bob", PASSWORD, &[("rd", rd)]).await;
    let root = browser.load(&denied(rd).replace("/denied", "/")).await;
    let again = browser.load(&denied(rd)).await;
    for page in [first, root, again] {
        assert_eq!(page.status, 403, "{}", page.body);
        for told in [
            HEADING,
            "<dd>GET app.example.com/admin/x</dd>",
            "<dd><strong>refuse</strong></dd>",
            "<dd>not admins, policy deny</dd>",
            // One that does not match, one that decides, one that comes too late, one of another host.
            r#"<tr class="no"><th scope="row">admins</th><td>no</td><td>user bob of dev is not group:admins</td></tr>"#,
            r#"<tr class="decides"><th scope="row">not admins</th><td>decides</td>"#,
            r#"<tr class="matched"><th scope="row">members</th><td>yes, too late</td>"#,
            "<summary>1 rule for other hosts</summary>",
            r#"<th scope="row">elsewhere</th><td>no</td><td>host app.example.com is not other.example.org</td>"#,
        ] {
            assert!(page.body.contains(told), "no {told:?} in {}", page.body);
        }
        assert!(!page.body.contains("secret=1</dd>"), "the query is no part of it: {}", page.body);
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !page.body.contains(" style="), "{policy}");
    }
}

#[tokio::test]
async fn the_roles_that_are_held_are_told() {
    let mut world = World::of(TO_DEV).await;
    let policies = r#"
default: deny
roles: { editor: { permissions: ["write:pages"] }, viewer: {} }
bindings: [ { role: editor, subject: "group:dev" }, { role: viewer, subject: "user:alice" } ]
rules: [ { name: viewers, domain: app.example.com, subject: "role:viewer", policy: one_factor } ]
"#;
    world.policies(policies);
    let page = Browser::signed_in(&world, HTTPS, "bob").await.load(&denied("https://app.example.com/x")).await;
    assert!(page.body.contains("<div><dt>Your roles</dt><dd>editor</dd></div>"), "{}", page.body);
}

#[tokio::test]
async fn the_default_is_told_too_and_hostile_names_are_text() {
    let world = World::of(TO_DEV).await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let page = browser.load(&denied("https://app.example.com/script/%3Cimg%20src=x%3E")).await;
    assert!(page.body.contains(HEADING), "{}", page.body);
    assert!(page.body.contains("&#60;script&#62;alert(1)&#60;/script&#62;"), "{}", page.body);
    assert!(page.body.contains("/script/&#60;img src=x&#62;"), "{}", page.body);
    assert!(!page.body.contains("<script") && !page.body.contains("<img"), "{}", page.body);
}

#[tokio::test]
async fn nobody_else_is_told() {
    let rd = "https://app.example.com/admin/x";
    // By default nobody.
    let world = World::https().await;
    let page = Browser::signed_in(&world, HTTPS, "bob").await.load(&denied(rd)).await;
    assert!(page.body.contains("not admins") && !page.body.contains(HEADING), "{}", page.body);

    let world = World::of(TO_DEV).await;
    world.add_user("carol", &["Dev", "developers"]).await;
    let mut carol = Browser::signed_in(&world, HTTPS, "carol").await;
    let page = carol.load(&denied(rd)).await;
    assert!(page.body.contains("not admins") && !page.body.contains(HEADING), "groups are exact: {}", page.body);

    let stranger = Browser::at(&world, HTTPS).load(&denied(rd)).await;
    assert_eq!(stranger.status, 403);
    assert!(!stranger.body.contains(HEADING) && !stranger.body.contains("not admins"), "{}", stranger.body);

    let mut bob = Browser::signed_in(&world, HTTPS, "bob").await;
    // What is not refused, what is not followed, and nothing at all.
    for rd in ["https://app.example.com/x", "https://evil.example/admin/x", "https://other.example.org/", ""] {
        let page = bob.load(&denied(rd)).await;
        assert_eq!(page.status, 403);
        assert!(!page.body.contains(HEADING), "{rd}: {}", page.body);
    }
    assert!(bob.load(&denied(rd)).await.body.contains(HEADING));
    // THREATS 59: every application of the domain may know the session cookie.
    bob.forget("__Host-postern_portal");
    for path in [denied(rd), denied(rd).replace("/denied", "/")] {
        let page = bob.load(&path).await;
        assert!(page.body.contains("not admins") && !page.body.contains(HEADING), "{}", page.body);
    }
}

/// On an application's origin, whose code may read the page, other hosts' rules are counted and not told.
#[tokio::test]
async fn on_an_applications_origin_the_rules_of_other_hosts_are_left_out() {
    let world = World::of(TO_DEV).await;
    let wanted = Target::parse_url("https://app.example.com/admin/x").unwrap();
    let answer = Answer {
        status: http::StatusCode::FORBIDDEN,
        location: None,
        postern_status: None,
        challenge: None,
        retry_after: None,
    };
    let body = |groups: &[&str], verdict: &'static str, is_page_load: bool| {
        let user = User {
            display_name: String::new(),
            ..User::new("bob", groups.iter().map(|&group| group.to_owned()).collect())
        };
        let identity = Identity::new(&user, Factor::One, Timestamp::default(), None).unwrap();
        let question = Question {
            target: &wanted,
            method: "GET",
            client: ClientAddress::Unknown,
            caller: Some(&identity),
            now: Timestamp::default(),
            headers: None,
            route: None,
        };
        let told = Told {
            site: &world.site,
            answer: &answer,
            verdict,
            rejection: None,
            rule: Some("not admins"),
            standing: None,
            identity: Some(&identity),
            request_id: "0123456789abcdef",
            is_page_load,
            wanted: Some(&wanted),
            portal: None,
            question: Some(question),
        };
        String::from_utf8(render(&told).into_body().to_vec()).unwrap()
    };
    let page = body(&["dev"], "refuse", true);
    assert!(page.contains(HEADING) && page.contains("user bob of dev is not group:admins"), "{page}");
    assert!(page.contains("Rules for other hosts are told at the portal alone"), "{page}");
    assert!(!page.contains("other.example.org"), "{page}");
    for page in [body(&["users"], "refuse", true), body(&["dev"], "unavailable", true), body(&["dev"], "refuse", false)]
    {
        assert!(!page.contains(HEADING) && !page.contains("group:admins"), "{page}");
    }
}

#[tokio::test]
async fn a_long_list_is_folded() {
    let mut world = World::of(TO_DEV).await;
    let rules: String = (0..600)
        .map(|number| format!("  - {{ name: r{number}, domain: app.example.com, path: /r/{number}, policy: deny }}\n"))
        .collect();
    world.policies(&format!("default: deny\nrules:\n{rules}"));
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let page = browser.load(&denied("https://app.example.com/r/7")).await;
    let (before, folded) = page.body.split_once("<details>").unwrap();
    assert_eq!(before.matches("<tr class=").count(), 1, "{before}");
    assert!(before.contains(r#"<tr class="decides"><th scope="row">r7</th>"#), "{before}");
    assert!(folded.contains("<summary>The first 500 rules for this host</summary>"));
    assert_eq!(folded.matches("<tr class=").count(), 500);
    assert!(folded.contains("100 rules more: <code>postern policy explain</code>"), "{folded}");
    // The one that decides is told, wherever it stands.
    let page = browser.load(&denied("https://app.example.com/r/590")).await;
    let (before, folded) = page.body.split_once("<details>").unwrap();
    assert!(before.contains(r#"<tr class="decides"><th scope="row">r590</th>"#), "{before}");
    assert!(folded.contains("<summary>The first 501 rules for this host</summary>"));
    let page = browser.load(&denied("https://app.example.com/s")).await;
    let (before, _) = page.body.split_once("<details>").unwrap();
    assert!(before.contains("<dd>none matched; the default is deny</dd>") && !before.contains("<table>"), "{before}");
    let rules: String =
        (0..30).map(|n| format!("  - {{ domain: app.example.com, path: /r/{n}, policy: deny }}\n")).collect();
    world.policies(&format!("default: deny\nrules:\n{rules}"));
    let page = Browser::signed_in(&world, HTTPS, "bob").await.load(&denied("https://app.example.com/r/7")).await;
    assert!(page.body.contains("<summary>All 30 rules for this host</summary>") && !page.body.contains("more: <code>"));
}
