//! Limits as clients meet them, in both roles: how many requests go on, and what the others are told. The structured fields are read by a library that
//! nobody here wrote.

use std::{collections::BTreeMap, time::Duration};

use sfv::{BareItem, List, ListEntry, Parser};

use crate::{
    harness::{
        breaker::Breaker,
        eventually,
        server::{POLICIES, Role, Server, Setup},
        upstream::{Seen, Upstream},
        wire::{self, Reply, Request},
    },
    verdicts::{self, Asked, EVERYBODY},
};

fn with_limits(limits: &str) -> String {
    format!("{POLICIES}limits:\n{limits}")
}

async fn server(limits: &str) -> (Server, Upstream) {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).policies(&with_limits(limits)).start().await;
    (server, upstream)
}

/// The items of a list, each a string with whole numbers as parameters.
fn items(field: &str) -> BTreeMap<String, BTreeMap<String, i64>> {
    let list = Parser::new(field).parse::<List>().unwrap_or_else(|fault| panic!("{field:?} is no list: {fault}"));
    let each = list.into_iter().map(|entry| {
        let ListEntry::Item(item) = entry else { panic!("{field:?} holds an inner list") };
        let BareItem::String(name) = item.bare_item else { panic!("an item of {field:?} is no string") };
        let parameters = item.params.into_iter().map(|(key, value)| {
            let number = value.as_integer().unwrap_or_else(|| panic!("{key:?} of {field:?} is no integer"));
            (key.as_str().to_owned(), i64::from(number))
        });
        (name.as_str().to_owned(), parameters.collect())
    });
    let all: BTreeMap<_, _> = each.collect();
    assert!(!all.is_empty(), "an empty field is not sent");
    all
}

fn number(reply: &Reply, name: &str) -> i64 {
    let values: Vec<&str> = reply.all(name).collect();
    let [value] = values.as_slice() else { panic!("{name}: {values:?} in {reply:?}") };
    value.parse().unwrap_or_else(|_| panic!("{name}: {value}"))
}

fn api(path: &str, who: &str) -> Request {
    Request::get(path).header("Accept", "application/json").header("X-Who", who)
}

const BY_HEADER: &str =
    "  - { name: chat, match: { path: /public/** }, key: 'header:X-Who', rates: [2/hour, 5/day] }\n";

#[tokio::test]
async fn in_every_dialect_so_many_go_on_and_the_next_has_to_wait() {
    let (server, _upstream) = server(BY_HEADER).await;
    for asked in EVERYBODY {
        let request = api("/public/x", &format!("{asked:?}"));
        for left in [1, 0] {
            let reply = verdicts::ask(&server, asked, &request).await;
            assert_eq!(reply.status, 200, "{asked:?}");
            let policy = items(reply.header("RateLimit-Policy").expect("a policy"));
            assert_eq!((policy["chat-hour"]["q"], policy["chat-hour"]["w"]), (2, 3600), "{policy:?}");
            assert_eq!((policy["chat-day"]["q"], policy["chat-day"]["w"]), (5, 86_400), "{policy:?}");
            let limit = items(reply.header("RateLimit").expect("a limit"));
            assert_eq!((limit["chat-hour"]["r"], limit["chat-day"]["r"]), (left, left + 3), "{asked:?}");
            assert_eq!(number(&reply, "X-RateLimit-Limit"), 2);
            assert_eq!(number(&reply, "X-RateLimit-Remaining"), left);
            assert_eq!(number(&reply, "X-RateLimit-Remaining-Hour"), left);
            assert_eq!(number(&reply, "X-RateLimit-Limit-Day"), 5);
        }
        let reply = verdicts::ask(&server, asked, &request).await;
        let expected = if asked == Asked::AuthRequest { (403, Some("429")) } else { (429, None) };
        assert_eq!((reply.status, reply.header("X-Postern-Status")), expected, "{asked:?}");
        has_to_wait(&reply, "chat", "hour");
    }
}

/// All that an answer says which refuses for a limit (CONTRACT 8).
fn has_to_wait(reply: &Reply, limit: &str, window: &str) {
    let wait = number(reply, "Retry-After");
    assert!((1..=3_650).contains(&wait), "{reply:?}");
    assert_eq!(reply.header("Content-Type"), Some("application/problem+json"), "{reply:?}");
    let body = reply.json();
    assert_eq!(
        (&body["code"], &body["limit"], &body["window"]),
        (&"rate_limited".into(), &limit.into(), &window.into())
    );
    assert_eq!(body["retry_after"].as_i64(), Some(wait), "{body}");
    let reset_at: jiff::Timestamp = body["reset_at"].as_str().expect("a time").parse().expect("RFC 3339");
    let expected = jiff::Timestamp::now().as_second() + wait;
    assert!((reset_at.as_second() - expected).abs() <= 3, "{reset_at} is not in {wait} s");
    let fields = items(reply.header("RateLimit").expect("a limit"));
    let name = format!("{limit}-{window}");
    assert_eq!(fields[&name]["r"], 0);
    for (item, parameters) in &fields {
        let is_earlier = parameters.get("t").is_none_or(|reset| *reset <= wait);
        assert!(is_earlier, "Retry-After {wait} lies before the reset of {item}: {parameters:?}");
    }
    assert!(items(reply.header("RateLimit-Policy").expect("a policy")).contains_key(&name));
    assert_eq!(number(reply, "X-RateLimit-Remaining"), 0);
    assert!((number(reply, "X-RateLimit-Reset") - expected).abs() <= 3, "{reply:?}");
    assert!(reply.header("X-Request-Id").is_some(), "{reply:?}");
}

