//! Whatever stands in a policy file: it is refused with a place in the file, or it becomes rules, and those say the same on the live path
//! and in an explanation (DESIGN, invariant 6).

use std::{path::Path, sync::LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use postern::{
    config::parse_policies,
    core::{
        client_ip::ClientAddress,
        identity::{Factor, Identity},
        policy::{Imagined, ImaginedCaller, Question, RuleSet},
        target::{EncodedSlashes, Target},
        time::Timestamp,
    },
};

/// Between them they have two readings, encoded slashes, queries, and hosts that patterns take apart.
const URLS: [&str; 7] = [
    "https://app.example.com/",
    "https://app.example.com/admin/x?debug=1",
    "https://app.example.com/admin;v=1/x/%C3%A4",
    "https://app.example.com/a%2Fb/..%2fc?a=1&a=2&B[]=;%zz",
    "https://bob.home.example.com/public/a/b/c.html",
    "https://team-dev.example.com/healthz",
    "http://192.0.2.1:8080/x",
];
static TARGETS: LazyLock<Vec<Target>> = LazyLock::new(|| {
    URLS.iter().map(|url| Target::parse_url_with(url, EncodedSlashes::Strictest).expect(url)).collect()
});
static CALLERS: LazyLock<[Option<Identity>; 3]> = LazyLock::new(|| {
    let caller = |user, groups: &[&str], factor| {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        let attributes =
            serde_json::from_str(r#"{"tier": "gold", "seats": 5, "on": true, "list": ["a", 1]}"#).expect("JSON");
        let who = ImaginedCaller {
            user: Some(str::to_owned(user)),
            groups,
            factor,
            signed_in_at: Timestamp::default(),
            attributes,
        };
        Some(Imagined::caller(who).expect("a name"))
    };
    [None, caller("bob", &["dev"], Factor::One), caller("alice", &["admins", "dev"], Factor::Two)]
});

pub(crate) fn run(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let lines = text.bytes().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64 + 1;
    match parse_policies(Path::new("fuzzed.yaml"), text) {
        Ok((rules, warnings)) => {
            for warning in warnings {
                assert!(warning.line <= lines, "{warning}");
            }
            asked(&rules);
        }
        Err(faults) => {
            assert!(!faults.0.is_empty());
            for fault in &faults.0 {
                // 0: of the file as a whole.
                assert!(fault.line <= lines, "{fault}, in a file of {lines} lines");
                assert!(!fault.message.is_empty() && !fault.to_string().chars().any(char::is_control), "{fault}");
            }
        }
    }
}

fn asked(rules: &RuleSet) {
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-plan"), HeaderValue::from_static("gold"))]);
    let known = ClientAddress::Known([192, 0, 2, 7].into());
    for target in TARGETS.iter() {
        for caller in CALLERS.iter() {
            for (method, client, route) in [("GET", known, Some("app")), ("DELETE", ClientAddress::Unknown, None)] {
                let now = Timestamp::default().after(std::time::Duration::from_secs(1000));
                let headers = route.map(|_| &headers);
                let question = Question { target, method, client, caller: caller.as_ref(), now, headers, route };
                let (decided, explained) = (rules.decide(&question), rules.explain(&question, None));
                assert_eq!((decided.ruling, decided.level), (explained.ruling, explained.level), "{question:?}");
                assert_eq!(&**decided.rule, explained.rule, "{question:?}");
                let decisive = explained.decisive().and_then(|place| explained.trace.get(place));
                assert_eq!(decisive.map_or("default", |line| &line.rule), explained.rule, "{question:?}");
            }
        }
    }
}
