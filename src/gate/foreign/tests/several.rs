//! More issuers than one.

use super::*;

/// What memory has of a token stands for its issuer, whichever of several it is; a token that it lacks is read.
#[tokio::test]
async fn tokens_of_several_issuers_are_remembered_each_for_its_own() {
    let named = |name: &str| {
        let keys = KeySource::Fixed(key_set(&[ed_jwk(9, "ed")]));
        let prefix = format!("{name}:");
        let claims = ClaimMapping { prefix, ..ClaimMapping::default() };
        TrustedIssuer::new(
            name.to_owned(),
            vec!["postern".to_owned()],
            keys,
            JwtAlgorithm::DEFAULT.to_vec(),
            Duration::ZERO,
            claims,
            false,
        )
    };
    let world = World::trusting(vec![named("one"), named("two")]);
    for (issuer, user) in [("one", "one:carol"), ("two", "two:carol")] {
        let token = made(&header(), &with(claims(), "iss", json!(issuer)));
        for asked in [1, 0] {
            assert_eq!(world.user(&token).await.as_deref(), Ok(user));
            assert_eq!(world.issuers.names_asked.swap(0, Ordering::SeqCst), asked);
        }
    }
    let stranger = made(&header(), &with(claims(), "iss", json!("three")));
    assert_eq!(world.user(&stranger).await, Err("sign_in"), "the application's");
}
