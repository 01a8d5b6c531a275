//! Streams of callers without a session's cookie: by a token, by a password with the request, by another issuer's token.

use super::*;
use crate::{
    core::{
        api_token::Owner,
        ground::OwnToken,
        issuer::{JwtAlgorithm, KeySource, TrustedIssuer, claims::ClaimMapping, jwks::KeySet},
        session::TokenHash,
    },
    ports::ApiTokens as _,
};

fn after(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(NOW.unix_millis() + seconds * 1000)
}

/// Three streams by one API token, which memory knows.
async fn by_api_token(scene: &Scene, expires_at: Option<Timestamp>) -> [(Arc<Line>, Place); 3] {
    let secret = scene.api_tokens.issue(Owner::User("bob".to_owned()), &[], expires_at);
    let hash = TokenHash::of(&secret);
    let live = scene.api_tokens.find(&hash).await.unwrap().unwrap();
    std::array::from_fn(|_| scene.open_by(&live.identity, Ground::ApiToken(hash)))
}

#[tokio::test]
async fn threat_36_a_stream_by_an_api_token_ends_when_the_token_is_revoked() {
    let scene = Scene::new();
    let [first, second, third] = by_api_token(&scene, None).await;
    scene.look_at(2).await;
    assert_eq!(over(&scene, &first), None);
    assert!(scene.api_tokens.uses.load(Ordering::SeqCst) > 0, "it counts as use");
    scene.api_tokens.forget_in_memory();
    scene.look_at(3).await;
    assert_eq!(over(&scene, &second), None, "the store knows it");
    scene.api_tokens.forget();
    scene.look_at(4).await;
    assert_eq!(over(&scene, &third), Some(Over::Credential));
}

#[tokio::test]
async fn a_stream_by_an_api_token_ends_when_the_token_expires() {
    let scene = Scene::new();
    let [first, second, third] = by_api_token(&scene, Some(after(60))).await;
    scene.look_at(59).await;
    assert_eq!(over(&scene, &first), None);
    scene.look_at(60).await;
    assert_eq!(over(&scene, &second), Some(Over::Lifetime));
    assert_eq!(over(&scene, &third), Some(Over::Lifetime));
    let [first, second, _] = by_api_token(&scene, Some(after(120))).await;
    scene.look_at(119).await;
    // In an outage too: when it ends needs no store, once it was read.
    scene.api_tokens.forget_in_memory();
    scene.api_tokens.down.store(true, Ordering::SeqCst);
    assert_eq!(over(&scene, &first), None);
    scene.look_at(120).await;
    assert_eq!(over(&scene, &second), Some(Over::Lifetime));
}

#[tokio::test]
async fn threat_36_an_outage_ends_streams_by_credentials_as_it_ends_those_of_sessions() {
    let mut scene = Scene::new();
    scene.site.tokens.trusted_issuers = vec![trusted()];
    let [by_token, by_token_too, _] = by_api_token(&scene, None).await;
    let (by_password, by_name) = (by_password(&scene), by_foreign(&scene, 600));
    scene.door.sure.store(true, Ordering::SeqCst);
    scene.issuers.sure.store(true, Ordering::SeqCst);
    scene.look_at(10).await;
    scene.api_tokens.forget_in_memory();
    for unsure in [&scene.door.sure, &scene.issuers.sure] {
        unsure.store(false, Ordering::SeqCst);
    }
    for down in [&scene.api_tokens.down, &scene.door.down, &scene.issuers.users_down] {
        down.store(true, Ordering::SeqCst);
    }
    scene.look_at(11).await;
    assert_eq!(over(&scene, &by_token), None);
    scene.look_at(12).await;
    for open in [&by_token_too, &by_password, &by_name] {
        assert_eq!(over(&scene, open), Some(Over::Unsure));
    }
}

/// By an access token of the session `a`.
fn by_access_token(scene: &Scene, live: &LiveSession, change: impl FnOnce(&mut OwnToken)) -> (Arc<Line>, Place) {
    let mut token = OwnToken { jti: "one".to_owned(), kid: "key-1".to_owned(), version: 4, until: after(60) };
    change(&mut token);
    scene.open_by(&live.identity, Ground::AccessToken(Arc::new(token)))
}

#[tokio::test]
async fn threat_36_a_stream_by_an_access_token_ends_with_the_token_or_its_session() {
    for is_remembered in [true, false] {
        let live = session('a', 1);
        let scene = Scene::with(&live);
        let is_sure = is_remembered;
        scene.revocations.unsure.store(!is_sure, Ordering::SeqCst);
        if is_remembered {
            scene.stores.remember(&live);
        }
        let good = [by_access_token(&scene, &live, |_| {}), by_access_token(&scene, &live, |_| {})];
        let revoked = by_access_token(&scene, &live, |token| token.jti = "two".to_owned());
        let raised = by_access_token(&scene, &live, |token| token.version = 3);
        let of_removed_key = by_access_token(&scene, &live, |token| token.kid = "key-0".to_owned());
        let shorter = by_access_token(&scene, &live, |token| token.until = after(30));
        scene.look_at(2).await;
        assert_eq!(over(&scene, &raised), Some(Over::Credential), "a new token version");
        assert_eq!(over(&scene, &of_removed_key), Some(Over::Credential), "its key was removed");
        scene.revocations.revoked.lock().unwrap().push("two".to_owned());
        scene.look_at(3).await;
        assert_eq!(over(&scene, &revoked), Some(Over::Credential));
        scene.look_at(30).await;
        assert_eq!(over(&scene, &shorter), Some(Over::Lifetime), "`exp`");
        assert_eq!(over(&scene, &good[0]), None);
        scene.stores.forget();
        scene.look_at(31).await;
        assert_eq!(over(&scene, &good[1]), Some(Over::Session));
    }
}

