//! Streams of callers without a session's cookie: by a token, by a password with the request, by another issuer's token.

use super::*;
use crate::{
    core::{
        api_token::Owner,
        ground::OwnToken,
        issuer::{JwtAlgorithm, KeyAddress, KeyPlace, KeySource, TrustedIssuer, claims::ClaimMapping, jwks::KeySet},
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
    by_foreign_of(scene, "carol", seconds)
}

fn by_foreign_of(scene: &Scene, user: &str, seconds: i64) -> (Arc<Line>, Place) {
    let issuer = scene.site.tokens.trusted_issuers.first().cloned().unwrap_or_else(trusted);
    let identity = Identity::new(&User::new(user, Vec::new()), Factor::One, NOW, None).unwrap();
    let (key, name) = (secret(SECRET), scene.issuers.watch());
    let key = Arc::new(key.keys[0].print());
    scene.open_by(&Arc::new(identity), Ground::Foreign { issuer, key, until: after(seconds), name: Some(name) })
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn secret(secret: &str) -> Arc<KeySet> {
    Arc::new(KeySet::of_secret(secret.into()))
}

fn trusted() -> Arc<TrustedIssuer> {
    issuer("postern", JwtAlgorithm::HS256, KeySource::Fixed(secret(SECRET)), ClaimMapping::default())
}

fn issuer(audience: &str, algorithm: JwtAlgorithm, keys: KeySource, claims: ClaimMapping) -> Arc<TrustedIssuer> {
    Arc::new(TrustedIssuer::new(
        "https://idp.example.com".to_owned(),
        vec![audience.to_owned()],
        keys,
        vec![algorithm],
        Duration::ZERO,
        claims,
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

#[tokio::test]
async fn threat_36_a_stream_by_another_issuers_token_ends_when_its_key_or_what_is_trusted_of_the_issuer_changes() {
    let good = || KeySource::Fixed(secret(SECRET));
    let prefixed = ClaimMapping { prefix: "idp-".to_owned(), ..ClaimMapping::default() };
    let (ours, claims) = (JwtAlgorithm::HS256, ClaimMapping::default());
    for (now, is_ended) in [
        (trusted(), false),
        (issuer("others", ours, good(), claims.clone()), true),
        (issuer("postern", JwtAlgorithm::EdDSA, good(), claims.clone()), true),
        (issuer("postern", ours, good(), prefixed), true),
        (issuer("postern", ours, KeySource::Fixed(secret("another")), claims.clone()), true),
        (issuer("postern", ours, KeySource::Fixed(Arc::default()), claims), true),
    ] {
        for is_sure in [true, false] {
            let mut scene = Scene::new();
            scene.site.tokens.trusted_issuers = vec![trusted()];
            scene.issuers.sure.store(true, Ordering::SeqCst);
            let (first, second) = (by_foreign(&scene, 600), by_foreign(&scene, 600));
            scene.look_at(2).await;
            assert_eq!(over(&scene, &first), None);
            scene.site.tokens.trusted_issuers = vec![Arc::clone(&now)];
            scene.issuers.sure.store(is_sure, Ordering::SeqCst);
            scene.look_at(3).await;
            assert_eq!(over(&scene, &second), is_ended.then_some(Over::Credential), "{now:?}");
        }
    }
}

/// Keys are fetched anew all the while.
#[tokio::test]
async fn threat_36_a_stream_ends_when_the_issuer_takes_the_key_back_and_not_when_others_come() {
    let address = KeyAddress {
        place: KeyPlace::Jwks("https://idp.example.com/keys".parse().unwrap()),
        interval: Duration::from_secs(30),
        refresh: Duration::from_secs(600),
    };
    let mut scene = Scene::new();
    let fetched = KeySource::Fetched(Arc::new(address));
    scene.site.tokens.trusted_issuers = vec![issuer("postern", JwtAlgorithm::HS256, fetched, ClaimMapping::default())];
    scene.issuers.sure.store(true, Ordering::SeqCst);
    let set = |secrets: &[&str]| {
        let keys = secrets.iter().flat_map(|secret| KeySet::of_secret((*secret).into()).keys);
        Some(Arc::new(KeySet { keys: keys.collect() }))
    };
    let open = [(); 4].map(|()| by_foreign(&scene, 600));
    for (seconds, keys, ended) in [
        (10, set(&[SECRET]), None),
        (11, set(&["another", SECRET]), None),
        (12, None, None),
        (13, set(&["another"]), Some(Over::Credential)),
    ] {
        *scene.issuers.keys.lock().unwrap() = keys;
        scene.look_at(seconds).await;
        let open = &open[usize::try_from(seconds - 10).unwrap()];
        assert_eq!(over(&scene, open), ended, "{seconds}");
    }
}

/// Memory knows nothing, and a question takes so long that one look has time for three, eight at once.
#[tokio::test(start_paused = true)]
async fn a_slow_store_ends_no_stream_by_a_token_or_a_password_that_counts() {
    const MANY: usize = 500;
    let mut scene = Scene::new();
    scene.site.tokens.trusted_issuers = vec![trusted()];
    for time in [
        &scene.stores.read_time,
        &scene.api_tokens.read_time,
        &scene.door.read_time,
        &scene.issuers.read_time,
        &scene.revocations.read_time,
    ] {
        time.store(200, Ordering::SeqCst);
    }
    scene.revocations.unsure.store(true, Ordering::SeqCst);
    let mut open = Vec::new();
    for (number, mark) in ('\u{4e00}'..).take(MANY).enumerate() {
        let secret = scene.api_tokens.issue(Owner::Service(format!("job-{number}")), &[], None);
        let hash = TokenHash::of(&secret);
        let live = scene.api_tokens.find(&hash).await.unwrap().unwrap();
        open.push(scene.open_by(&live.identity, Ground::ApiToken(hash)));
        let live = session(mark, 1);
        scene.stores.store(&live);
        open.push(by_access_token(&scene, &live, |token| token.jti = format!("jti-{number}")));
        let bob = scene.door.called(&format!("bob-{number}")).unwrap();
        open.push(scene.open_by(&bob.identity, Ground::Password { watch: bob.watch, stamp: bob.stamp }));
        open.push(by_foreign_of(&scene, &format!("carol-{number}"), 600));
    }
    for millis in (1_000..10_000).step_by(1_000) {
        scene.api_tokens.forget_in_memory();
        scene.look_at_millis(millis).await;
    }
    let over: Vec<_> = open.iter().filter_map(|open| over(&scene, open)).collect();
    assert!(over.is_empty(), "{} of {}: {over:?}", over.len(), open.len());
}
