//! No expression takes long, nor what a request makes of one, and none panics.

use proptest::prelude::*;

use super::*;

#[test]
fn no_expression_takes_long() {
    let list = format!("[{}]", vec!["1"; 60].join(","));
    let deep = format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, a == b && c == d))))");
    match said(&deep) {
        Err(Stop::Failed(why)) => assert!(why.contains("too many steps"), "{why}"),
        other => panic!("{other:?}"),
    }
    // Nor what a request makes of it: to find a parameter all of them are looked at, but once.
    let plans =
        format!("[{}].exists(p, request.query.plan == p || has(request.query.none))", vec!["\"a\""; 400].join(","));
    let roles = roles();
    let when = When::parse(&plans, &attributes(), &roles).expect("sound");
    let of = |query: &str| when.outcome(&Reading { query: Query::Raw(Some(query)), ..reading(&roles) });
    assert_eq!(of("plan=a"), Ok(true));
    let long = format!("plan=b&{}", "%25".repeat(20_000));
    assert_eq!(of(&long), Ok(false));
    assert_eq!(eval::look_ups(&when.root, &Reading { query: Query::Raw(Some(&long)), ..reading(&roles) }), 2);
    match of(&format!("plan={}", "b".repeat(60_000))) {
        Err(Stop::Failed(why)) => assert!(why.contains("too many steps"), "{why}"),
        other => panic!("{other:?}"),
    }
    // Lists of lists of lists are as long as all that is in them.
    let lists = format!("[1]{}.size() > 0", ".map(x, [x, x, x, x])".repeat(12));
    match said(&lists) {
        Err(Stop::Failed(why)) => assert!(why.contains("too many steps"), "{why}"),
        other => panic!("{other:?}"),
    }
    // Nor does a claim that is one, held against whatever there is.
    let empty: Vec<serde_json::Value> = (0..8000).map(|_| json!([])).collect();
    let alice = alice_with(json!({ "many": empty }));
    let held = "user.claims.many == x";
    let against = format!("user.claims.many.exists(x, {})", [held; 10].join(" || "));
    match ask(&against, Some(&alice), None) {
        Err(Stop::Failed(why)) => assert!(why.contains("too many steps"), "{why}"),
        other => panic!("{other:?}"),
    }
    let doubling = format!("{}.size() > 0", "[1,1,1,1,1,1,1,1].map(x, [x,x,x,x,x,x,x,x])");
    assert_eq!(said(&doubling), Ok(true));
    assert!(faults(&format!("{}true", "!".repeat(5000)))[0].contains("longer than"));
    let nested = format!("{}true{}", "(".repeat(200), ")".repeat(200));
    assert!(faults(&nested)[0].contains("not valid CEL"), "{:?}", faults(&nested));
    // As deep and as long as may be: nobody runs out of stack.
    for repeated in
        ["!", "-", "1+", "true?true:", "[", "(", "a[", "{1:", "true&&", "user.", "a.b(", "a.exists(x,", "1=="]
    {
        for count in [20, 60, LONGEST / repeated.len() - 1] {
            let text = format!("{}1", repeated.repeat(count));
            if When::parse(&text, &attributes(), &roles).is_ok() {
                let _ = said(&text);
            }
        }
    }
    let sum = |terms: usize| format!("{}1 > 0", "1+".repeat(terms));
    assert_eq!(said(&sum(50)), Ok(true));
    assert!(faults(&sum(100))[0].contains("nested too deeply"), "{:?}", faults(&sum(100)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever is written: a fault or an answer, and never a panic.
    #[test]
    fn nothing_panics(
        parts in prop::collection::vec(prop::sample::select(vec![
            "user", "request", "session", ".", "name", "claims", "groups", "level", "time", "getHours", "(", ")", "[", "]", "\"x\"", "1",
            "-", "+", "*", "/", "%", "==", "<", "&&", "||", "!", "?", ":", " in ", "has", "exists", "x", ",", "9223372036854775807",
            "-9223372036854775808", "null", "1.5", "true", "size", "duration", "\"1h\"", "timestamp", "{", "}", "query", "headers",
        ]), 1..14),
    ) {
        let text = parts.concat();
        if let Ok(when) = When::parse(&text, &attributes(), &roles()) {
            let _ = when;
            let _ = said(&text);
        }
    }

    #[test]
    fn durations_and_zones_never_panic(text in "[-+0-9.:hms]{0,24}") {
        let _ = time::duration(&text);
        let _ = time::zone(&text);
        let _ = time::timestamp(&text);
    }
}
