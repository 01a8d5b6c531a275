//! The keys of Redis that sessions are in: reading, writing and removing records, with no regard to who ended what. Used by [`super::RedisRecords`].
//!
//! No two keys are changed at once, so that they may lie on different nodes of a cluster. A record is written last and deleted first: what leads to none is
//! cleaned away later. `SPACE` is a random name that the database keeps, so that databases can share a Redis without seeing each other's sessions:
//!
//! | key | what |
//! |---|---|
//! | `postern:SPACE:session:HASH` | a hash: `record`, and `used` (ms), its last use. HASH is that of the session's cookie |
//! | `postern:SPACE:id:ID` | the HASH of the session of this public id |
//! | `postern:SPACE:user:NAME` | a sorted set of a user's HASHes, by when they may be gone (ms) |
//! | `postern:SPACE:sessions` | a sorted set of all, `HASH NAME`, by when to look whether they are idle or too old (ms) |

use std::sync::Arc;

use arc_swap::ArcSwap;
use redis::{Cmd, cmd};

use crate::{
    core::{session::SessionId, time::Timestamp, user::folded},
    ports::{LiveSession, Unavailable},
    store::{
        redis::Redis,
        session::{
            record::{Record, named},
            records::{STEP, STORE},
        },
    },
};

/// A use is only written where the record still is, and never goes back.
const WRITE_USE: &str = "local used = redis.call('HGET', KEYS[1], 'used') \
     if used and tonumber(used) < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'used', ARGV[1]) end \
     return 0";
/// With the time after which Redis may drop it, in one step.
const WRITE_RECORD: &str = "redis.call('HSET', KEYS[1], 'record', ARGV[1], 'used', ARGV[2]) \
     return redis.call('PEXPIRE', KEYS[1], ARGV[3])";

/// What a key leads to that does not belong to it.
pub(super) const OF_ANOTHER: &str = "a session's id leads to another's record";

pub(super) struct Held {
    redis: Arc<Redis>,
    space: ArcSwap<String>,
}

/// What is read of a record's key: its text and its last use.
type Raw = (Option<String>, Option<String>);

/// A record that is there and cannot be read has no name but its key's.
pub(super) enum Read {
    Record(Box<Record>),
    Damaged(String),
}

fn read(hash: &str, raw: Raw) -> Option<Read> {
    let (Some(text), Some(used)) = raw else { return None };
    let Ok(used) = used.parse() else { return Some(Read::Damaged("a session's last use is damaged".to_owned())) };
    Some(match Record::read(&text, used) {
        // A key that was written over by another's record must not open that one's session.
        Ok(record) if named(&record.session.gate_hash) == hash => Read::Record(Box::new(record)),
        Ok(_) => Read::Damaged("a session's record is another's".to_owned()),
        Err(detail) => Read::Damaged(detail),
    })
}

/// When Redis may throw a record away (a margin beyond every lifetime), and when to look whether it is over.
pub(super) struct Times {
    pub(super) gone_at: Timestamp,
    pub(super) look_at: Timestamp,
}

fn command(name: &str, key: String) -> Cmd {
    cmd(name).arg(key).take()
}

fn hmget(key: String) -> Cmd {
    cmd("HMGET").arg(key).arg("record").arg("used").take()
}

pub(super) fn damaged(detail: String) -> Unavailable {
    Unavailable { store: STORE, detail }
}

/// Of the set of all.
fn member(hash: &str, folded_user: &str) -> String {
    format!("{hash} {folded_user}")
}

pub(super) fn hash_of(member: &str) -> &str {
    member.split_once(' ').map_or(member, |(hash, _)| hash)
}

impl Held {
    /// To be moved to where they are.
    pub(super) fn new(redis: Arc<Redis>) -> Self {
        Self { redis, space: ArcSwap::default() }
    }

    pub(super) fn move_to(&self, space: &str) {
        self.space.store(Arc::new(space.to_owned()));
    }

    /// The name that a database gave.
    pub(super) fn space(&self) -> Arc<String> {
        self.space.load_full()
    }

    fn session_key(&self, hash: &str) -> String {
        format!("postern:{}:session:{hash}", self.space.load())
    }