#[tokio::test]
async fn an_access_token_expires_in_an_outage_too() {
    let live = session('a', 1);
    let scene = Scene::with(&live);
    let open = by_access_token(&scene, &live, |_| {});
    scene.look_at(59).await;
    scene.stores.down.store(true, Ordering::SeqCst);
    scene.look_at(60).await;
    assert_eq!(over(&scene, &open), Some(Over::Lifetime));
}

fn by_password(scene: &Scene) -> (Arc<Line>, Place) {
    let bob = scene.door.bob().unwrap();
    scene.open_by(&bob.identity, Ground::Password { watch: bob.watch, stamp: bob.stamp })
}

#[tokio::test]
async fn threat_36_a_stream_by_a_password_ends_when_its_user_changes() {
    let staff = || vec!["staff".to_owned()];
    for (bob, ended) in [
        (Some((staff(), 1)), None),
        (Some((staff(), 2)), Some(Over::Credential)),
        (Some((Vec::new(), 1)), Some(Over::Person)),
        (None, Some(Over::Credential)),
    ] {
        let scene = Scene::new();
        scene.door.sure.store(true, Ordering::SeqCst);
        let (first, second) = (by_password(&scene), by_password(&scene));
        scene.look_at(10).await;
        assert_eq!(over(&scene, &first), None);
        assert_eq!(scene.door.asked.load(Ordering::SeqCst), 0, "memory knows");
        // Something of the user changed; memory alone cannot say what.
        scene.door.sure.store(false, Ordering::SeqCst);
        *scene.door.bob.lock().unwrap() = bob.clone();
        scene.look_at(11).await;
        assert_eq!(over(&scene, &second), ended, "{bob:?}");
        assert_eq!(scene.door.asked.load(Ordering::SeqCst), 1);
    }
}

fn by_foreign(scene: &Scene, seconds: i64) -> (Arc<Line>, Place) {
    let issuer = scene.site.tokens.trusted_issuers.first().cloned().unwrap_or_else(trusted);
    let identity = Identity::new(&User::new("carol", Vec::new()), Factor::One, NOW, None).unwrap();
    let name = scene.issuers.watch();
    scene.open_by(&Arc::new(identity), Ground::Foreign { issuer, until: after(seconds), name: Some(name) })
}

fn trusted() -> Arc<TrustedIssuer> {
    Arc::new(TrustedIssuer::new(
        "https://idp.example.com".to_owned(),
        vec!["postern".to_owned()],
        KeySource::Fixed(Arc::new(KeySet::of_secret("0123456789abcdef0123456789abcdef".into()))),
        vec![JwtAlgorithm::HS256],
        Duration::ZERO,
        ClaimMapping::default(),
        false,
    ))
}

#[tokio::test]
async fn threat_36_a_stream_by_another_issuers_token_ends_with_it() {
    let mut scene = Scene::new();
    scene.site.tokens.trusted_issuers = vec![trusted()];
    scene.issuers.sure.store(true, Ordering::SeqCst);
    let [short, first, second, third] =
        [by_foreign(&scene, 30), by_foreign(&scene, 600), by_foreign(&scene, 600), by_foreign(&scene, 600)];
    scene.look_at(29).await;
    assert_eq!(over(&scene, &first), None);
    scene.look_at(30).await;
    assert_eq!(over(&scene, &short), Some(Over::Lifetime), "`exp`");
    assert_eq!(scene.issuers.names_asked.load(Ordering::SeqCst), 0, "memory knows");
    scene.issuers.sure.store(false, Ordering::SeqCst);
    scene.look_at(31).await;
    assert_eq!(over(&scene, &second), None, "somebody else's change");
    scene.issuers.local_names.lock().unwrap().push("Carol".to_owned());
    scene.look_at(32).await;
    assert_eq!(over(&scene, &third), Some(Over::Credential), "somebody here is called so now");
}

#[tokio::test]
async fn a_stream_by_the_token_of_an_issuer_that_is_trusted_no_more_ends() {
    let mut scene = Scene::new();
    scene.site.tokens.trusted_issuers = vec![trusted()];
    scene.issuers.sure.store(true, Ordering::SeqCst);
    let (first, second) = (by_foreign(&scene, 600), by_foreign(&scene, 600));
    scene.look_at(2).await;
    assert_eq!(over(&scene, &first), None);
    scene.site.tokens.trusted_issuers.clear();
    scene.look_at(3).await;
    assert_eq!(over(&scene, &second), Some(Over::Credential));
}
