//! What every page carries, and what never gets into one.

use http::StatusCode;
use postern::{
    core::{
        answer::Answer,
        identity::{Factor, Identity},
        target::Target,
        time::Timestamp,
        user::User,
    },
    portal::{Told, render, render_upstream_failure},
};

use crate::harness::{Ask, Browser, HTTPS, PASSWORD, Reply, World};

/// One of each.
async fn every_page(world: &World) -> Vec<(&'static str, Reply)> {
    let mut stranger = Browser::at(world, HTTPS);
    let mut browser = Browser::signed_in(world, HTTPS, "bob").await;
    let vault = "/?rd=https%3A%2F%2Fapp.example.com%2Fvault%2Fx";
    let admin = "/?rd=https%3A%2F%2Fapp.example.com%2Fadmin%2Fx";
    vec![
        ("sign in", stranger.load("/").await),
        ("wrong password", stranger.sign_in("bob", "wrong", &[]).await),
        ("stale form", stranger.post("/logout", &[]).await),
        ("account of nobody", stranger.load("/account").await),
        ("not found", stranger.load("/nowhere").await),
        ("denied, nobody", stranger.load("/denied").await),
        ("account", browser.load("/account").await),
        ("sign out", browser.load("/logout").await),
        ("second factor", browser.load(vault).await),
        ("denied", browser.load(admin).await),
    ]
}

#[tokio::test]
async fn every_page_carries_its_headers() {
    let world = World::https().await;
    for (what, page) in every_page(&world).await {
        assert!(page.is_page(), "{what}: {page:#?}");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
            ("x-request-id", "0123456789abcdef"),
        ] {
            assert_eq!(page.header(name), Some(value), "{what}: {name}");
        }
        let policy = page.header("content-security-policy").unwrap();
        for directive in ["default-src 'none'; ", "frame-ancestors 'none'", "base-uri 'none'", "form-action "] {
            assert!(policy.contains(directive), "{what}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{what}: {policy}");
        let has_form = page.body.contains("<form");
        let form_action = policy.split("; ").find(|directive| directive.starts_with("form-action")).unwrap();
        let wanted = if has_form {
            "form-action 'self' https://example.com:* https://*.example.com:*"
        } else {
            "form-action 'none'"
        };
        assert_eq!(form_action, wanted, "{what}");
    }
}

/// The one inline style is the one that the policy names.
#[tokio::test]
async fn the_policy_names_the_style_and_there_is_no_script() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use sha2::{Digest as _, Sha256};
    let world = World::https().await;
    for (what, page) in every_page(&world).await {
        let style = page.body.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let hash = format!("'sha256-{}'", STANDARD.encode(Sha256::digest(style)));
        assert!(page.header("content-security-policy").unwrap().contains(&hash), "{what}");
        let rest = page.body.replace(style, "");
        assert!(!rest.contains(" style=") && !rest.contains("<script") && !rest.contains(" onclick"), "{what}");
        assert!(!rest.contains("http-equiv"), "{what}");
    }
}

