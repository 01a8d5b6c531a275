//! What is wrong with an expression is told when the rules are loaded, all of it and where.

use super::*;

#[test]
fn faults_are_told_when_the_rules_are_loaded() {
    for (expression, column, words) in [
        ("", 1, "not valid CEL"),
        ("user.name ==", 13, "not valid CEL"),
        ("usr.name == \"x\"", 1, "did you mean \"user\"?"),
        ("whatever", 1, "an expression knows user, request, session, route"),
        ("user.nam == \"x\"", 5, "did you mean \"name\"?"),
        ("user.subscription == \"x\"", 5, "declare it under attributes"),
        ("request.body == \"x\"", 8, "it has host, path"),
        ("user.name", 5, "it is a string, and a rule needs a bool"),
        ("user.claims.tier", 12, "compare it, as in … == true"),
        ("user", 1, "`user` has no value of its own"),
        ("user == \"x\"", 1, "`user` has no value of its own"),
        ("user.claims == user.claims", 5, "`user.claims` has no value of its own: write user.claims.NAME"),
        ("[user.claims].exists(x, true)", 6, "write user.claims.NAME"),
        ("user.claims.exists(x, true)", 5, "write user.claims.NAME"),
        ("request.headers == \"x\"", 8, "request.headers[\"NAME\"]"),
        ("user.name == 1", 11, "a string and a int are never equal"),
        ("user.level < \"x\"", 12, "cannot be compared"),
        ("user.name && true", 5, "each side of && and || must be a bool"),
        ("!user.name", 6, "what ! turns around must be a bool"),
        ("true ? 1 : \"x\"", 12, "both sides of :"),
        ("1 in user.groups", 1, "a int is never in a list(string)"),
        ("user.name in user.email", 18, "`in` looks into a list"),
        ("[1, \"x\"] == [1]", 5, "a list holds values of one type"),
        ("user.level + \"x\" == 1", 12, "+ does not go with a int and a string"),
        ("user.level + 1.0 == 1.0", 12, "+ does not go with a int and a double"),
        ("size(user.level) == 1", 10, "a int has no size"),
        ("size() == 1", 5, "write it as in size(user.groups)"),
        ("user.name.startsWith(\"a\", \"b\")", 21, "startsWith is not called like that"),
        ("user.name.beginsWith(\"a\")", 21, "there is no function beginsWith"),
        ("user.name.startWith(\"a\")", 20, "did you mean startsWith?"),
        ("request.path.matches(\"admin\")", 22, "is not anchored"),
        ("request.path.matches(\"^(\")", 22, "is not valid"),
        (r#"request.path.matches("^/admin\b")"#, 22, r#"write r"…""#),
        ("request.path.matches(\"^(?P<User>x)\")", 22, "has a group User or Group"),
        ("request.path.matches(user.name)", 26, "must be written out"),
        ("user.can(\"read:planes\")", 10, "there is no role that grants"),
        ("user.can(\"manage:*\")", 10, "wildcard"),
        ("user.can(user.name)", 14, "must be written out"),
        ("request.can(\"read:reports\")", 1, "can is asked of the user"),
        ("request.headers.authorization == \"x\"", 16, "holds credentials"),
        ("request.headers[\"Cookie\"] == \"x\"", 16, "holds credentials"),
        ("\"cookie\" in request.headers", 10, "holds credentials"),
        ("request.headers[\"Remote-User\"] == \"x\"", 16, "a client could forge it"),
        ("request.headers[\"X-Forwarded-For\"] == \"x\"", 16, "a client could forge it"),
        ("request.headers[user.name] == \"x\"", 21, "must be written out"),
        ("request.query[user.name] == \"x\"", 19, "must be written out"),
        ("request.headers[\"a b\"] == \"x\"", 16, "is not the name of a header"),
        ("request.time.getHours(\"Europe/Berlim\") < 1", 23, "there is no time zone \"Europe/Berlim\""),
        ("request.time.getHours(\"+25:00\") < 1", 23, "there is no time zone"),
        ("user.name.getHours() < 1", 5, "has no getHours"),
        ("session.age.getMonth() < 1", 21, "a duration has no getMonth"),
        ("duration(\"1 hour\") < session.age", 10, "is no duration"),
        ("timestamp(\"yesterday\") < request.time", 11, "is no timestamp"),
        ("{\"a\": 1}[\"a\"] == 1", 1, "maps and messages"),
        ("1u == 1u", 1, "unsigned"),
        ("b\"x\" == b\"x\"", 1, "bytes"),
        ("user.name.exists(x, x == \"a\")", 5, "macros are for lists"),
        ("has(user.name)", 4, "always there"),
        ("type(user.name) == \"x\"", 5, "there is no function type"),
        ("user.name.first == \"x\"", 10, "has no fields"),
    ] {
        let told = faults(expression);
        let found = told.iter().any(|told| told.contains(&format!("at column {column}:")) && told.contains(words));
        assert!(found, "{expression}: {told:?} lacks {words:?} at {column}");
    }
}

#[test]
fn a_fault_has_its_line() {
    let told = faults("user.name == \"ä\"\n  && usr.name == \"x\"");
    assert!(told[0].starts_with("in the expression at line 2, column 6: there is no \"usr\""), "{told:?}");
    let told = faults("user.name == \"x\" &&\n  user.level >");
    assert!(told[0].starts_with("in the expression at line 2, column "), "{told:?}");
}

#[test]
fn all_faults_at_once_in_their_order() {
    let told = faults("usr.name == \"x\" && user.level == \"y\" && request.tyme > request.time");
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.is_sorted_by_key(|told| told.split(':').next().map(|told| told.len())), "{told:?}");
}
