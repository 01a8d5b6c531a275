//! A real Chromium makes the whole journey, in both roles. What it saw is kept in `target/screenshots`.

use serde_json::json;

use crate::harness::{
    DOMAIN,
    browser::Browser,
    front::Front,
    port::Port,
    proxy::Kind,
    server::{PASSWORD, Role, Server, Setup},
    tls,
    upstream::Upstream,
    wire::Request,
};

#[tokio::test]
async fn the_whole_journey_at_the_edge() {
    journey(&Front::edge().await, &Browser::start().await, "edge").await;
}

#[tokio::test]
async fn the_whole_journey_behind_nginx() {
    journey(&Front::behind(Kind::Nginx).await, &Browser::start().await, "nginx").await;
}

#[tokio::test]
async fn the_whole_journey_behind_caddy() {
    journey(&Front::behind(Kind::Caddy).await, &Browser::start().await, "caddy").await;
}

/// No page needs a script.
#[tokio::test]
async fn the_whole_journey_without_scripts() {
    let never = json!({ "profile.managed_default_content_settings.javascript": 2 });
    let browser = Browser::start_with(&[], &never).await;
    browser
        .open("data:text/html,<p id=p>off</p><script>document.getElementById('p').textContent = 'on'</script>")
        .await;
    assert_eq!(browser.text().await, "off", "scripts run");
    journey(&Front::edge().await, &browser, "no-scripts").await;
}

async fn journey(front: &Front, browser: &Browser, name: &str) {
    let picture = |step: &str| format!("{name}-{step}");
    let wanted = front.app("/reports/a%20b?year=2026&q=x%2Fy");

    // A deep link leads to the portal, and says where it will lead on.
    browser.open(&wanted).await;
    let portal = browser.url().await;
    assert!(portal.starts_with(&front.portal("/?rd=")), "{portal}");
    assert!(browser.text().await.contains("app.test.localhost"));
    browser.waits_for_focus("username").await;
    browser.screenshot(&picture("1-sign-in")).await;

    // A wrong password is told beside its field.
    sign_in(browser, "alice", "not her password").await;
    browser.find(".field:has(#password) [role=alert]").await;
    browser.find("#password[aria-invalid=true][aria-describedby=problem]").await;
    browser.waits_for_focus("password").await;
    // The name is still there.
    browser.find("#username[value=alice]").await;
    browser.screenshot(&picture("2-wrong-password")).await;

    // The right one leads back to the very page.
    sign_in(browser, "alice", PASSWORD).await;
    browser.waits_for_url("back at the page", |url| url == wanted).await;
    let page = browser.text().await;
    assert!(page.contains("alice@example.com") && page.contains("/reports/a%20b?year=2026&q=x%2Fy"), "{page}");
    browser.open(&front.app("/admin/x")).await;
    assert!(browser.text().await.contains("\"/admin/x\""));

    ends_her_other_sessions(front, browser, &picture("3-account")).await;
    signs_out(front, browser, &picture("4-sign-out")).await;
    is_refused_and_signs_in_as_somebody_else(front, browser, &picture("5-denied")).await;
    is_asked_for_a_second_factor(front, browser, &picture("6-second-factor")).await;
}

/// The account page shows where else she is signed in, ends one of these, then all of them, and never itself.
async fn ends_her_other_sessions(front: &Front, browser: &Browser, picture: &str) {
    let server = &front.server;
    let phone = [("User-Agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1")];
    let others =
        [server.sign_in_with("alice", &phone).await, server.sign_in("alice").await, server.sign_in("alice").await];
    let passes = async |cookie: &str| {
        let page = Request::get("/x").page().cookie(cookie.to_owned());
        server.ask(Role::ForwardAuth, &page).await.status == 200
    };
    let bob = server.sign_in("bob").await;

    browser.open(&front.portal("/account")).await;
    let account = browser.text().await;
    for told in ["Alice Ä.", "alice@example.com", "admins, dev", "Chrome on Linux", "this browser", "iPhone"] {
        assert!(account.contains(told), "no {told:?} in {account}");
    }
    assert_eq!(browser.count(".sessions li").await, 4);
    browser.screenshot(&format!("{picture}-1")).await;

    let end = format!("form[action$='/account/sessions/{}/end'] button", others[0].session_id);
    browser.click(&end).await;
    browser.find("[role=status]").await;
    browser.waits_for_count(".sessions li", 3).await;
    assert!(!passes(&others[0].gate).await && passes(&others[1].gate).await && passes(&others[2].gate).await);
    browser.screenshot(&format!("{picture}-2-one-ended")).await;

    browser.click("form[action$='/end-others'] button").await;
    browser.find("[role=status]").await;
    browser.waits_for_count(".sessions li", 1).await;
    assert!(!passes(&others[1].gate).await && !passes(&others[2].gate).await);
    assert!(passes(&bob.gate).await, "nobody else's");
    browser.screenshot(&format!("{picture}-3-all-others-ended")).await;
    browser.open(&front.app("/admin/x")).await;
    assert!(browser.text().await.contains("\"/admin/x\""), "this browser stays signed in");
}

