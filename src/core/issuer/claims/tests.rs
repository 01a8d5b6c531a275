//! Claims as Auth0, Keycloak, Supabase and Google write them, and claims that nobody should.

use serde_json::json;

use super::*;

fn path(text: &str) -> ClaimPath {
    ClaimPath::parse(text).unwrap()
}

fn read(mapping: &ClaimMapping, claims: &Value) -> Result<Identity, BadClaims> {
    mapping.read(claims.as_object().unwrap().clone())
}

fn factor(claim: &str, two: &[&str]) -> Option<FactorClaim> {
    Some(FactorClaim { claim: path(claim), two: two.iter().map(|&value| value.to_owned()).collect() })
}

#[test]
fn tokens_of_the_usual_issuers() {
    let default = ClaimMapping::default;
    let keycloak = json!({
        "iss": "https://sso.example.com/realms/main", "aud": ["postern", "account"], "typ": "Bearer", "azp": "cli", "acr": "2",
        "sub": "f3f1e3f0-2a2a-4d3c-9a67-2f1c5e5a0001", "preferred_username": "alice", "email": "alice@example.com",
        "email_verified": true, "name": "Alice Liddell", "realm_access": { "roles": ["editor", "offline_access"] },
        "resource_access": { "account": { "roles": ["view-profile"] } }, "groups": ["/staff", "/staff/dev"],
        "auth_time": 1_799_999_000, "scope": "openid profile",
    });
    let auth0 = json!({
        "iss": "https://tenant.eu.auth0.com/", "sub": "auth0|507f1f77bcf86cd799439011", "aud": ["postern", "https://tenant.eu.auth0.com/userinfo"],
        "azp": "my_client_id", "scope": "openid profile email", "permissions": ["read:x"],
        "https://example.com/roles": ["editor"], "https://example.com/groups": ["staff"],
    });
    let supabase = json!({
        "iss": "https://abc.supabase.co/auth/v1", "sub": "7b0d3a7e-1f3c-4f37-9f1f-9c0a2c1f0001", "aud": "authenticated",
        "email": "a@example.com", "phone": "", "role": "authenticated", "aal": "aal2", "session_id": "s", "is_anonymous": false,
        "app_metadata": { "provider": "email", "groups": ["staff"], "roles": ["editor"] }, "user_metadata": { "groups": ["admins"] },
        "amr": [{ "method": "totp", "timestamp": 1_799_999_990 }, { "method": "password", "timestamp": 1_799_999_000 }],
    });
    let google = json!({
        "iss": "https://accounts.google.com", "azp": "1.apps.googleusercontent.com", "aud": "1.apps.googleusercontent.com",
        "sub": "110169484474386276334", "hd": "example.com", "email": "alice@example.com", "email_verified": true,
        "at_hash": "x", "name": "Alice", "picture": "https://lh3.googleusercontent.com/a",
    });
    struct Case<'c> {
        mapping: ClaimMapping,
        claims: &'c Value,
        user: &'c str,
        groups: &'c [&'c str],
        roles: &'c [&'c str],
        email: Option<&'c str>,
        factor: Factor,
    }
    let two = Factor::Two;
    for case in [
        Case {
            mapping: ClaimMapping {
                user: path("preferred_username"),
                roles: Some(path("realm_access.roles")),
                factor: factor("acr", &["2", "gold"]),
                prefix: "kc:".to_owned(),
                ..default()
            },
            claims: &keycloak,
            user: "kc:alice",
            groups: &["/staff", "/staff/dev"],
            roles: &["editor", "offline_access"],
            email: Some("alice@example.com"),
            factor: two,
        },
        Case {
            mapping: ClaimMapping {
                groups: path("https://example.com/groups"),
                roles: ClaimPath::exactly(vec!["https://example.com/roles".to_owned()]),
                ..default()
            },
            claims: &auth0,
            user: "auth0|507f1f77bcf86cd799439011",
            groups: &["staff"],
            roles: &["editor"],
            email: None,
            factor: Factor::One,
        },
        Case {
            mapping: ClaimMapping {
                groups: path("app_metadata.groups"),
                roles: Some(path("app_metadata.roles")),
                factor: factor("aal", &["aal2"]),
                ..default()
            },
            claims: &supabase,
            user: "7b0d3a7e-1f3c-4f37-9f1f-9c0a2c1f0001",
            groups: &["staff"],
            roles: &["editor"],
            email: Some("a@example.com"),
            factor: two,
        },
        Case {
            mapping: ClaimMapping { factor: factor("amr", &["totp"]), ..default() },
            claims: &supabase,
            user: "7b0d3a7e-1f3c-4f37-9f1f-9c0a2c1f0001",
            groups: &[],
            roles: &[],
            email: Some("a@example.com"),
            factor: two,
        },
        Case {
            mapping: ClaimMapping { user: path("email"), ..default() },
            claims: &google,
            user: "alice@example.com",
            groups: &[],
            roles: &[],
            email: Some("alice@example.com"),
            factor: Factor::One,
        },
    ] {
        let identity = read(&case.mapping, case.claims).unwrap();
        assert_eq!(&*identity.user, case.user);
        assert_eq!(identity.groups, case.groups, "{}", case.user);
        assert_eq!(identity.claimed_roles(), case.roles, "{}", case.user);
        assert_eq!(identity.email.as_deref(), case.email, "{}", case.user);
        assert_eq!(identity.factor, case.factor, "{}", case.user);
        assert_eq!(identity.session, None);
        assert_eq!(identity.attributes.get("sub"), case.claims.get("sub"), "all claims are there for rules");
    }
    let signed_in_at = |claims| read(&default(), claims).unwrap().signed_in_at;
    assert_eq!(signed_in_at(&keycloak), Timestamp::from_unix_millis(1_799_999_000_000));
    assert_eq!(signed_in_at(&auth0), Timestamp::default(), "it does not say, so it is too old for any max_auth_age");
}