#[tokio::test]
async fn a_page_that_has_to_wait_is_told_in_words() {
    let (server, _upstream) = server(BY_HEADER).await;
    let page = Request::get("/public/x").page();
    for role in Role::BOTH {
        let ask = async || server.ask(role, &page.clone().header("X-Who", format!("{role:?}"))).await;
        assert_eq!([ask().await.status, ask().await.status], [200, 200]);
        let reply = ask().await;
        assert_eq!(reply.status, 429);
        assert!(reply.body.contains("<html") && reply.body.contains("Slow down"), "{}", reply.body);
        assert!(number(&reply, "Retry-After") > 0);
        items(reply.header("RateLimit").expect("a limit"));
    }
}

/// Waiting as long as one is told is enough.
#[tokio::test]
async fn who_waits_as_long_as_told_goes_on() {
    let (server, _upstream) =
        server("  - { name: chat, match: { path: /public/** }, key: 'header:X-Who', rates: 2/second }\n").await;
    for role in Role::BOTH {
        let request = api("/public/x", &format!("{role:?}"));
        assert_eq!(server.ask(role, &request).await.status, 200, "{role:?}");
        let refused = eventually("a request that has to wait", || async {
            Some(server.ask(role, &request).await).filter(|reply| reply.status == 429)
        })
        .await;
        let wait = number(&refused, "Retry-After");
        assert!((1..=2).contains(&wait), "{refused:?}");
        tokio::time::sleep(Duration::from_secs(wait.unsigned_abs())).await;
        assert_eq!(server.ask(role, &request).await.status, 200, "{role:?}: after {wait} s");
    }
}

/// What the application says of its own limits stays, but under the names that we say ours by.
#[tokio::test]
async fn the_applications_own_limits_are_replaced_only_where_ours_are_told() {
    let (server, upstream) = server(BY_HEADER).await;
    let reply = server.ask(Role::Edge, &api("/public/limits", "somebody")).await;
    assert_eq!(Seen::of(&reply).target, "/public/limits");
    assert_eq!(number(&reply, "X-RateLimit-Limit"), 2);
    assert_eq!(number(&reply, "X-RateLimit-Limit-Day"), 5);
    assert_eq!(reply.all("RateLimit").count(), 1);
    assert!(items(reply.header("RateLimit").expect("ours")).contains_key("chat-hour"));
    assert_eq!(reply.header("X-RateLimit-Scope"), Some("theirs"));
    let alice = server.sign_in("alice").await;
    let reply = server.ask(Role::Edge, &api("/limits", "somebody").cookie(alice.gate)).await;
    let theirs: Vec<&str> = reply.all("X-RateLimit-Limit").collect();
    assert_eq!(theirs, ["9", "8"], "no limit of ours is about it");
    assert_eq!(reply.header("RateLimit"), Some("\"theirs\";r=1"));
    assert_eq!(upstream.seen().len(), 2);
}

/// It was counted all the same, and says what is left.
#[tokio::test]
async fn what_the_application_could_not_answer_was_counted_and_says_so() {
    let upstream = Upstream::start().await;
    let breaker = Breaker::before(upstream.port()).await;
    let server = Setup::with_upstream_at(breaker.port()).policies(&with_limits(BY_HEADER)).start().await;
    breaker.cut();
    let request = api("/public/x", "somebody");
    for left in [1, 0] {
        let reply = server.ask(Role::Edge, &request).await;
        assert_eq!((reply.status, number(&reply, "X-RateLimit-Remaining")), (502, left), "{reply:?}");
        assert_eq!(items(reply.header("RateLimit").expect("ours"))["chat-hour"]["r"], left);
    }
    assert_eq!(server.ask(Role::Edge, &request).await.status, 429);
}

#[tokio::test]
async fn the_headers_that_are_told_are_chosen() {
    let upstream = Upstream::start().await;
    let policies = format!("limit_headers: [x_ratelimit]\n{}", with_limits(BY_HEADER));
    let server = Setup::with(&upstream).policies(&policies).start().await;
    for role in Role::BOTH {
        let request = api("/public/x", &format!("{role:?}"));
        for status in [200, 200, 429] {
            let reply = server.ask(role, &request).await;
            assert_eq!(reply.status, status);
            assert_eq!(number(&reply, "X-RateLimit-Limit"), 2);
            for absent in ["RateLimit", "RateLimit-Policy", "X-RateLimit-Limit-Hour"] {
                assert_eq!(reply.header(absent), None, "{role:?} {status}");
            }
            assert_eq!(reply.header("Retry-After").is_some(), status == 429);
        }
    }
}