/// Signing out is asked for, then done.
async fn signs_out(front: &Front, browser: &Browser, picture: &str) {
    browser.open(&front.portal("/logout")).await;
    assert!(browser.text().await.contains("Sign out?"));
    browser.screenshot(picture).await;
    browser.follow("Stay signed in").await;
    browser.waits_for_url("the account page", |url| url == front.portal("/account")).await;
    browser.open(&front.portal("/logout")).await;
    browser.click("form button[type=submit]").await;
    browser.find("#username").await;
    browser.open(&front.app("/x")).await;
    browser.waits_for_url("asked to sign in again", |url| url.starts_with(&front.portal("/?rd="))).await;
}

/// The wrong person is told why, and can make way for the right one.
async fn is_refused_and_signs_in_as_somebody_else(front: &Front, browser: &Browser, picture: &str) {
    browser.open(&front.app("/admin/x?from=mail")).await;
    sign_in(browser, "bob", PASSWORD).await;
    let denied =
        told_why(browser, "You may not open this page", &["bob", "app.test.localhost/admin/x", "not admins"]).await;
    browser.screenshot(&format!("{picture}-1")).await;
    if front.port() == front.server.edge() {
        // The gate itself shows the same page; behind a proxy its answer is the proxy's.
        browser.open(&front.app("/admin/x?from=mail")).await;
        let at_the_gate = told_why(browser, "You may not open this page", &["bob", "not admins"]).await;
        assert_ne!(at_the_gate, denied, "each has its own request id");
        browser.screenshot(&format!("{picture}-2-at-the-gate")).await;
    }
    browser.follow("Sign in as somebody else").await;
    browser.waits_for_url("the question", |url| url.starts_with(&front.portal("/logout"))).await;
    browser.click("form button[type=submit]").await;
    browser.find("#username").await;
    browser.screenshot(&format!("{picture}-3-somebody-else")).await;
    sign_in(browser, "alice", PASSWORD).await;
    browser.waits_for_url("where bob wanted to be", |url| url == front.app("/admin/x?from=mail")).await;
    assert!(browser.text().await.contains("alice@example.com"));
}

/// For people to judge: the table of rules, wide and on a phone, where it must not scroll sideways.
#[tokio::test]
async fn the_rules_are_told_as_a_table() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.portal = setup.portal.replace(" }", ", explain_to: [\"group:dev\"] }");
    setup.policies += "  - { name: grafana, domain: grafana.example.org, policy: one_factor }\n";
    let server = setup.start().await;
    let (browser, wanted) = (Browser::start().await, format!("http://{}/admin/x", server.app()));
    let fits = "return document.documentElement.scrollWidth <= window.innerWidth";
    browser.open(&wanted).await;
    sign_in(&browser, "bob", PASSWORD).await;
    browser.waits_for_text("What the rules say").await;
    browser.click("summary").await;
    browser.waits_for_text("grafana.example.org").await;
    browser.screenshot("explained-1-portal").await;
    browser.open(&wanted).await;
    browser.waits_for_text("told at the portal alone").await;
    browser.screenshot("explained-2-edge").await;
    browser.resize(390, 844).await;
    browser.open(&wanted).await;
    browser.waits_for_text("What the rules say").await;
    assert_eq!(browser.run(fits).await, true);
    browser.screenshot("explained-3-phone").await;
}

/// One factor where two are needed: a page that says so, from the gate and from the sign-in form, never a circle.
async fn is_asked_for_a_second_factor(front: &Front, browser: &Browser, picture: &str) {
    let heading = "A second factor is needed";
    browser.open(&front.app("/vault/x")).await;
    told_why(browser, heading, &["alice", "app.test.localhost/vault/x", "vault"]).await;
    assert!(browser.url().await.starts_with(&front.portal("/?rd=")), "{}", browser.url().await);
    browser.screenshot(picture).await;
    browser.follow("Sign in as somebody else").await;
    browser.click("form button[type=submit]").await;
    browser.find("#username").await;
    sign_in(browser, "bob", PASSWORD).await;
    told_why(browser, heading, &["bob", "app.test.localhost/vault/x", "vault"]).await;
}

/// The request id, beside the other facts.
async fn told_why(browser: &Browser, heading: &str, facts: &[&str]) -> String {
    browser.waits_for_text(heading).await;
    let page = browser.text().await;
    for fact in facts {
        assert!(page.contains(fact), "no {fact:?} in {page}");
    }
    let id = browser.text_of("dd code").await;
    assert!(id.len() >= 16, "request id {id:?}");
    id
}

