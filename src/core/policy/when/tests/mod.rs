//! Expressions: what they yield; in the files below, what is a fault in them and that none takes long.

mod bounds;
mod faults;

use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::*;
use crate::core::{
    client_ip::ClientAddress,
    identity::{Factor, Identity},
    policy::{
        BindingDraft, PolicyDraft, RoleDraft,
        matcher::Caller,
        record::{Headers, Query},
    },
    time::Timestamp,
    user::User,
};

/// 2027-06-30T16:30:15Z, a Wednesday; in Berlin it is 18:30.
const NOW: i64 = 1_814_373_015_000;

fn roles() -> Roles {
    let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let draft = PolicyDraft {
        roles: vec![
            RoleDraft {
                name: "viewer".to_owned(),
                level: Some(20),
                permissions: strings(&["read:reports"]),
                ..RoleDraft::default()
            },
            RoleDraft {
                name: "admin".to_owned(),
                level: Some(60),
                inherits: strings(&["viewer"]),
                permissions: strings(&["manage:*"]),
            },
        ],
        bindings: vec![
            BindingDraft { roles: strings(&["viewer"]), subjects: strings(&["everyone"]), ..BindingDraft::default() },
            BindingDraft {
                roles: strings(&["admin"]),
                subjects: strings(&["group:admins"]),
                ..BindingDraft::default()
            },
        ],
        ..PolicyDraft::default()
    };
    Roles::compile(&draft).0
}

fn attributes() -> Attributes {
    [
        ("tier", AttributeType::String),
        ("country", AttributeType::String),
        ("seats", AttributeType::Int),
        ("score", AttributeType::Double),
        ("beta", AttributeType::Bool),
        ("tags", AttributeType::List),
        ("missing", AttributeType::String),
        ("wrong", AttributeType::Int),
    ]
    .map(|(name, kind)| (name.to_owned(), kind))
    .into()
}

fn alice() -> Identity {
    alice_with(json!({}))
}

/// With these claims beside her own.
fn alice_with(more: serde_json::Value) -> Identity {
    let mut claims = json!({
        "tier": "premium", "country": "DE", "seats": 5, "score": 1, "beta": true, "tags": ["a", "b"], "wrong": "text",
        "nested": {"list": [1, 2.5, "x", null], "deep": {"on": true}}, "big": 9_007_199_254_740_993_i64,
        "twins": [{"a": true, "b": 1}, {"a": "true", "b": 1.0}, {"a": true, "b": 1.0}, {"a": "true", "b": 2}],
    });
    if let (Some(claims), serde_json::Value::Object(more)) = (claims.as_object_mut(), more) {
        claims.extend(more);
    }
    let user = User {
        display_name: "Alice Ä.".to_owned(),
        email: Some("alice@example.com".to_owned()),
        attributes: serde_json::from_value(claims).expect("an object"),
        ..User::new("alice", vec!["admins".to_owned(), "dev".to_owned()])
    };
    Identity::new(&user, Factor::Two, Timestamp::from_unix_millis(NOW - 600_000), None).expect("a plain name")
}

fn ask(expression: &str, caller: Option<&Identity>, client: Option<&str>) -> Result<bool, Stop> {
    let roles = roles();
    let when = When::parse(expression, &attributes(), &roles)
        .unwrap_or_else(|faults| panic!("{expression} is faulty: {faults:?}"));
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_static("curl/8"));
    headers.append("x-many", HeaderValue::from_static("a"));
    headers.append("x-many", HeaderValue::from_static("b"));
    headers.insert("x-bytes", HeaderValue::from_bytes(b"\xff").expect("a value"));
    when.outcome(&Reading {
        headers: Headers::Raw(Some(&headers)),
        caller: caller.map(|identity| Caller { identity, client }),
        ..reading(&roles)
    })
}

/// Nobody's, without headers.
fn reading(roles: &Roles) -> Reading<'_> {
    Reading {
        host: "app.example.com",
        path: "/reports/7",
        resource: b"",
        query: Query::Raw(Some("page=2&q=a%20b&twice=1&twice=2&empty=")),
        method: "GET",
        scheme: "https",
        headers: Headers::Raw(None),
        route: Some("app"),
        now: Timestamp::from_unix_millis(NOW),
        address: ClientAddress::Known("192.0.2.7".parse().expect("an address")),
        caller: None,
        roles,
        unrecorded: Answer::Unknown,
    }
}

fn said(expression: &str) -> Result<bool, Stop> {
    ask(expression, Some(&alice()), None)
}

fn faults(expression: &str) -> Vec<String> {
    match When::parse(expression, &attributes(), &roles()) {
        Ok(_) => panic!("{expression} is no fault"),
        Err(faults) => faults,
    }
}