    fn id_key(&self, id: &SessionId) -> String {
        format!("postern:{}:id:{id}", self.space.load())
    }

    fn user_key(&self, folded_user: &str) -> String {
        format!("postern:{}:user:{folded_user}", self.space.load())
    }

    fn all_key(&self) -> String {
        format!("postern:{}:sessions", self.space.load())
    }

    /// Of these hashes, those that there are.
    pub(super) async fn read_each(
        &self,
        operation: &'static str,
        hashes: &[String],
    ) -> Result<Vec<(String, Read)>, Unavailable> {
        let commands: Vec<Cmd> = hashes.iter().map(|hash| hmget(self.session_key(hash))).collect();
        let raw: Vec<Raw> = self.redis.ask_each(STORE, operation, &commands).await?;
        let each = hashes.iter().zip(raw);
        Ok(each.filter_map(|(hash, raw)| Some((hash.clone(), read(hash, raw)?))).collect())
    }

    /// Where the records of these ids are. None for those that are not there.
    pub(super) async fn hashes_of(
        &self,
        operation: &'static str,
        ids: &[SessionId],
    ) -> Result<Vec<Option<String>>, Unavailable> {
        let commands: Vec<Cmd> = ids.iter().map(|id| command("GET", self.id_key(id))).collect();
        self.redis.ask_each(STORE, operation, &commands).await
    }

    /// What is there by this id, whether it still counts or not.
    pub(super) async fn read_by_id(
        &self,
        operation: &'static str,
        id: &SessionId,
    ) -> Result<Option<Read>, Unavailable> {
        let Some(hash) = self.hashes_of(operation, std::slice::from_ref(id)).await?.pop().flatten() else {
            return Ok(None);
        };
        Ok(match self.read_each(operation, &[hash]).await?.pop() {
            Some((_, Read::Record(record))) if record.session.id != *id => Some(Read::Damaged(OF_ANOTHER.to_owned())),
            found => found.map(|(_, read)| read),
        })
    }

    pub(super) async fn record_of(
        &self,
        operation: &'static str,
        id: &SessionId,
    ) -> Result<Option<Record>, Unavailable> {
        match self.read_by_id(operation, id).await? {
            None => Ok(None),
            Some(Read::Record(record)) => Ok(Some(*record)),
            Some(Read::Damaged(detail)) => Err(damaged(detail)),
        }
    }

    /// All records of a user, whether they still count or not. Damaged ones are left out: nobody can use them.
    pub(super) async fn records_of_user(
        &self,
        operation: &'static str,
        folded_user: &str,
    ) -> Result<Vec<Record>, Unavailable> {
        let members = cmd("ZRANGE").arg(self.user_key(folded_user)).arg(0).arg(-1).take();
        let hashes: Vec<String> = self.redis.ask(STORE, operation, &members).await?;
        let mut records = Vec::with_capacity(hashes.len());
        for step in hashes.chunks(STEP) {
            for (_, read) in self.read_each(operation, step).await? {
                match read {
                    Read::Record(record) => records.push(*record),
                    Read::Damaged(detail) => tracing::debug!(detail, "a session cannot be read"),
                }
            }
        }
        Ok(records)
    }

    pub(super) async fn remove(&self, operation: &'static str, records: &[Record]) -> Result<(), Unavailable> {
        let mut first = Vec::new();
        let mut then = Vec::new();
        for Record { session, .. } in records {
            let (hash, user) = (named(&session.gate_hash), folded(&session.user));
            first.push(command("DEL", self.session_key(&hash)));
            then.push(command("DEL", self.id_key(&session.id)));
            then.push(cmd("ZREM").arg(self.user_key(&user)).arg(&hash).take());
            then.push(cmd("ZREM").arg(self.all_key()).arg(member(&hash, &user)).take());
        }
        let _: Vec<i64> = self.redis.ask_each(STORE, operation, &first).await?;
        let _: Vec<i64> = self.redis.ask_each(STORE, operation, &then).await?;
        Ok(())
    }