/// The browser checks the policy of the form's page again on the redirect that follows: to another host, and another port.
#[tokio::test]
async fn the_policy_for_forms_reaches_applications_on_other_ports_and_nobody_else() {
    let upstream = Upstream::start().await;
    let second = Port::free();
    let mut setup = Setup::with(&upstream).behind(&second);
    setup.edge = format!(" }}\n    - {{ address: \"127.0.0.1:{}\", serves: edge", second.number());
    let server = setup.start().await;
    let browser = Browser::start().await;
    let wanted = format!("http://app.{DOMAIN}:{}/reports?year=2026", server.edge());
    assert_ne!(server.edge(), second.number());

    browser.open(&wanted).await;
    browser.waits_for_url("the portal", |url| url.starts_with(&format!("http://{}/?rd=", server.auth()))).await;
    let blocked = browser
        .run_until_told(
            "const told = arguments[0];
             document.addEventListener('securitypolicyviolation', event => told(event.effectiveDirective));
             const form = document.createElement('form');
             form.action = 'http://elsewhere.localhost:9/';
             form.method = 'post';
             document.body.append(form);
             form.submit();",
        )
        .await;
    assert_eq!(blocked, "form-action");

    sign_in(&browser, "bob", PASSWORD).await;
    browser.waits_for_url("back at the page, on the other port", |url| url == wanted).await;
    assert!(browser.text().await.contains("bob@example.com"));
}

/// Over https the cookies of the portal belong to its host alone, and Chromium keeps them so.
#[tokio::test]
async fn cookies_over_https_are_kept_as_meant() {
    let (server, _upstream) = over_https().await;
    let browser = Browser::start_with(&["--ignore-certificate-errors"], &json!({})).await;
    let wanted = format!("https://{}/reports?year=2026", server.app());
    let portal = format!("https://{}", server.auth());

    browser.open(&wanted).await;
    browser.waits_for_url("the portal", |url| url.starts_with(&format!("{portal}/?rd="))).await;
    assert_eq!(cookies(&browser).await, ["__Host-postern_csrf on auth.test.localhost"]);
    sign_in(&browser, "alice", PASSWORD).await;
    browser.waits_for_url("back at the page", |url| url == wanted).await;
    assert_eq!(cookies(&browser).await, ["postern_session on test.localhost"]);
    assert_eq!(browser.run("return document.cookie").await, "");

    browser.open(&format!("{portal}/account")).await;
    assert!(browser.text().await.contains("this browser"));
    let held = cookies(&browser).await;
    for cookie in ["__Host-postern_portal on auth.test.localhost", "postern_session on test.localhost"] {
        assert!(held.iter().any(|other| other == cookie), "{held:?}");
    }
    browser.screenshot("https-account").await;

    browser.open(&format!("{portal}/logout")).await;
    browser.click("form button[type=submit]").await;
    browser.find("#username").await;
    let held = cookies(&browser).await;
    assert!(!held.iter().any(|cookie| cookie.contains("session") || cookie.contains("_portal")), "{held:?}");
}

async fn over_https() -> (Server, Upstream) {
    let upstream = Upstream::start().await;
    let identity = tls::certificate();
    (Setup::with(&upstream).edge_over_tls(&identity).start().await, upstream)
}

/// Name and domain of each that the page at hand sends; every one of ours is out of reach for scripts and plain http.
async fn cookies(browser: &Browser) -> Vec<String> {
    let mut held = Vec::new();
    for cookie in browser.cookies().await {
        assert_eq!((cookie.http_only(), cookie.secure()), (Some(true), Some(true)), "{cookie}");
        assert_eq!(cookie.path(), Some("/"), "{cookie}");
        held.push(format!("{} on {}", cookie.name(), cookie.domain().unwrap_or_default()));
    }
    held.sort();
    held
}

/// Phone width, for people to judge; a page must not scroll sideways.
#[tokio::test]
async fn the_portal_fits_a_phone() {
    let front = Front::edge().await;
    let browser = Browser::start().await;
    browser.resize(390, 844).await;
    browser.open(&front.app("/members/x")).await;
    browser.screenshot("phone-1-sign-in").await;
    let fits = "return document.documentElement.scrollWidth <= window.innerWidth";
    assert_eq!(browser.run(fits).await, true);
    sign_in(&browser, "bob", PASSWORD).await;
    browser.waits_for_url("back at the page", |url| url.contains("/members/x")).await;
    browser.open(&front.app("/vault/x")).await;
    browser.screenshot("phone-2-second-factor").await;
    assert_eq!(browser.run(fits).await, true);
    browser.open(&front.portal("/account")).await;
    browser.screenshot("phone-3-account").await;
    assert_eq!(browser.run(fits).await, true);
}

async fn sign_in(browser: &Browser, user: &str, password: &str) {
    browser.fill("input[name=username]", user).await;
    browser.fill("input[name=password]", password).await;
    browser.click("form button[type=submit]").await;
}
