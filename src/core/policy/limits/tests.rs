use std::net::Ipv4Addr;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::*;
use crate::core::{
    client_ip::ClientAddress,
    identity::{Factor, Identity},
    policy::{DraftFault, LimitDraft, LimitPart, MatchDraft, Place, PolicyDraft},
    session::{SessionId, TokenHash},
    target::{EncodedSlashes, Target},
    time::Timestamp,
    user::User,
};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn limit(key: &str) -> LimitDraft {
    LimitDraft { name: "chat".to_owned(), key: key.to_owned(), rates: strings(&["50/minute"]), ..LimitDraft::default() }
}

fn compiled(limits: Vec<LimitDraft>) -> RuleSet {
    let draft = PolicyDraft { limits, ..PolicyDraft::default() };
    RuleSet::compile(&draft).unwrap_or_else(|faults| panic!("{faults:?}")).0
}

fn faults(limits: Vec<LimitDraft>) -> Vec<DraftFault> {
    RuleSet::compile(&PolicyDraft { limits, ..PolicyDraft::default() }).unwrap_err()
}

/// What is asked of the limits; by itself, nobody's.
struct Asked {
    url: &'static str,
    method: &'static str,
    client: ClientAddress,
    peer: IpAddr,
    caller: Option<Identity>,
    ground: Ground,
    headers: HeaderMap,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            url: "https://api.example.com/chat/x",
            method: "POST",
            client: ClientAddress::Known("192.0.2.1".parse().unwrap()),
            peer: PEER,
            caller: None,
            ground: Ground::Session,
            headers: HeaderMap::new(),
        }
    }
}

impl Asked {
    fn due(&self, rules: &RuleSet) -> Vec<Due> {
        let target = Target::parse_url_with(self.url, EncodedSlashes::Strictest).unwrap();
        let question = Question {
            target: &target,
            method: self.method,
            client: self.client,
            caller: self.caller.as_ref(),
            now: Timestamp::default(),
            headers: Some(&self.headers),
            route: None,
        };
        let source = Source { peer: self.peer, ground: &self.ground };
        let mut due = rules.limits_due(Stage::Arrival, &question, source);
        due.extend(rules.limits_due(Stage::Forward, &question, source));
        due
    }

    fn key(&self, rules: &RuleSet) -> Option<[u8; 16]> {
        let due = self.due(rules);
        assert_eq!(due.len(), 1, "{}", self.url);
        due[0].key
    }
}

fn from(address: &str) -> Asked {
    Asked { client: ClientAddress::Known(address.parse().unwrap()), ..Asked::default() }
}

fn person(name: &str, session: Option<&str>, attributes: serde_json::Value) -> Identity {
    let user =
        User { attributes: serde_json::from_value(attributes).unwrap(), ..User::new(name, vec!["dev".to_owned()]) };
    Identity::new(&user, Factor::One, Timestamp::default(), session.map(SessionId::new)).unwrap()
}

fn by(caller: Identity) -> Asked {
    Asked { caller: Some(caller), ..Asked::default() }
}

#[test]
fn which_requests_are_counted() {
    let chat = MatchDraft {
        domain: strings(&["api.example.com", "*.test"]),
        path: strings(&["/chat/**"]),
        methods: strings(&["post"]),
    };
    let draft = LimitDraft {
        matches: chat,
        bypass: vec![
            MatchDraft { path: strings(&["/chat/health", "/chat/status/*"]), ..MatchDraft::default() },
            MatchDraft { domain: strings(&["free.test"]), ..MatchDraft::default() },
        ],
        ..limit("user_or_ip")
    };
    let rules = compiled(vec![draft]);
    for (method, url, counted) in [
        ("POST", "https://api.example.com/chat/x", true),
        ("POST", "https://api.example.com//chat//x", true),
        ("POST", "https://API.example.com:8443/chat/x?a=b", true),
        ("POST", "https://api.example.com/%63hat/x", true),
        ("POST", "https://deep.down.test/chat/", true),
        ("GET", "https://api.example.com/chat/x", false),
        ("POST", "https://api.example.com/chat", false),
        ("POST", "https://api.example.com/Chat/x", false),
        ("POST", "https://other.example.com/chat/x", false),
        ("POST", "https://test/chat/x", false),
        ("POST", "https://api.example.com/chat/health", false),
        ("POST", "https://api.example.com/chat/status/7", false),
        ("POST", "https://api.example.com/chat/status/7/8", true),
        ("POST", "https://free.test/chat/x", false),
        // One reading of it is counted, whatever the other says.
        ("POST", "https://api.example.com/chat/health;v=1", true),
        ("POST", "https://api.example.com/chat/health;", true),
        ("POST", "https://api.example.com/chat;a/x", true),
        ("POST", "https://api.example.com/public%2F..%2Fchat%2Fx", true),
    ] {
        let asked = Asked { url, method, ..Asked::default() };
        assert_eq!(asked.due(&rules).len(), usize::from(counted), "{method} {url}");
    }
}

