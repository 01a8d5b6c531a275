use super::*;
use crate::{
    core::{identity::Factor, user::User},
    ports::{Change, fakes::Stopped},
    store::session::Source as SessionSource,
};

struct Log(bool);

#[async_trait]
impl Changes for Log {
    async fn latest(&self) -> Result<i64, Unavailable> {
        if self.0 { Ok(1) } else { Err(Unavailable { store: "changes", detail: "down".to_owned() }) }
    }
    async fn after(&self, _: i64) -> Result<Option<Vec<Change>>, Unavailable> {
        Ok(None)
    }
}

fn remembered(log: bool) -> (Arc<SessionCache>, RememberedPasswords) {
    let sessions = Arc::new(SessionCache::new(Arc::new(Stopped)));
    sessions.trust(SessionSource::Log, Duration::ZERO);
    let passwords =
        RememberedPasswords::new(sessions.clone(), Arc::new(Log(log)), &crate::store::system::SystemEntropy);
    (sessions, passwords)
}

struct Unwatched;

impl Watch for Unwatched {
    fn is_unchanged(&self) -> bool {
        false
    }
}

fn bob(at: i64) -> Recognised {
    let user = User::new("Bob", vec!["staff".to_owned()]);
    let identity = Identity::new(&user, Factor::One, Timestamp::from_unix_millis(at), None).unwrap();
    // What says whether he changed is made of the mark, whatever came along.
    Recognised { identity: Arc::new(identity), stamp: Stamp::of(1, "hash"), watch: Arc::new(Unwatched) }
}

fn presented(user: &str, word: &str, from: Option<&str>) -> Presentation {
    let address = from.map(|address| address.parse().unwrap());
    Presentation { user: user.to_owned(), password: word.into(), address }
}

fn key(passwords: &RememberedPasswords, user: &str, word: &str) -> PasswordKey {
    passwords.key(&presented(user, word, Some("192.0.2.7")))
}

#[tokio::test]
async fn what_was_verified_is_recalled_until_the_user_changes() {
    let (sessions, passwords) = remembered(true);
    let secret = key(&passwords, "bob", "secret");
    let mark = passwords.mark("Bob").await.unwrap();
    passwords.remember(secret, &bob(0), &mark);
    let recalled = |word: &str, name: &str| {
        passwords.recall(&key(&passwords, name, word), Timestamp::from_unix_millis(1)).is_some()
    };
    assert!(recalled("secret", "bob") && recalled("secret", " BOB"), "names are folded");
    assert!(!recalled("Secret", "bob") && !recalled("", "bob") && !recalled("secret", "ann"));
    assert!(!recalled("bsecret", "bo"), "the name's end is not the password's beginning");
    sessions.drop_user("ann");
    assert!(recalled("secret", "bob"), "somebody else's change");
    sessions.drop_user("bob");
    assert!(!recalled("secret", "bob"));
    passwords.remember(secret, &bob(0), &mark);
    assert!(!recalled("secret", "bob"), "verified before the change, remembered after it");
}

#[tokio::test]
async fn nothing_is_recalled_while_memory_is_unsure() {
    let (sessions, passwords) = remembered(true);
    let key = key(&passwords, "bob", "secret");
    passwords.remember(key, &bob(0), &passwords.mark("bob").await.unwrap());
    sessions.distrust(SessionSource::Log);
    assert!(passwords.recall(&key, Timestamp::default()).is_none());
    sessions.trust(SessionSource::Log, Duration::ZERO);
    assert!(passwords.recall(&key, Timestamp::default()).is_some());
    sessions.drop_all();
    assert!(passwords.recall(&key, Timestamp::default()).is_none());
}

#[tokio::test]
async fn threat_32_no_password_counts_where_the_log_of_changes_is_out_of_reach() {
    let (sessions, passwords) = remembered(false);
    assert!(passwords.mark("bob").await.is_ok(), "it was looked at a moment ago");
    sessions.distrust(SessionSource::Log);
    assert!(passwords.mark("bob").await.is_err());
}