#[test]
fn threat_69_claims_that_would_forge_a_name_or_a_group() {
    let mapping = ClaimMapping { roles: Some(path("roles")), ..ClaimMapping::default() };
    let good = json!({ "sub": "bob", "groups": ["dev"] });
    assert!(read(&mapping, &good).is_ok());
    for (claim, value) in [
        ("sub", json!(null)),
        ("sub", json!("")),
        ("sub", json!(" bob")),
        ("sub", json!("bob,alice")),
        ("sub", json!("bob\r\nRemote-Groups: admins")),
        ("sub", json!("bob\t")),
        ("sub", json!("b".repeat(101))),
        ("sub", json!(5)),
        ("sub", json!(["bob"])),
        ("groups", json!(["dev", "a,admins"])),
        ("groups", json!("a,admins")),
        ("groups", json!(["a\nb"])),
        ("groups", json!([" admins"])),
        ("groups", json!([""])),
        ("groups", json!(["dev", 5])),
        ("groups", json!({ "admins": true })),
        ("groups", json!(true)),
        ("roles", json!({ "admin": true })),
        ("roles", json!([["admin"]])),
        ("name", json!("Bob\r\nRemote-User: alice")),
        ("name", json!(["Bob"])),
        ("email", json!("bob@example.com\r\nx")),
        ("email", json!("bob")),
        ("email", json!(7)),
    ] {
        let mut claims = good.clone();
        claims[claim] = value.clone();
        let refused = read(&mapping, &claims).map(|_| ()).unwrap_err();
        assert!(!refused.to_string().contains("alice"), "the log shows no claim: {refused}");
    }
    assert!(read(&mapping, &json!({ "groups": ["dev"] })).is_err(), "nobody");
}

#[test]
fn a_claim_within_what_is_no_object_refuses_the_token() {
    let within = || path("realm_access.x");
    let default = ClaimMapping::default;
    for mapping in [
        ClaimMapping { user: within(), ..default() },
        ClaimMapping { groups: within(), ..default() },
        ClaimMapping { roles: Some(within()), ..default() },
        ClaimMapping { name: within(), ..default() },
        ClaimMapping { email: within(), ..default() },
        ClaimMapping { factor: factor("realm_access.x", &["2"]), ..default() },
    ] {
        for told in [json!("x"), json!(["x"]), json!(5), json!(false)] {
            let refused = read(&mapping, &json!({ "sub": "bob", "realm_access": told }));
            assert!(matches!(refused, Err(BadClaims::Way(_))), "{told}");
        }
        for absent in [json!({ "sub": "bob" }), json!({ "sub": "bob", "realm_access": null })] {
            assert_eq!(read(&mapping, &absent).is_ok(), mapping.user == default().user, "{absent}");
        }
    }
}