    /// At `now`.
    pub(super) async fn write(&self, record: &Record, times: Times, now: Timestamp) -> Result<(), Unavailable> {
        let session = &record.session;
        let (hash, user) = (named(&session.gate_hash), folded(&session.user));
        let (gone_at, look_at, now) = (times.gone_at.unix_millis(), times.look_at.unix_millis(), now.unix_millis());
        let keep = gone_at.saturating_sub(now).max(1);
        let (mine, all) = (self.user_key(&user), self.all_key());
        let leads = [
            // Those that nobody ended.
            cmd("ZREMRANGEBYSCORE").arg(&mine).arg("-inf").arg(now).take(),
            cmd("ZADD").arg(&mine).arg(gone_at).arg(&hash).take(),
            cmd("ZADD").arg(all).arg(look_at).arg(member(&hash, &user)).take(),
            cmd("PSETEX").arg(self.id_key(&session.id)).arg(keep).arg(&hash).take(),
        ];
        let _: Vec<redis::Value> = self.redis.ask_each(STORE, "create", &leads).await?;
        let mut write = cmd("EVAL");
        write.arg(WRITE_RECORD).arg(1).arg(self.session_key(&hash));
        write.arg(record.to_text()).arg(session.last_used_at.unix_millis()).arg(keep);
        let _: i64 = self.redis.ask(STORE, "create", &write).await?;
        Ok(())
    }

    /// The hashes of all that may be there.
    pub(super) async fn all(&self) -> Result<Vec<String>, Unavailable> {
        let mut all = Vec::new();
        let mut cursor: u64 = 0;
        loop {
            let scan = cmd("ZSCAN").arg(self.all_key()).arg(cursor).arg("COUNT").arg(1_000).take();
            let (next, found): (u64, Vec<(String, f64)>) = self.redis.ask(STORE, "all", &scan).await?;
            all.extend(found.into_iter().map(|(member, _)| hash_of(&member).to_owned()));
            cursor = next;
            if cursor == 0 {
                // It may tell one twice.
                all.sort_unstable();
                all.dedup();
                return Ok(all);
            }
        }
    }

    pub(super) async fn write_uses(&self, uses: &[Arc<LiveSession>]) -> Result<(), Unavailable> {
        let write = |live: &Arc<LiveSession>| {
            let mut write = cmd("EVAL");
            write.arg(WRITE_USE).arg(1).arg(self.session_key(&named(&live.session.gate_hash)));
            write.arg(live.last_used().unix_millis()).take()
        };
        let commands: Vec<Cmd> = uses.iter().map(write).collect();
        let _: Vec<i64> = self.redis.ask_each(STORE, "write_uses", &commands).await?;
        Ok(())
    }

    pub(super) async fn count(&self) -> Result<u64, Unavailable> {
        self.redis.ask(STORE, "count", &command("ZCARD", self.all_key())).await
    }

    /// Members of the set of all that are to be looked at: [`STEP`] at most.
    pub(super) async fn due(&self, now: Timestamp) -> Result<Vec<String>, Unavailable> {
        let mut due = cmd("ZRANGEBYSCORE");
        due.arg(self.all_key()).arg("-inf").arg(now.unix_millis()).arg("LIMIT").arg(0).arg(STEP);
        self.redis.ask(STORE, "clean", &due).await
    }

    pub(super) async fn look_later(&self, members: &[(&String, Timestamp)]) -> Result<(), Unavailable> {
        let later = |(member, at): &(&String, Timestamp)| {
            cmd("ZADD").arg(self.all_key()).arg("XX").arg(at.unix_millis()).arg(*member).take()
        };
        let commands: Vec<Cmd> = members.iter().map(later).collect();
        let _: Vec<i64> = self.redis.ask_each(STORE, "clean", &commands).await?;
        Ok(())
    }

    /// Of members of the set of all whose records are gone.
    pub(super) async fn remove_leads(&self, members: &[&String]) -> Result<(), Unavailable> {
        let mut commands = Vec::with_capacity(2 * members.len());
        for member in members {
            commands.push(cmd("ZREM").arg(self.all_key()).arg(*member).take());
            if let Some((hash, user)) = member.split_once(' ') {
                commands.push(cmd("ZREM").arg(self.user_key(user)).arg(hash).take());
            }
        }
        let _: Vec<i64> = self.redis.ask_each(STORE, "clean", &commands).await?;
        Ok(())
    }
}