/// `max_auth_age` asks when the password was presented: with this very request.
#[tokio::test]
async fn whoever_is_recalled_has_just_presented_it() {
    let (_sessions, passwords) = remembered(true);
    let key = key(&passwords, "bob", "secret");
    passwords.remember(key, &bob(0), &passwords.mark("bob").await.unwrap());
    let at = |millis| {
        passwords.recall(&key, Timestamp::from_unix_millis(millis)).unwrap().identity.signed_in_at.unix_millis()
    };
    assert_eq!((at(1), at(4_999)), (0, 0), "not a new one for every request");
    assert_eq!((at(600_000), at(600_001)), (600_000, 600_000));
}

/// Where many sign out all the time, what was verified meanwhile is remembered all the same.
#[tokio::test]
async fn a_change_of_somebody_else_keeps_nothing_from_being_remembered() {
    let (sessions, passwords) = remembered(true);
    let key = key(&passwords, "bob", "secret");
    let recalled = || passwords.recall(&key, Timestamp::default()).is_some();
    let mark = passwords.mark("bob").await.unwrap();
    sessions.drop_user("ann");
    sessions.drop_session(&crate::core::session::SessionId::new("of ann".to_owned()));
    passwords.remember(key, &bob(0), &mark);
    assert!(recalled());
    for change in [|sessions: &SessionCache| sessions.drop_user("bob"), SessionCache::drop_all] {
        let mark = passwords.mark("bob").await.unwrap();
        change(&sessions);
        passwords.remember(key, &bob(0), &mark);
        assert!(!recalled());
    }
    passwords.remember(key, &bob(0), &passwords.mark("ann").await.unwrap());
    assert!(!recalled(), "whose changes nobody watched");
}

#[tokio::test]
async fn names_of_nobody_take_no_room_for_long() {
    let (sessions, passwords) = remembered(true);
    let kept = passwords.mark("bob").await.unwrap();
    for number in 0..20_000 {
        drop(passwords.mark(&number.to_string()).await.unwrap());
    }
    assert!(sessions.known_users() < 10_000, "{}", sessions.known_users());
    sessions.drop_user("bob");
    assert!(!passwords.stands(&kept));
}

/// Regulation bars by address too: memory answers nobody from elsewhere.
#[test]
fn a_pair_is_another_from_another_address() {
    let (_, passwords) = remembered(true);
    let from = |from| passwords.key(&presented("bob", "secret", from)).0;
    let different = [None, Some("192.0.2.7"), Some("192.0.2.8"), Some("2001:db8::1"), Some("2001:db8:0:1::1")];
    let keys: std::collections::HashSet<[u8; 32]> = different.map(from).into();
    assert_eq!(keys.len(), different.len());
    assert_eq!(from(Some("2001:db8::1")), from(Some("2001:db8::ffff")), "one /64");
    assert_eq!(from(Some("::ffff:192.0.2.7")), from(Some("192.0.2.7")));
}

#[test]
fn a_wrong_pair_is_known_as_such_once_it_was_wrong() {
    let (_, passwords) = remembered(true);
    let (one, other) = (key(&passwords, "bob", "one"), key(&passwords, "bob", "other"));
    assert!(!passwords.was_wrong(&one, false) && !passwords.was_wrong(&one, true));
    assert!(passwords.was_wrong(&one, false) && passwords.was_wrong(&one, true));
    assert!(!passwords.was_wrong(&other, false));
    assert!(passwords.recall(&one, Timestamp::default()).is_none());
}

#[test]
fn no_two_processes_share_keys() {
    let (_, one) = remembered(true);
    let (_, other) = remembered(true);
    assert!(key(&one, "bob", "secret") != key(&other, "bob", "secret"));
}

/// Whoever waits came after the change, or may have: they are not told what was read before it.
#[tokio::test]
async fn a_word_that_a_change_of_the_user_has_overtaken_is_nobodys() {
    let (sessions, passwords) = remembered(true);
    let key = key(&passwords, "bob", "secret");
    for changes in [false, true] {
        let PasswordTurn::Lead(lead) = passwords.turn(&key, None).await else { panic!("nobody leads yet") };
        let mark = passwords.mark("bob").await.unwrap();
        let telling = async {
            if changes {
                sessions.drop_user("bob");
            }
            lead.tell(Ok(Some(bob(0))), Some(mark));
        };
        let (turn, ()) = tokio::join!(passwords.turn(&key, None), telling);
        assert_eq!(matches!(turn, PasswordTurn::Told(Ok(Some(_)))), !changes);
        assert_eq!(matches!(turn, PasswordTurn::Lead(_)), changes, "it is their turn");
    }
}