#[test]
fn what_expressions_yield() {
    for (expression, expected) in [
        ("true", true),
        ("!true", false),
        // The contract's and the issue's own.
        (r#"user.claims.tier in ["premium"] && request.time.getHours("Europe/Berlin") < 18"#, false),
        (r#"user.claims.tier in ["premium"] && request.time.getHours("Europe/Berlin") < 19"#, true),
        (r#"user.tier in ["premium", "gold"] && user.country == "DE""#, true),
        (r#"user.tier in ["gold"]"#, false),
        (r#"user.name == "alice""#, true),
        (r#"user.name == "Alice""#, false),
        (r#"user.display_name.contains("Ä")"#, true),
        (r#"user.email.endsWith("@example.com")"#, true),
        (r#""admins" in user.groups"#, true),
        (r#""adm" in user.groups"#, false),
        (r#"user.groups.exists(g, g.startsWith("de"))"#, true),
        (r#"user.groups.all(g, g.startsWith("de"))"#, false),
        (r#"user.groups.exists_one(g, g == "dev")"#, true),
        (r#"user.groups.filter(g, g != "dev") == ["admins"]"#, true),
        (r#"user.groups.map(g, size(g)) == [6, 3]"#, true),
        ("size(user.groups) == 2 && user.groups.size() == 2", true),
        (r#""admin" in user.roles && "owner" in user.roles"#, false),
        (r#"user.roles == ["admin", "viewer"]"#, true),
        ("user.level >= 60", true),
        ("user.level > 60", false),
        (r#"user.can("manage:users") && user.can("read:reports")"#, true),
        ("user.seats > 4 && user.seats < 6 && user.seats % 2 == 1", true),
        ("user.score == 1.0 && user.score < 1.5", true),
        ("user.beta", true),
        (r#""b" in user.tags"#, true),
        ("has(user.tier) && !has(user.missing)", true),
        ("has(user.claims.tier) && !has(user.claims.nothing)", true),
        (r#""tier" in user.claims && !("nothing" in user.claims)"#, true),
        (r#"user.claims["tier"] == "premium""#, true),
        ("user.claims.nested.deep.on == true", true),
        ("has(user.claims.nested.deep) && !has(user.claims.nested.shallow)", true),
        ("user.claims.nested.list[1] == 2.5 && user.claims.nested.list[3] == null", true),
        ("size(user.claims.nested.list) == 4", true),
        ("user.claims.nested.list.exists(x, x == 1)", true),
        // Numbers compare exactly, whatever their type.
        ("user.claims.big == 9007199254740993", true),
        ("user.claims.big > 9007199254740992.0", true),
        ("1 == 1.0 && 1 < 1.5 && 2.5 > 2 && -1 < -0.5", true),
        // What is found counts, whatever else there is; and null is nothing but null.
        (r#""x" in user.claims.nested.list && 2.5 in [1, user.claims.seats, 2.5]"#, true),
        ("user.claims.twins[0] == user.claims.twins[2]", true),
        ("user.claims.twins[0] == user.claims.twins[3] || user.claims.twins[0] == user.claims.nested", false),
        ("user.claims.nested.deep == null || null in user.claims.tags", false),
        ("user.claims.nested.deep == user.claims.nested.deep && user.claims.tags == user.tags", true),
        (r#"request.host == "app.example.com" && request.path == "/reports/7" && request.scheme == "https""#, true),
        (r#"request.method in ["GET", "HEAD"]"#, true),
        (r#"request.ip == "192.0.2.7""#, true),
        (r#"request.path.matches("^/reports/[0-9]+$")"#, true),
        (r#"matches(request.path, "^/other")"#, false),
        (r#"request.query.page == "2" && int(request.query.page) > 1"#, true),
        (r#"request.query["q"] == "a b""#, true),
        (r#"has(request.query.empty) && request.query.empty == "" && !has(request.query.none)"#, true),
        (r#""page" in request.query && has(request.query.twice)"#, true),
        (r#"request.headers["User-Agent"].startsWith("curl/")"#, true),
        (r#""x-many" in request.headers"#, true),
        (r#"has(request.headers.accept) || "x-none" in request.headers"#, false),
        (r#"session.factor == "two""#, true),
        (r#"session.age < duration("15m") && session.age > duration("9m")"#, true),
        ("session.age.getMinutes() == 10 && session.age.getSeconds() == 600 && session.age.getHours() == 0", true),
        (r#"session.signed_in_at < request.time && request.time - session.signed_in_at == duration("600s")"#, true),
        (r#"session.signed_in_at + duration("10m") == request.time"#, true),
        (r#"route.name == "app""#, true),
        (
            r#"request.time > timestamp("2027-06-30T00:00:00Z") && request.time < timestamp("2027-07-01T00:00:00+02:00")"#,
            true,
        ),
        ("request.time.getFullYear() == 2027 && request.time.getMonth() == 5 && request.time.getDate() == 30", true),
        ("request.time.getDayOfMonth() == 29 && request.time.getDayOfWeek() == 3", true),
        (
            "request.time.getDayOfYear() == 180 && request.time.getMinutes() == 30 && request.time.getSeconds() == 15",
            true,
        ),
        (
            r#"request.time.getHours() == 16 && request.time.getHours("+05:30") == 22 && request.time.getHours("-08:00") == 8"#,
            true,
        ),
        (
            r#"request.time.getMilliseconds("America/New_York") == 0 && request.time.getHours("America/New_York") == 12"#,
            true,
        ),
        (
            r#"duration("1h30m") == duration("90m") && duration("1.5s") == duration("1500ms") && duration("-1s") < duration("0")"#,
            true,
        ),
        ("1 + 2 * 3 == 7 && 7 / 2 == 3 && -7 / 2 == -3 && 7 % 3 == 1 && 2 - 3 == -1", true),
        (r#""a" + "b" == "ab" && string(5) == "5" && string(true) == "true" && double("1.5") == 1.5"#, true),
        (r#"[1, 2] + [3] == [1, 2, 3]"#, true),
        (r#""ABC".lowerAscii() == "abc" && "abc".upperAscii() == "ABC" && size("äö") == 2"#, true),
        (r#"user.seats > 3 ? user.tier == "premium" : false"#, true),
        // An error counts only where the other side does not decide.
        ("1 / (user.seats - 5) == 1 || true", true),
        ("true || 1 / (user.seats - 5) == 1", true),
        ("1 / (user.seats - 5) == 1 && false", false),
        ("[0, 1].exists(x, 1 / x == 1)", true),
        ("[0, 2].all(x, 1 / x == 1)", false),
        // Variables of macros, also within each other.
        ("[1, 2].exists(x, [2, 3].exists(y, x == y))", true),
        ("[[1], [2, 3]].exists(list, list.exists(x, x == 3))", true),
        ("[1, 2].exists(x, x == 2) && ![3].exists(x, x == 2)", true),
    ] {
        assert_eq!(said(expression), Ok(expected), "{expression}");
    }
}

#[test]
fn what_cannot_be_worked_out_is_an_error() {
    for (expression, why) in [
        (r#"user.missing == "x""#, "has(user.missing)"),
        ("user.wrong > 1", "not what was declared"),
        ("user.claims.nothing == 1", "has(…)"),
        (r#"user.claims["nothing"] == 1"#, "has(…)"),
        ("user.claims.nested.nothing == 1", "has(…)"),
        ("user.claims.tier.deep == 1", "has(…)"),
        ("has(user.claims.tier.deep)", "has no fields"),
        ("user.claims.nested.list[9] == 1", "there is no entry 9"),
        ("user.claims.nested.list[-1] == 1", "there is no entry -1"),
        ("user.claims.tier && true", "a string stands where a bool must"),
        (r#"user.claims.tier < 1"#, "cannot be compared"),
        ("user.claims.seats.exists(x, x == 1)", "is no list"),
        ("user.seats / (user.seats - 5) == 1", "divided by zero"),
        ("user.seats % (user.seats - 5) == 1", "divided by zero"),
        ("9223372036854775807 + user.seats > 0", "too large"),
        ("user.seats * 9223372036854775807 > 0", "too large"),
        (r#"request.query.none == "x""#, "has no parameter"),
        (r#"request.query.twice == "1""#, "different ways"),
        ("has(request.query.TWICE)", "different ways"),
        (r#"request.headers["x-none"] == "x""#, "has no header"),
        (r#"request.headers["x-bytes"] == "x""#, "not UTF-8"),
        (r#"request.headers["x-many"] == "a""#, "more than one header"),
        (r#"request.headers["x-many"] != "c""#, "more than one header"),
        // A text where a number or a bool was meant: to say "not equal" would pass a deny over.
        (r#"user.claims.seats == "5""#, "a int and a string are never equal"),
        ("user.claims.tier != true", "a string and a bool are never equal"),
        ("!(user.claims.tier == true)", "never equal"),
        ("user.claims.seats in [\"5\", user.claims.tier]", "never equal"),
        ("1 in user.claims.tags", "never equal"),
        ("user.claims.tags == user.claims.nested", "never equal"),
        ("user.claims.tags == [1, 2]", "never equal"),
        ("user.claims.twins[0] == user.claims.twins[1]", "never equal"),
        (r#"int(user.tier) == 1"#, "no whole number"),
        (r#"double(user.tier) == 1.0"#, "no number"),
        (r#"timestamp(user.tier) < request.time"#, "no timestamp"),
        (r#"duration(user.tier) < session.age"#, "no duration"),
        // An error does not become a yes by being turned around.
        (r#"!(user.missing == "x")"#, "has(user.missing)"),
        (r#"user.missing == "x" || false"#, "has(user.missing)"),
        (r#"user.missing == "x" && true"#, "has(user.missing)"),
        ("[0, 2].exists(x, 1 / x == 1)", "divided by zero"),
    ] {
        match said(expression) {
            Err(Stop::Failed(told)) => assert!(told.contains(why), "{expression}: {told:?} lacks {why:?}"),
            other => panic!("{expression}: {other:?}"),
        }
    }
}

#[test]
fn without_a_caller_it_could_be_anyone() {
    for (expression, expected) in [
        (r#"user.name == "alice""#, Err(Stop::Anonymous)),
        (r#"!(user.name == "alice")"#, Err(Stop::Anonymous)),
        ("user.level > 1", Err(Stop::Anonymous)),
        (r#"user.can("read:reports")"#, Err(Stop::Anonymous)),
        ("has(user.tier)", Err(Stop::Anonymous)),
        ("has(user.claims.tier)", Err(Stop::Anonymous)),
        (r#""x" in user.claims"#, Err(Stop::Anonymous)),
        (r#"session.factor == "two""#, Err(Stop::Anonymous)),
        (r#"user.groups.exists(g, g == "x")"#, Err(Stop::Anonymous)),
        // What does not depend on it is known.
        (r#"user.name == "alice" && request.method == "POST""#, Ok(false)),
        (r#"request.method == "GET" || user.name == "alice""#, Ok(true)),
        (r#"request.method == "GET" && user.name == "alice""#, Err(Stop::Anonymous)),
        (r#"request.method == "POST""#, Ok(false)),
    ] {
        assert_eq!(ask(expression, None, None), expected, "{expression}");
    }
    // An error refuses, whoever may sign in.
    let failed = ask(r#"user.name == "alice" && request.query.none == "x""#, None, None);
    assert!(matches!(failed, Err(Stop::Failed(_))), "{failed:?}");
}

#[test]
fn a_client_stands_for_no_user() {
    assert_eq!(ask(r#"user.name == "alice""#, Some(&alice()), Some("ci")), Ok(false));
    assert_eq!(ask(r#"user.name == """#, Some(&alice()), Some("ci")), Ok(true));
}

#[test]
fn a_regex_sees_past_line_breaks() {
    let matches = |query: &str| {
        let roles = roles();
        let expression = r#"request.query.cmd.matches("^.*drop.*$") && request.query.cmd.matches(r"^.*\bdrop$")"#;
        let when = When::parse(expression, &attributes(), &roles).expect("sound");
        when.outcome(&Reading { query: Query::Raw(Some(query)), ..reading(&roles) })
    };
    assert_eq!((matches("cmd=a%0Adrop"), matches("cmd=a%0Adropped")), (Ok(true), Ok(false)));
}

/// Whichever comes first.
#[test]
fn errors_in_a_list_are_ranked() {
    let (failing, anonymous) = (r#"request.headers["x-none"]"#, "user.name");
    for list in [format!("{failing}, {anonymous}"), format!("{anonymous}, {failing}")] {
        assert_eq!(ask(&format!(r#""x" in [{list}]"#), None, None), Err(Stop::Anonymous), "{list}");
        assert_eq!(ask(&format!(r#""x" in [{list}, "x"]"#), None, None), Ok(true), "{list}");
    }
}

#[test]
fn what_is_read_is_known() {
    let roles = roles();
    let parsed = |text: &str| When::parse(text, &attributes(), &roles).expect("sound");
    let when = parsed(r#"request.headers["X-Plan"] == "a" && request.query.page == "1" && has(request.query.debug)"#);
    let reads = when.reads();
    assert!(!reads.caller);
    assert_eq!(reads.headers, [(Box::from("x-plan"), Extent::Value)].into());
    assert_eq!(reads.query, [(Box::from("debug"), Extent::Presence), (Box::from("page"), Extent::Value)].into());
    for expression in ["user.beta", "session.age > duration(\"1s\")", "user.can(\"read:reports\")", "has(user.tier)"] {
        assert!(parsed(expression).reads().caller, "{expression}");
    }
}