#[test]
fn without_a_match_every_request_is_counted() {
    let rules = compiled(vec![limit("ip")]);
    for url in ["https://api.example.com/", "http://[::1]/x", "https://a.b.c.test/x;y"] {
        assert_eq!(Asked { url, ..Asked::default() }.due(&rules).len(), 1, "{url}");
    }
}

#[test]
fn several_limits_come_in_the_order_of_the_files_those_by_address_first() {
    let named = |name: &str, key: &str| LimitDraft { name: name.to_owned(), ..limit(key) };
    let rules = compiled(vec![named("a", "user"), named("b", "ip"), named("c", "header:x-tenant"), named("d", "ip")]);
    let due: Vec<String> = Asked::default().due(&rules).iter().map(|due| due.quota.limit.to_string()).collect();
    assert_eq!(due, ["b", "d", "c"], "and nobody has no user");
    let names: Vec<_> = rules.limit_names().map(ToString::to_string).collect();
    assert_eq!(names, ["b", "d", "a", "c"]);
}

#[test]
fn threat_57_one_count_for_a_64_for_a_mapped_address_and_for_an_unknown_one() {
    let rules = compiled(vec![limit("ip")]);
    let key = |asked: &Asked| asked.key(&rules);
    assert_eq!(key(&from("2001:db8:0:1::1")), key(&from("2001:db8:0:1:ffff::9")));
    assert_ne!(key(&from("2001:db8:0:1::1")), key(&from("2001:db8:0:2::1")));
    assert_eq!(key(&from("192.0.2.1")), key(&from("::ffff:192.0.2.1")));
    assert_ne!(key(&from("192.0.2.1")), key(&from("192.0.2.2")));
    let unknown =
        |peer: &str| Asked { client: ClientAddress::Unknown, peer: peer.parse().unwrap(), ..Asked::default() };
    assert_eq!(key(&unknown("10.0.0.1")), key(&unknown("::ffff:10.0.0.1")));
    assert_ne!(key(&unknown("10.0.0.1")), key(&unknown("10.0.0.2")));
    assert_ne!(
        key(&unknown("192.0.2.1")),
        key(&from("192.0.2.1")),
        "a proxy that says nothing takes nothing of its own"
    );
    assert_ne!(key(&unknown("2001:db8::1")), key(&unknown("2001:db8::2")), "a peer is known by its address");
}

#[test]
fn whose_count_it_is() {
    let of = |key: &str| compiled(vec![limit(key)]);
    let bob = || person("bob", Some("one"), json!({}));
    let user = of("user");
    assert_eq!(Asked::default().due(&user).len(), 0, "nobody is no user");
    assert_eq!(by(bob()).key(&user), by(person("bob", Some("two"), json!({}))).key(&user));
    assert_ne!(by(bob()).key(&user), by(person("alice", Some("one"), json!({}))).key(&user));
    assert_ne!(by(bob()).key(&user), by(bob().as_service()).key(&user), "a service account of the same name");

    let either = of("user_or_ip");
    assert_eq!(by(bob()).key(&either), Asked { caller: Some(bob()), ..from("192.0.2.9") }.key(&either));
    assert_ne!(from("192.0.2.1").key(&either), from("192.0.2.9").key(&either));

    let session = of("session");
    assert_eq!(Asked::default().due(&session).len(), 0);
    assert_ne!(by(bob()).key(&session), by(person("bob", Some("two"), json!({}))).key(&session));
    let without = || person("bob", None, json!({}));
    assert_eq!(by(without()).key(&session), by(without()).key(&session), "Basic is counted by its user");

    let token = of("token");
    let of_token = |byte: u8| Asked { ground: Ground::ApiToken(TokenHash([byte; 32])), ..by(without()) };
    assert_eq!(of_token(1).key(&token), of_token(1).key(&token));
    assert_ne!(of_token(1).key(&token), of_token(2).key(&token));
    assert_eq!(by(bob()).key(&token), by(bob()).key(&token), "an access token is renewed, and its session stays");
    assert_eq!(of_token(1).key(&session), of_token(2).key(&session));
}