#[tokio::test]
async fn every_page_can_be_heard_and_walked_by_keyboard() {
    let world = World::https().await;
    for (what, page) in every_page(&world).await {
        let body = &page.body;
        assert!(body.starts_with("<!doctype html>\n<html lang=\"en\">"), "{what}");
        for once in ["<main", "<header", "<h1", "<title>", "name=\"viewport\""] {
            assert_eq!(body.matches(once).count(), 1, "{what}: {once}");
        }
        assert!(!body.contains("tabindex"), "{what}");
        assert!(!body.contains("user-scalable") && !body.contains("maximum-scale"), "{what}");
        let ids: Vec<&str> = body.split(" id=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
        let mut single = ids.clone();
        single.sort_unstable();
        single.dedup();
        assert_eq!(single.len(), ids.len(), "{what}: an id stands twice");
        // Whatever is typed into has a label of its own.
        for input in body.split("<input").skip(1).map(|rest| rest.split_once('>').unwrap().0) {
            if input.contains("type=\"text\"") || input.contains("type=\"password\"") {
                let id = input.split_once(" id=\"").unwrap().1.split_once('"').unwrap().0;
                assert!(body.contains(&format!("<label for=\"{id}\">")), "{what}: {input}");
            }
        }
    }
}

/// A name, a group, a rule and an address are text, whatever stands in them.
#[tokio::test]
async fn text_of_others_stays_text() {
    let world = World::https().await;
    let name = "<script>alert('x')</script>\"&";
    world.add_user(name, &["dev", "<b>\"x\"</b>"]).await;
    let mut browser = Browser::at(&world, HTTPS);
    let rd = "https://app.example.com/script/<img%20src=x>?\"><script>";
    let typed =
        browser.sign_in("\"><script>alert(1)</script>", "wrong", &[("rd", "\"><script>"), ("rm", "\"><script>")]).await;
    let mut pages = vec![("what was typed", typed)];
    let denied = browser
        .sign_in(name, PASSWORD, &[("rd", "https://app.example.com/script/%3Cimg%20src=x%3E?%22%3E%3Cscript%3E")])
        .await;
    assert_eq!(denied.status, 403, "{denied:#?}");
    assert!(denied.body.contains("&#60;script&#62;alert(1)"), "the rule is named: {}", denied.body);
    pages.push(("denied", denied));
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("rd", rd).finish();
    for path in ["/account", "/logout", "/two-factor", "/denied", "/nowhere/'x'"] {
        pages.push(("other pages", browser.load(&format!("{path}?{query}")).await));
    }
    for (what, page) in pages {
        assert!(page.is_page(), "{what}: {page:#?}");
        let rest = page.body.split_once("</style>").unwrap().1;
        for bad in ["<script", "<img", "<b>"] {
            assert!(!rest.contains(bad), "{what}: {bad} in {rest}");
        }
    }
    let me = browser.api("GET", "/auth/me").await;
    assert_eq!(me.json()["user"], name);
    assert_eq!(me.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let world = World::https().await;
    for path in ["/", "/denied", "/auth/health", "/.well-known/jwks.json", "/favicon.svg", "/favicon.ico"] {
        let get = world.send(Ask::get(format!("{HTTPS}{path}")).header("accept", "text/html")).await;
        let head = world.send(Ask::new("HEAD", format!("{HTTPS}{path}")).header("accept", "text/html")).await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert_eq!(head.header("content-security-policy"), get.header("content-security-policy"), "{path}");
        assert!(head.body.is_empty() && !get.body.is_empty(), "{path}");
    }
    let icon = world.send(Ask::get(format!("{HTTPS}/favicon.svg"))).await;
    assert_eq!(icon.header("content-type"), Some("image/svg+xml"));
    assert!(icon.body.starts_with("<svg ") && !icon.body.contains("ACCENT"));
}

/// The answers that are shown on an application's host, by both roles.
#[tokio::test]
async fn answers_on_other_hosts_are_pages_or_problems() {
    let world = World::https().await;
    let user = User { display_name: String::new(), ..User::new("<b>bob</b>", Vec::new()) };
    let identity = Identity::new(&user, Factor::One, Timestamp::default(), None).unwrap();
    let wanted = Target::parse_url("https://app.example.com/admin/x?y=%3Cb%3E").unwrap();
    let portal = url::Url::parse(HTTPS).unwrap();
    let answer = Answer {
        status: StatusCode::FORBIDDEN,
        location: None,
        postern_status: None,
        challenge: None,
        retry_after: None,
    };
    let told = |is_page_load: bool| Told {
        site: &world.site,
        answer: &answer,
        verdict: "refuse",
        rejection: None,
        rule: Some("<script>alert(1)</script>"),
        standing: None,
        identity: Some(&identity),
        request_id: "0123456789abcdef",
        is_page_load,
        wanted: Some(&wanted),
        portal: Some(&portal),
        question: None,
    };
    let page = render(&told(true));
    assert_eq!(page.status(), 403);
    let body = std::str::from_utf8(page.body()).unwrap();
    for fact in [
        "&#60;b&#62;bob",
        "&#60;script&#62;",
        "0123456789abcdef",
        "/logout?rd=https%3A%2F%2Fapp.example.com%2Fadmin%2Fx%3Fy%3D%253Cb%253E",
    ] {
        assert!(body.contains(fact), "{fact}: {body}");
    }
    assert!(!body.contains("<script") && !body.contains("<b>") && !body.contains("favicon"));
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'none'"), "{policy}");
    assert_eq!(page.headers()["x-postern-rule"], "<script>alert(1)</script>");

    let problem = render(&told(false));
    assert_eq!(problem.headers()["content-type"], "application/problem+json");
    let body: serde_json::Value = serde_json::from_slice(problem.body()).unwrap();
    assert_eq!((&body["code"], &body["status"]), (&"access_denied".into(), &403.into()));

    for (status, says, code) in [
        (StatusCode::BAD_GATEWAY, "does not answer", "upstream_unreachable"),
        (StatusCode::GATEWAY_TIMEOUT, "takes too long", "upstream_timeout"),
    ] {
        let page = render_upstream_failure(&world.site, status, "0123456789abcdef", true);
        assert_eq!(page.status(), status);
        let body = std::str::from_utf8(page.body()).unwrap();
        assert!(body.contains(says) && body.contains("0123456789abcdef"), "{body}");
        let problem = render_upstream_failure(&world.site, status, "0123456789abcdef", false);
        let body: serde_json::Value = serde_json::from_slice(problem.body()).unwrap();
        assert_eq!(body["code"], code);
    }
}
