//! No fault repeats the value of a key that holds a secret, or a URL with a password in it, however wrong it is written.

use super::tests::{GOOD, RULES, load_text};

/// Where a secret stands, or where one may be put by mistake: `@` is the value.
const PLACES: &[&str] = &[
    "notifier:\n  smtp:\n    address: smtps://mail.example.com\n    username: postern\n    password: @\n",
    "notifier:\n  smtp:\n    address: @\n",
    "notifier:\n  smtp: @\n",
    "notifier:\n  smtp:\n    password:@\n",
    "notifier: { smtp: { address: \"smtps://mail.example.com\", username: postern, password:@ } }\n",
    "tokens:\n  trusted_issuers:\n    - issuer: idp\n      audiences: [postern]\n      secret: @\n",
    "tokens:\n  trusted_issuers:\n    - issuer: @\n      audiences: [postern]\n      discovery: true\n",
    "tokens:\n  trusted_issuers:\n    - { issuer: a, audiences: [b], discovery: true }\n    - issuer: idp\n      audiences: [postern]\n      jwks: @\n",
    "tokens:\n  trusted_issuers:\n    - issuer: idp\n      audiences: [postern]\n      discovery: @\n",
    "tokens:\n  trusted_issuers: @\n",
    "tokens:\n  issuer: @\n",
    "storage:\n  database: @\n",
    "storage:\n  sessions: @\n",
    "storage:\n  counters: @\n",
    "storage: @\n",
];

/// Values that YAML takes for something else, that break it, and those that are read and then refused.
const VALUES: &[&str] = &[
    "hunter2",
    "8675309",
    "-8675309",
    "86753.09",
    "0x8675309",
    "1e8675309",
    "86753098675309867530",
    "86753098675309867530986753098675309867530986753098",
    "!!int hunter2",
    "!!binary hunter2",
    "!hunter2 hunter2",
    "!hunter2",
    "*hunter2",
    "&hunter2",
    "@hunter2",
    "`hunter2`",
    "%hunter2",
    "\"hunter2",
    "'hunter2",
    "\"hun\\qter2\"",
    "[hunter2",
    "[hunter2]",
    "[8675309]",
    "{other: hunter2",
    "{ other: 8675309 }",
    "other: hunter2",
    "|hunter2",
    "a${hunter2!}b",
    "a${hunter2}b",
    "a${hunter2",
    "${HUNTER-hunter2}",
    "http://u:hunter2@db",
    "http://u:hunter2@db?hunter2",
    "https://u:hunter2@[db]/x",
    "redis://:hunter2@r",
    "redishunter2",
    "smtp://u:hunter2@r",
    "postgres://u:hunter2@db",
    "postgres://u:hunter2@a,b/x",
    "sqlite://?hunter2",
];

fn shows_it(told: &str) -> bool {
    ["hunter2", "ter2", "8675309", "86753"].iter().any(|part| told.contains(part))
}

#[test]
fn no_fault_repeats_a_secret() {
    for place in PLACES {
        for value in VALUES {
            let text = format!("{GOOD}{}", place.replace('@', value));
            match load_text(&text, &[RULES]) {
                Err(told) => assert!(!shows_it(&told), "{place:?} {value}: {told}"),
                Ok(loaded) => {
                    let warned: String = loaded.warnings.iter().map(ToString::to_string).collect();
                    assert!(!shows_it(&warned), "{place:?} {value}: {warned}");
                }
            }
        }
    }
}

/// A route's template may hold what the application knows us by, a server's URL a password.
#[test]
fn no_fault_repeats_what_an_application_is_told() {
    for value in VALUES.iter().copied().chain(["hunter2}", "{hunter2}", "hunter2{", "\"hunter2\\n\""]) {
        for text in [
            GOOD.replace("upstream: app }", &format!("upstream: app, headers: {{ X-Key: {value} }} }}")),
            GOOD.replace("upstream: app }", &format!("upstream: app, headers: {{ X-Key:{value} }} }}")),
            GOOD.replace("[\"http://127.0.0.1:3000\"]", &format!("[{value}]")),
            GOOD.replace("[\"http://127.0.0.1:3000\"]", value),
            GOOD.replace("\"https://auth.example.com\"", value),
        ] {
            assert_ne!(text, GOOD);
            let told = load_text(&text, &[RULES]).err().unwrap_or_default();
            assert!(!shows_it(&told), "{text}: {told}");
        }
    }
}

#[test]
fn what_is_no_secret_is_still_told() {
    for (text, part) in [
        ("storage: { database: 5 }", "found a number; write for example `sqlite://data/postern.db`"),
        (
            "notifier: { smtp: { address: \"smtps://a.test\", username: a, password: 5 } }",
            "found a number; put it in quotes",
        ),
        ("notifier: { new_device: yes }", "found `yes`"),
        ("notifier: { smtp: { password:x } }", "`notifier.smtp.password:` needs a blank"),
        ("storage: { database: \"${DATABASE}\" }", "the environment variable `DATABASE` is not set"),
        ("storage: { counters: \"redis://:x@r/y\" }", "names a database that is no number"),
        ("storage: { counters: database }", "limits cannot be counted there"),
        ("storage: { counters_on_failure: open }", "write `share` or `refuse`"),
        ("storage: { sessions: \"redis://:x@r/y\" }", "names a database that is no number"),
        ("storage: { sessions: memory }", "sessions cannot be kept there"),
    ] {
        let told = load_text(&format!("{GOOD}{text}\n"), &[RULES]).unwrap_err();
        assert!(told.contains(part), "{text}: {told}");
    }
}