#[test]
fn a_header_that_is_not_there_shares_one_count() {
    let rules = compiled(vec![limit("header:X-Tenant")]);
    let with = |values: &[&'static str]| {
        let mut asked = Asked::default();
        for value in values {
            asked.headers.append(HeaderName::from_static("x-tenant"), HeaderValue::from_static(value));
        }
        asked.key(&rules)
    };
    assert_eq!(with(&[]), with(&[]));
    assert_eq!(with(&["a"]), with(&["a"]));
    let different = [with(&[]), with(&["a"]), with(&["b"]), with(&["a", "b"]), with(&["ab"])];
    for (place, one) in different.iter().enumerate() {
        assert!(different.iter().skip(place + 1).all(|other| other != one), "{place}");
    }
}

#[test]
fn an_expression_says_whose_count_it_is_or_that_nobody_can_say() {
    let of = |key: &str| compiled(vec![limit(key)]);
    let by_both = of(r#"user.name + "@" + request.host"#);
    assert_eq!(Asked::default().due(&by_both).len(), 0, "nobody is no user here either");
    let bob = || by(person("bob", None, json!({ "org": "acme", "seats": 5 })));
    let elsewhere = Asked { url: "https://other.example.com/chat/x", ..bob() };
    assert_ne!(bob().key(&by_both), elsewhere.key(&by_both));
    let by_org = of("string(user.claims.org)");
    assert_eq!(bob().key(&by_org), by(person("alice", None, json!({ "org": "acme" }))).key(&by_org));
    let without = by(person("carol", None, json!({})));
    assert_eq!(without.key(&by_org), None, "what cannot be worked out is told as such");
    let constant = of(r#""all""#);
    assert_eq!(Asked::default().key(&constant), bob().key(&constant));
    assert_ne!(bob().key(&of(r#""bob""#)), bob().key(&of("user")), "no two kinds share a count");
}

#[test]
fn the_users_plan_says_how_much() {
    let plans = [("free", &["10/minute"][..]), ("pro", &["100/minute", "10/second burst 20"])];
    let plans = plans.map(|(name, rates)| (name.to_owned(), strings(rates))).to_vec();
    let rules = compiled(vec![LimitDraft { plans, ..limit("user") }]);
    let rates = |attributes: serde_json::Value| {
        let due = by(person("bob", None, attributes)).due(&rules);
        due[0].quota.rates.iter().map(|rate| rate.to_string()).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(rates(json!({})), "50/minute");
    assert_eq!(rates(json!({ "plan": "free" })), "10/minute");
    assert_eq!(rates(json!({ "plan": "pro" })), "100/minute, 10/second burst 20");
    for unlisted in
        [json!({ "plan": "Free" }), json!({ "plan": "gold" }), json!({ "plan": 1 }), json!({ "plan": ["pro"] })]
    {
        assert_eq!(rates(unlisted.clone()), "50/minute", "{unlisted}");
    }
    let key = |attributes: serde_json::Value| by(person("bob", None, attributes)).key(&rules);
    assert_eq!(key(json!({})), key(json!({ "plan": "pro" })), "another plan forgives nothing");
}

#[test]
fn a_host_of_somebodys_own_is_counted_for_them_alone() {
    let matches = MatchDraft { domain: strings(&["{user}.home.test"]), ..MatchDraft::default() };
    let rules = compiled(vec![LimitDraft { matches, ..limit("user_or_ip") }]);
    let url = "https://bob.home.test/";
    assert_eq!(Asked { url, ..by(person("bob", None, json!({}))) }.due(&rules).len(), 1);
    assert_eq!(Asked { url, ..by(person("alice", None, json!({}))) }.due(&rules).len(), 0);
    assert_eq!(Asked { url, ..Asked::default() }.due(&rules).len(), 0);
}

#[test]
fn what_cannot_be_a_limit() {
    let rates = |written: &[&str]| LimitDraft { rates: strings(written), ..limit("user") };
    let named = |name: &str| LimitDraft { name: name.to_owned(), ..limit("user") };
    let plan =
        |name: &str, written: &[&str]| LimitDraft { plans: vec![(name.to_owned(), strings(written))], ..limit("user") };
    let entry = |entry: usize| LimitPart::Rates { entry: Some(entry) };
    let domain = || MatchDraft { domain: strings(&["{user}.test"]), ..MatchDraft::default() };
    let at_match = |key: &'static str, entry: Option<usize>| LimitPart::Match { key, entry };
    for (draft, part, told) in [
        (named(""), LimitPart::Name, "cannot be the name"),
        (named(" a"), LimitPart::Name, "cannot be the name"),
        (named("a\"b"), LimitPart::Name, "cannot be the name"),
        (named("chät"), LimitPart::Name, "cannot be the name"),
        (named(&"a".repeat(65)), LimitPart::Name, "cannot be the name"),
        (rates(&[]), LimitPart::Rates { entry: None }, "one to 8 rates"),
        (rates(&["1/minute"; 9]), LimitPart::Rates { entry: None }, "one to 8 rates"),
        (rates(&["5/fortnight"]), entry(0), "unknown unit"),
        (rates(&["5/minute", "0/second"]), entry(1), "would let nobody pass"),
        (rates(&["5/minute burst 0"]), entry(0), "would let nobody pass"),
        (rates(&["5/minute", "6/minute"]), entry(1), "second window"),
        (rates(&["often"]), entry(0), "is no rate"),
        (plan("free", &[]), LimitPart::Plan { plan: 0, entry: None }, "one to 8 rates"),
        (plan("free", &["1/second", "x"]), LimitPart::Plan { plan: 0, entry: Some(1) }, "is no rate"),
        (plan("", &["1/second"]), LimitPart::Plan { plan: 0, entry: None }, "without a name"),
        (limit(""), LimitPart::Key, "the key is empty"),
        (limit("users"), LimitPart::Key, "users"),
        (limit("user.level"), LimitPart::Key, "a key needs a string"),
        (limit("user.claims.org"), LimitPart::Key, "known only on a request"),
        (limit("request.host =="), LimitPart::Key, "not valid CEL"),
        (limit("header:"), LimitPart::Key, "not the name of a header"),
        (limit("header:a b"), LimitPart::Key, "not the name of a header"),
        (limit("header:Authorization"), LimitPart::Key, "holds credentials"),
        (limit("header:X-Forwarded-For"), LimitPart::Key, "could forge it"),
        (LimitDraft { matches: domain(), ..limit("ip") }, at_match("domain", None), "before anybody knows"),
        (
            LimitDraft { bypass: vec![domain()], ..limit("ip") },
            LimitPart::Bypass { bypass: 0, key: Some("domain"), entry: None },
            "before anybody knows",
        ),
        (
            LimitDraft { plans: vec![("free".to_owned(), strings(&["1/second"]))], ..limit("ip") },
            LimitPart::Plan { plan: 0, entry: None },
            "before anybody knows",
        ),
        (
            LimitDraft { bypass: vec![MatchDraft::default()], ..limit("user") },
            LimitPart::Bypass { bypass: 0, key: None, entry: None },
            "nothing would be counted",
        ),
        (
            LimitDraft {
                matches: MatchDraft { path: strings(&["/a", "b"]), ..MatchDraft::default() },
                ..limit("user")
            },
            at_match("path", Some(1)),
            "",
        ),
        (
            LimitDraft { matches: MatchDraft { domain: strings(&["a*b"]), ..MatchDraft::default() }, ..limit("user") },
            at_match("domain", Some(0)),
            "",
        ),
    ] {
        let found = faults(vec![draft]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].place, Place::Limit { limit: 0, part }, "{}", found[0].message);
        assert!(found[0].message.contains(told), "{:?} does not say {told:?}", found[0].message);
    }
    let twice = faults(vec![limit("user"), limit("ip")]);
    assert_eq!(twice[0].place, Place::Limit { limit: 1, part: LimitPart::Name });
}

#[test]
fn a_holder_that_somebody_names_has_the_count_of_its_requests() {
    let id = SessionId::new("one");
    let (hash, tenant) = (TokenHash([7; 32]), HeaderName::from_static("x-tenant"));
    let bob = || person("bob", None, json!({}));
    let in_session = || by(person("bob", Some("one"), json!({})));
    let with_token = || Asked { ground: Ground::ApiToken(hash), ..by(bob()) };
    let of_tenant = || {
        let headers = HeaderMap::from_iter([(tenant.clone(), HeaderValue::from_static("a"))]);
        Asked { headers, ..Asked::default() }
    };
    let unknown = Asked { client: ClientAddress::Unknown, ..Asked::default() };
    let address = |text: &str| Holder::Address(text.parse().unwrap());
    let header = |value| Holder::Header { name: &tenant, value };
    for (key, asked, holder) in [
        ("ip", from("192.0.2.1"), address("192.0.2.1")),
        ("ip", from("192.0.2.1"), address("::ffff:192.0.2.1")),
        ("ip", from("2001:db8::1"), address("2001:db8::ffff:2")),
        ("ip", unknown, Holder::Peer(PEER)),
        ("user_or_ip", from("192.0.2.1"), address("192.0.2.1")),
        ("user_or_ip", by(bob()), Holder::User("bob")),
        ("user", by(bob()), Holder::User("bob")),
        ("user", by(bob().as_service()), Holder::Service("bob")),
        ("session", in_session(), Holder::Session(&id)),
        ("session", by(bob()), Holder::User("bob")),
        ("token", in_session(), Holder::Session(&id)),
        ("token", with_token(), Holder::ApiToken(&hash)),
        ("token", by(bob()), Holder::User("bob")),
        ("header:X-Tenant", of_tenant(), header(Some(b"a"))),
        ("header:X-Tenant", Asked::default(), header(None)),
        (r#"user.name + "/x""#, by(bob()), Holder::Expression("bob/x")),
    ] {
        let rules = compiled(vec![limit(key)]);
        let counts = rules.counts_of(holder, None);
        assert_eq!(counts.iter().map(|count| Some(count.key)).collect::<Vec<_>>(), [asked.key(&rules)], "{key}");
        assert_eq!(counts[0].counts_by, key.replace("X-Tenant", "x-tenant"));
    }
}

#[test]
fn a_holder_is_in_no_count_whose_key_it_cannot_be() {
    let keys = ["ip", "user", "user_or_ip", "session", "token", "header:x-tenant", "\"all\""];
    let limits = keys.map(|key| LimitDraft { name: key.replace(['"', ':'], " ").trim().to_owned(), ..limit(key) });
    let rules = compiled(limits.to_vec());
    let id = SessionId::new("one");
    let (other, hash) = (HeaderName::from_static("x-other"), TokenHash([7; 32]));
    for (holder, fits) in [
        (Holder::Address(PEER), &["ip", "user_or_ip"][..]),
        (Holder::Peer(PEER), &["ip", "user_or_ip"]),
        (Holder::User("bob"), &["user", "user_or_ip", "session", "token"]),
        (Holder::Service("ci"), &["user", "user_or_ip", "session", "token"]),
        (Holder::Session(&id), &["session", "token"]),
        (Holder::ApiToken(&hash), &["token"]),
        (Holder::Header { name: &other, value: None }, &[]),
        (Holder::Expression("all"), &["\"all\""]),
    ] {
        let counts = rules.counts_of(holder, None);
        assert_eq!(counts.iter().map(|count| &*count.counts_by).collect::<Vec<_>>(), fits, "{holder:?}");
    }
    assert_eq!(rules.limit_keys().map(|(_, key)| key).collect::<Vec<_>>(), keys);
}

#[test]
fn a_holder_is_told_by_the_rates_of_its_plan() {
    let plans = vec![("pro".to_owned(), strings(&["100/minute"]))];
    let rules = compiled(vec![LimitDraft { plans, ..limit("user") }]);
    let told = |plan| {
        let count = rules.counts_of(Holder::User("bob"), plan).remove(0);
        (count.plan, count.quota.rates.iter().map(|rate| rate.to_string()).collect::<String>(), count.plans)
    };
    assert_eq!(told(None), (None, "50/minute".to_owned(), vec!["pro"]));
    assert_eq!(told(Some("pro")), (Some("pro"), "100/minute".to_owned(), vec!["pro"]));
    assert_eq!(told(Some("gold")), (None, "50/minute".to_owned(), vec!["pro"]));
}