#[test]
fn nobody_is_named_as_another_issuers_user() {
    let mapping = ClaimMapping { reserved: vec!["kc:".to_owned()], ..ClaimMapping::default() };
    for bad in ["kc:alice", "KC:alice", "kc:"] {
        assert!(read(&mapping, &json!({ "sub": bad })).is_err(), "{bad}");
    }
    assert!(read(&mapping, &json!({ "sub": "alice" })).is_ok());
}

#[test]
fn an_address_that_was_not_verified_is_nobodys() {
    let by_email = ClaimMapping { user: path("email"), ..ClaimMapping::default() };
    for told in [json!(false), json!("false"), json!(null), json!(0)] {
        let claims = json!({ "sub": "bob", "email": "alice@example.com", "email_verified": told });
        assert_eq!(read(&ClaimMapping::default(), &claims).unwrap().email, None, "{told}");
        assert!(matches!(read(&by_email, &claims), Err(BadClaims::Unverified)), "{told}");
    }
    for told in [json!(true), json!("true")] {
        let claims = json!({ "sub": "bob", "email": "alice@example.com", "email_verified": told });
        assert_eq!(&*read(&by_email, &claims).unwrap().user, "alice@example.com");
    }
    let silent = json!({ "sub": "bob", "email": "alice@example.com" });
    assert!(matches!(read(&by_email, &silent), Err(BadClaims::Unverified)), "nobody said that it was verified");
    let identity = read(&ClaimMapping::default(), &silent).unwrap();
    assert_eq!(identity.email.as_deref(), Some("alice@example.com"), "of a user who is named otherwise it is believed");
}

#[test]
fn only_what_the_issuer_maps_is_two_factors() {
    let claims = json!({ "sub": "bob", "acr": "2", "amr": ["pwd", "mfa"], "n": 2 });
    let of = |mapped| read(&ClaimMapping { factor: mapped, ..ClaimMapping::default() }, &claims).unwrap().factor;
    assert_eq!(of(None), Factor::One);
    assert_eq!(of(factor("acr", &["2"])), Factor::Two);
    assert_eq!(of(factor("amr", &["otp", "mfa"])), Factor::Two);
    for one in
        [factor("acr", &["3"]), factor("amr", &["otp"]), factor("aal", &["2"]), factor("n", &["2"]), factor("acr", &[])]
    {
        assert_eq!(of(one), Factor::One);
    }
}

#[test]
fn a_path_leads_through_objects_and_no_further() {
    let claims =
        json!({ "a": { "b": ["x"] }, "a.b": ["y"], "https://a.b/c": ["z"], "list": [{ "b": "w" }], "null": null });
    let found = |path: Option<ClaimPath>| path.unwrap().find(claims.as_object().unwrap()).unwrap().cloned();
    assert_eq!(found(ClaimPath::parse("a.b")), Some(json!(["x"])));
    assert_eq!(found(ClaimPath::exactly(vec!["a.b".to_owned()])), Some(json!(["y"])));
    assert_eq!(found(ClaimPath::parse("https://a.b/c")), Some(json!(["z"])));
    for nothing in ["b", "b.c", "a.c.d", "null", "null.b"] {
        assert_eq!(found(ClaimPath::parse(nothing)), None, "{nothing}");
    }
    for unreadable in ["a.b.c", "list.b", "list.0", "list.b.c"] {
        let found = path(unreadable).find(claims.as_object().unwrap());
        assert!(matches!(found, Err(BadClaims::Way(_))), "{unreadable}");
    }
    for bad in ["", ".", "a.", ".a", "a..b"] {
        assert_eq!(ClaimPath::parse(bad), None, "{bad}");
    }
}