/// THREATS 57.
#[tokio::test]
async fn threat_57_a_forged_address_is_no_other_source() {
    let (server, _upstream) = server("  - { name: everybody, key: ip, rates: 2/hour }\n").await;
    // Nobody's word is believed at the edge.
    let mut statuses = Vec::new();
    for last in 1..=3 {
        let forged = Request::get("/public/x").header("X-Forwarded-For", format!("203.0.113.{last}"));
        statuses.push(server.ask(Role::Edge, &forged).await.status);
    }
    assert_eq!(statuses, [200, 200, 429]);
    // A proxy appends what it saw; a client may write in front of that what it likes.
    let question = |told: &[String]| {
        let mut question = Request::get("/api/authz/forward-auth")
            .host("postern")
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Proto", "http")
            .header("X-Forwarded-Host", server.app())
            .header("X-Forwarded-Uri", "/public/x");
        for line in told {
            question = question.header("X-Forwarded-For", line.as_str());
        }
        question
    };
    for told in [
        |last: u8| vec![format!("203.0.113.{last}, 198.51.100.1")],
        |last: u8| vec![format!("203.0.113.{last}"), "198.51.100.2".to_owned()],
        |last: u8| vec![format!("2001:db8:0:1:{last}::{last}")],
        |last: u8| vec![if last == 1 { "192.0.2.1" } else { "::ffff:192.0.2.1" }.to_owned()],
        // Unknown, in whatever way: the proxy's one count.
        |last: u8| if last == 1 { vec![] } else { vec![format!("nonsense {last}")] },
    ] {
        let mut statuses = Vec::new();
        for last in 1..=3 {
            statuses.push(wire::send(server.forward_auth(), &question(&told(last)).bytes()).await.status);
        }
        assert_eq!(statuses, [200, 200, 429], "{:?}", told(1));
    }
}

#[tokio::test]
async fn plans_bypass_and_report_as_they_are_written() {
    let limits = concat!(
        "  - { name: chat, match: { path: [/chat/**] }, bypass: [{ path: /chat/health }], key: user, rates: 1/hour, plans: { pro: 3/hour } }\n",
        "  - { name: tried, match: { path: [/chat/**] }, key: user, rates: 1/day, mode: report }\n",
    );
    let (server, _upstream) = server(limits).await;
    server.run(&["user", "set", "alice", "--attribute", "plan=pro"]);
    let (alice, bob) = (server.sign_in("alice").await, server.sign_in("bob").await);
    let ask = async |role, path: &str, gate: &str| {
        server.ask(role, &Request::get(path).header("Accept", "application/json").cookie(gate)).await
    };
    // One count for both roles.
    assert_eq!(ask(Role::Edge, "/chat/x", &bob.gate).await.status, 200);
    let refused = ask(Role::ForwardAuth, "/chat/x", &bob.gate).await;
    assert_eq!((refused.status, refused.header("X-Postern-Rule")), (429, Some("members")));
    has_to_wait(&refused, "chat", "hour");
    assert_eq!(ask(Role::Edge, "/chat/health", &bob.gate).await.status, 200);
    for left in [2, 1, 0] {
        let reply = ask(Role::ForwardAuth, "/chat/x", &alice.gate).await;
        assert_eq!((reply.status, number(&reply, "X-RateLimit-Remaining")), (200, left));
    }
    assert_eq!(ask(Role::Edge, "/chat/x", &alice.gate).await.status, 429);
    let counted = async |status: &str| {
        server.metric("postern_rate_limit_requests_total", &["limit=\"tried\"", &format!("status=\"{status}\"")]).await
    };
    assert!((counted("reported").await - 5.0).abs() < 0.1, "{}", counted("reported").await);
    assert!((server.metric("postern_rate_limit_exceeded_total", &["limit=\"chat\""]).await - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn a_reload_takes_limits_and_their_metrics_away_and_forgives_nobody_who_stays() {
    let both = "  - { name: old, match: { path: /public/old }, key: ip, rates: 1/hour }\n  - { name: stays, match: { path: /public/stays }, key: ip, rates: 1/hour }\n";
    let (server, _upstream) = server(both).await;
    let ask = async |path: &str| server.ask(Role::Edge, &Request::get(path)).await.status;
    for path in ["/public/old", "/public/stays"] {
        assert_eq!([ask(path).await, ask(path).await], [200, 429], "{path}");
    }
    server.write("policies/access.yaml", &with_limits(&both.lines().skip(1).collect::<String>()));
    eventually("the limit is gone, and its series", || async {
        let counted = server.metric("postern_rate_limit_requests_total", &["limit=\"old\""]).await;
        (ask("/public/old").await == 200 && counted < 0.1).then_some(())
    })
    .await;
    assert_eq!(ask("/public/stays").await, 429);
    assert!(server.metric("postern_rate_limit_requests_total", &["limit=\"stays\""]).await > 0.9);
}
