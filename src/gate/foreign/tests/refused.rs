//! What is refused for good costs one signature, however often it comes.

use super::*;

fn refusals(world: &World) -> i64 {
    world.issuers.refusals.swap(0, Ordering::SeqCst)
}

#[tokio::test]
async fn threat_58_a_token_that_is_refused_for_good_is_verified_once() {
    let world = World::new();
    let forged = signed(&header(), &claims(), &private(8), Algorithm::EdDSA);
    let over = made(&header(), &with(claims(), "exp", json!(NOW.unix_seconds() - 60)));
    let elsewhere = made(&header(), &with(claims(), "aud", json!("other")));
    let of_service = made(&header(), &with(claims(), "nonce", json!("n")));
    for token in [&forged, &over, &elsewhere, &of_service] {
        for _ in 0..3 {
            assert_eq!(world.user(token).await, Err("401"));
        }
        assert_eq!(refusals(&world), 1, "{token}");
    }
    assert!(world.user(&made(&header(), &claims())).await.is_ok(), "none of those");
    assert_eq!(refusals(&world), 0);
}

#[tokio::test]
async fn what_may_become_good_is_verified_each_time() {
    let world = World::new();
    let early = made(&header(), &with(claims(), "nbf", json!(NOW.unix_seconds() + 600)));
    let of_unknown_key = made(&with(header(), "kid", json!("next")), &claims());
    world.issuers.local_names.lock().unwrap().push("dave".to_owned());
    let of_dave = made(&header(), &with(claims(), "sub", json!("dave")));
    for token in [&early, &of_unknown_key, &of_dave, "no.token.at-all"] {
        assert!(world.user(token).await.is_err(), "{token}");
        assert_eq!(refusals(&world), 0, "{token}");
    }
    // The key has come, and the name is nobody's any more.
    *world.issuers.keys.lock().unwrap() = Some(key_set(&[ed_jwk(9, "ed"), ed_jwk(9, "next")]));
    world.issuers.local_names.lock().unwrap().clear();
    assert!(world.user(&of_unknown_key).await.is_ok() && world.user(&of_dave).await.is_ok());
}

#[tokio::test]
async fn what_was_refused_is_verified_anew_with_other_keys_and_another_configuration() {
    let mut world = World::new();
    let token = signed(&header(), &claims(), &private(8), Algorithm::EdDSA);
    assert_eq!(world.user(&token).await, Err("401"));
    *world.issuers.keys.lock().unwrap() = Some(key_set(&[ed_jwk(8, "ed")]));
    assert!(world.user(&token).await.is_ok(), "another key of that name");
    let of_id = made(&header(), &with(claims(), "nonce", json!("n")));
    *world.issuers.keys.lock().unwrap() = Some(key_set(&[ed_jwk(9, "ed")]));
    assert_eq!(world.user(&of_id).await, Err("401"));
    world.site.tokens.trusted_issuers = vec![Arc::new(trusted(|issuer| issuer.id_tokens = true))];
    assert!(world.user(&of_id).await.is_ok(), "its ID tokens are taken now");
}
