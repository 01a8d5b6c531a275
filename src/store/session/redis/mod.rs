//! Records of sessions in Redis. Asked by [`super::CachedSessions`] alone.
//!
//! Redis says what sessions there are, and the database which of them ended (`ends`): each end is a transaction there, with its row of the log, and
//! what is deleted here afterwards is tidying up. So a record that Redis lost is a session that has to sign in again, and one that it brings back, from a
//! replica that knew less or from yesterday's snapshot, opens nothing. A record whose database cannot be asked is not given out.

mod held;

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use self::held::{Held, OF_ANOTHER, Read, Times, damaged, hash_of};
use super::{
    cache::SessionCache,
    ends::{self, Ends, ends_of},
    record::{Record, named},
    records::{Forget, Found, IDLE_MARGIN, Key, STEP, STORE, SessionRecords},
    rows::{self, Belongs},
};
use crate::{
    core::{
        session::{Lifetimes, Session, SessionId},
        time::Timestamp,
        user::folded,
    },
    ports::{End, Entropy, LiveSession, Unavailable},
    store::{
        database::{Database, Guard},
        redis::Redis,
    },
};

/// Redis keeps records for so long beyond what a lifetime allows: its clock is not ours.
const GARBAGE_MARGIN: Duration = Duration::from_secs(600);

pub(in crate::store) struct RedisRecords {
    held: Held,
    database: Arc<Database>,
    /// Which may know still what Redis lost.
    cache: Arc<SessionCache>,
    /// By the present configuration.
    lifetimes: Arc<ArcSwap<Lifetimes>>,
    /// For the name of a database that has none yet.
    entropy: Arc<dyn Entropy>,
}

impl RedisRecords {
    /// Asks Redis nothing.
    ///
    /// # Errors
    /// The database does not answer.
    pub(in crate::store) async fn open(
        redis: Arc<Redis>,
        database: Arc<Database>,
        cache: Arc<SessionCache>,
        lifetimes: Arc<ArcSwap<Lifetimes>>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Unavailable> {
        let records = Self { held: Held::new(redis), database, cache, lifetimes, entropy };
        records.adopt_space().await?;
        Ok(records)
    }

    /// Sessions are below the name that the database says: to be asked again where another database took its place.
    ///
    /// # Errors
    /// The database does not answer.
    pub(in crate::store) async fn adopt_space(&self) -> Result<(), Unavailable> {
        // A new one each time: a database that knows of none must not come to one that another gave.
        let mut fresh = [0_u8; 12];
        self.entropy.fill(&mut fresh);
        let fresh = URL_SAFE_NO_PAD.encode(fresh);
        let space = async { ends::space(&self.database, &fresh).await };
        self.held.move_to(&self.database.run(STORE, "space", space).await?);
        Ok(())
    }

    /// What the database says of these, all of it at one moment. A database that took the place of another says nothing of what was found below the
    /// other's name: `space` is what it was before Redis was asked.
    async fn ends_of(
        &self,
        operation: &'static str,
        space: &str,
        records: &[Record],
        users: &[&str],
    ) -> Result<Ends, Unavailable> {
        let ends = self.database.run(STORE, operation, async { ends_of(&self.database, records, users).await }).await?;
        if ends.is_about(space) {
            return Ok(ends);
        }
        // Also where nobody else notices, as where a dump was read into the database that is there.
        self.cache.drop_all();
        self.adopt_space().await?;
        let detail = "another database took the place of the one whose sessions were read".to_owned();
        Err(Unavailable { store: STORE, detail })
    }

    /// Those that still count.
    async fn living(
        &self,
        operation: &'static str,
        space: &str,
        mut records: Vec<Record>,
    ) -> Result<Vec<Record>, Unavailable> {
        if !records.is_empty() {
            let ends = self.ends_of(operation, space, &records, &[]).await?;
            records.retain(|record| !ends.has_ended(record));
        }
        Ok(records)
    }

    /// Tidies up what ended in the database. That it fails changes nothing for anybody.
    async fn remove(&self, records: &[Record]) {
        if let Err(error) = self.held.remove("remove", records).await {
            tracing::debug!(%error, "what is left of ended sessions in Redis is cleaned away later");
        }
    }

    /// What ends together with a session; of one that Redis lost, or that cannot be read, by what memory knows of it.
    ///
    /// # Errors
    /// Redis does not answer, and memory does not know.
    pub(in crate::store) async fn belongs(&self, id: &SessionId) -> Result<Belongs, Unavailable> {
        match (self.held.read_by_id("belongs", id).await, self.cache.belongs(id)) {
            (Ok(Some(Read::Record(record))), _) => Ok(belongs(&record.session)),
            (_, Some(known)) => Ok(known),
            (Ok(Some(Read::Damaged(_)) | None), None) => Ok(Belongs::Lost),
            (Err(unavailable), None) => Err(unavailable),
        }
    }

    /// These sessions end in the database, and what belongs to them, all or none.
    async fn end_in_database(
        &self,
        operation: &'static str,
        ending: &[(SessionId, Belongs)],
    ) -> Result<(), Unavailable> {
        self.database
            .run(STORE, operation, async {
                let mut write = self.database.begin(Guard::Rows).await?;
                for (id, belongs) in ending {
                    rows::delete_session(&mut write, id, belongs).await?;
                }
                write.commit().await
            })
            .await
    }

    /// With all that belongs to its sign-in. First of all in the database: nothing that Redis does may be in the way.
    async fn end_one(&self, id: &SessionId, forget: &mut Forget) -> Result<u64, Unavailable> {
        forget.sessions.push(id.clone());
        let belongs = self.belongs(id).await;
        forget.users.extend(belongs.as_ref().ok().and_then(user_of));
        let ending = [(id.clone(), belongs.as_ref().unwrap_or(&Belongs::Lost).clone())];
        self.end_in_database("end", &ending).await?;
        // It is over, and what was handed over from it; where Redis cannot say what it was handed over from itself, that may go on: to be asked again.
        let belongs = belongs?;
        Ok(self.tidy_up_after(id, &belongs).await)
    }

    /// The records of a session and of all that belongs to the same sign-in.
    async fn records_with(&self, id: &SessionId, belongs: &Belongs) -> Result<Vec<Record>, Unavailable> {
        let Belongs::To { user, parent, .. } = belongs else { return Ok(Vec::new()) };
        let sign_in = parent.as_ref().unwrap_or(id);
        let mut records = self.held.records_of_user("end", user).await?;
        records.retain(|record| record.session.sign_in() == sign_in || record.session.id == *id);
        // Also where the list of the user's lacks it.
        if !records.iter().any(|record| record.session.id == *id) {
            records.extend(self.held.record_of("end", id).await?);
        }
        Ok(records)
    }

    /// After one of its sessions ended in the database, and its sign-in with it, by what [`RedisRecords::belongs`] said before. How many there were: it alone, where Redis
    /// cannot say.
    pub(in crate::store) async fn tidy_up_after(&self, id: &SessionId, belongs: &Belongs) -> u64 {
        let Some(user) = user_of(belongs) else { return 0 };
        self.cache.drop_user(&user);
        let space = self.held.space();
        let swept = async { self.sweep_records(&space, self.records_with(id, belongs).await?).await };
        swept.await.map_or_else(
            |error| {
                tracing::warn!(%error, "a session has ended, and what is left of it in Redis is cleaned away later");
                1
            },
            |ended| ended.max(1),
        )
    }

    async fn end_all(&self, user: &str, kept: Option<&SessionId>, forget: &mut Forget) -> Result<u64, Unavailable> {
        let user = folded(user);
        forget.users.push(user.clone());
        let kept = match kept {
            Some(id) => self.held.record_of("end", id).await?.map(|record| record.session.sign_in().clone()),
            None => None,
        };
        let in_database = self
            .database
            .run(STORE, "end", async {
                let mut write = self.database.begin(Guard::User(&user)).await?;
                let ended = rows::delete_all_but(&mut write, &user, kept.as_ref()).await?;
                write.commit().await?;
                Ok(ended)
            })
            .await?;
        Ok(in_database + self.sweep(Some(&user)).await)
    }

    /// Tidies up after the database ended all sessions of a user, or everybody's. How many there were; zero where Redis cannot say: they are over all the same.
    pub(in crate::store) async fn sweep(&self, folded_user: Option<&str>) -> u64 {
        let swept = match folded_user {
            Some(user) => self.sweep_of_user(user).await,
            None => self.sweep_all().await,
        };
        swept.unwrap_or_else(|error| {
            tracing::warn!(%error, "sessions have ended, and what is left of them in Redis is cleaned away later: they are not counted");
            0
        })
    }

    async fn sweep_of_user(&self, folded_user: &str) -> Result<u64, Unavailable> {
        let space = self.held.space();
        let records = self.held.records_of_user("sweep", folded_user).await?;
        self.sweep_records(&space, records).await
    }

    async fn sweep_records(&self, space: &str, records: Vec<Record>) -> Result<u64, Unavailable> {
        if records.is_empty() {
            return Ok(0);
        }
        let ends = self.ends_of("sweep", space, &records, &[]).await?;
        let over: Vec<Record> = records.into_iter().filter(|record| ends.has_ended(record)).collect();
        self.remove(&over).await;
        Ok(over.len() as u64)
    }

    async fn sweep_all(&self) -> Result<u64, Unavailable> {
        let (space, mut swept) = (self.held.space(), 0);
        for hashes in self.held.all().await?.chunks(STEP) {
            let read = self.held.read_each("sweep", hashes).await?;
            let records = read.into_iter().filter_map(|(_, read)| match read {
                Read::Record(record) => Some(*record),
                Read::Damaged(_) => None,
            });
            swept += self.sweep_records(&space, records.collect()).await?;
        }
        Ok(swept)
    }
}

fn belongs(session: &Session) -> Belongs {
    let (user, parent, made_at) = (folded(&session.user), session.parent.clone(), session.created_at);
    Belongs::To { user, parent, made_at }
}

fn user_of(belongs: &Belongs) -> Option<String> {
    match belongs {
        Belongs::To { user, .. } => Some(user.clone()),
        Belongs::ByRow | Belongs::Lost => None,
    }
}

#[async_trait]
impl SessionRecords for RedisRecords {
    async fn find(&self, operation: &'static str, key: Key<'_>) -> Result<Option<Session>, Unavailable> {
        let space = self.held.space();
        let record = match key {
            Key::Id(id) => self.held.record_of(operation, id).await?,
            Key::GateHash(hash) => match self.held.read_each(operation, &[named(hash)]).await?.pop() {
                None => None,
                Some((_, Read::Record(record))) => Some(*record),
                Some((_, Read::Damaged(detail))) => return Err(damaged(detail)),
            },
        };
        let living = self.living(operation, &space, record.into_iter().collect()).await?.pop();
        Ok(living.map(|record| record.session))
    }

    async fn find_each(&self, ids: &[SessionId]) -> Result<Found, Unavailable> {
        let space = self.held.space();
        let hashes = self.held.hashes_of("find_ids", ids).await?;
        let named: Vec<(&SessionId, String)> =
            ids.iter().zip(hashes).filter_map(|(id, hash)| Some((id, hash?))).collect();
        let wanted: Vec<String> = named.iter().map(|(_, hash)| hash.clone()).collect();
        let read: HashMap<String, Read> = self.held.read_each("find_ids", &wanted).await?.into_iter().collect();
        let mut found = Found::default();
        let mut records = Vec::with_capacity(named.len());
        for (id, hash) in named {
            match read.get(&hash) {
                None => {}
                Some(Read::Record(record)) if record.session.id == *id => records.push(Record::clone(record)),
                Some(Read::Record(_)) => found.damaged.push((id.clone(), OF_ANOTHER.to_owned())),
                Some(Read::Damaged(detail)) => found.damaged.push((id.clone(), detail.clone())),
            }
        }
        let living = self.living("find_ids", &space, records).await?;
        found.sessions = living.into_iter().map(|record| record.session).collect();
        Ok(found)
    }

    async fn absent(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Unavailable> {
        let hashes = self.held.hashes_of("absent", ids).await?;
        Ok(ids.iter().zip(hashes).filter(|(_, hash)| hash.is_none()).map(|(id, _)| id.clone()).collect())
    }

    async fn insert(
        &self,
        session: &Session,
        named_ids: &[SessionId],
        forget: &mut Forget,
    ) -> Result<bool, Unavailable> {
        let user = folded(&session.user);
        // First of all: what is raised from now on ends it, whatever else is found below.
        let made_at = self.ends_of("create", &self.held.space(), &[], &[&user]).await?.numbers_of(&user);
        if let Some(parent) = &session.parent {
            // One that is to be ended hands nothing over.
            if named_ids.contains(parent) || self.find("create", Key::Id(parent)).await?.is_none() {
                return Ok(false);
            }
        }
        let record = Record { session: session.clone(), made_at };
        self.held.write(&record, Self::times(session, &self.lifetimes.load()), self.database.clock.now()).await?;
        if named_ids.is_empty() {
            return Ok(true);
        }
        let ended = self.end_named(named_ids, forget).await;
        if ended.is_err() {
            // Its cookie reaches nobody.
            self.remove(&[record]).await;
        }
        ended.map(|()| true)
    }

    async fn list(&self, folded_user: Option<&str>) -> Result<Vec<Session>, Unavailable> {
        let space = self.held.space();
        let records = match folded_user {
            Some(user) => self.held.records_of_user("list", user).await?,
            None => {
                let mut records = Vec::new();
                for hashes in self.held.all().await?.chunks(STEP) {
                    for (_, read) in self.held.read_each("list", hashes).await? {
                        match read {
                            Read::Record(record) => records.push(*record),
                            Read::Damaged(detail) => return Err(damaged(detail)),
                        }
                    }
                }
                records
            }
        };
        let mut sessions = Vec::with_capacity(records.len());
        for step in records.chunks(STEP) {
            sessions.extend(self.living("list", &space, step.to_vec()).await?.into_iter().map(|record| record.session));
        }
        sessions.sort_by(|one: &Session, other: &Session| {
            other.created_at.cmp(&one.created_at).then_with(|| one.id.as_str().cmp(other.id.as_str()))
        });
        Ok(sessions)
    }

    async fn end(&self, which: End<'_>, forget: &mut Forget) -> Result<u64, Unavailable> {
        match which {
            End::One(id) => self.end_one(id, forget).await,
            End::AllOf { user } => self.end_all(user, None, forget).await,
            End::AllBut { user, kept } => self.end_all(user, Some(kept), forget).await,
        }
    }

    async fn write_uses(&self, uses: &[Arc<LiveSession>]) -> Result<(), Unavailable> {
        self.held.write_uses(uses).await
    }

    async fn clean(&self, lifetimes: Lifetimes) -> Result<(), Unavailable> {
        let longest = lifetimes.lifetime.max(lifetimes.remember_me) + GARBAGE_MARGIN;
        while self.database.run(STORE, "clean_ends", async { ends::clean(&self.database, longest).await }).await? > 0 {
            tokio::task::yield_now().await;
        }
        loop {
            let now = self.database.clock.now();
            let due = self.held.due(now).await?;
            self.clean_step(&due, now, &lifetimes).await?;
            if due.len() < STEP {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    async fn count(&self) -> Result<u64, Unavailable> {
        self.held.count().await
    }
}

impl RedisRecords {
    /// Those that a request's cookies named, with what was handed over from them.
    async fn end_named(&self, ids: &[SessionId], forget: &mut Forget) -> Result<(), Unavailable> {
        forget.sessions.extend_from_slice(ids);
        let mut ending = Vec::with_capacity(ids.len());
        for id in ids {
            let belongs = match self.belongs(id).await? {
                // What it was handed over from goes on.
                Belongs::To { user, made_at, .. } => Belongs::To { user, parent: None, made_at },
                unknown => unknown,
            };
            forget.users.extend(user_of(&belongs));
            ending.push((id.clone(), belongs));
        }
        // In one order, so that no two transactions wait for each other.
        ending.sort_unstable_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        self.end_in_database("create", &ending).await?;
        for (id, belongs) in &ending {
            self.tidy_up_after(id, belongs).await;
        }
        Ok(())
    }

    /// Deletes what no lifetime can bring back, and says of the others when to look again.
    async fn clean_step(&self, due: &[String], now: Timestamp, lifetimes: &Lifetimes) -> Result<(), Unavailable> {
        let hashes: Vec<String> = due.iter().map(|member| hash_of(member).to_owned()).collect();
        let mut read: HashMap<String, Read> = self.held.read_each("clean", &hashes).await?.into_iter().collect();
        let (mut over, mut later, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
        for (member, hash) in due.iter().zip(&hashes) {
            match read.remove(hash) {
                Some(Read::Record(record)) => {
                    let Times { look_at, .. } = Self::times(&record.session, lifetimes);
                    // Where nobody may be taken for idle now, that is to be looked at again soon.
                    let soon = if lifetimes.idle > lifetimes.lifetime { now.after(IDLE_MARGIN) } else { look_at };
                    if look_at <= now { over.push(*record) } else { later.push((member, look_at.min(soon))) }
                }
                // Whoever can read it next looks at it then.
                Some(Read::Damaged(_)) => later.push((member, now.after(IDLE_MARGIN))),
                None => nothing.push(member),
            }
        }
        self.held.remove("clean", &over).await?;
        self.held.remove_leads(&nothing).await?;
        self.held.look_later(&later).await
    }

    fn times(session: &Session, lifetimes: &Lifetimes) -> Times {
        let end = session.created_at.after(if session.remembered { lifetimes.remember_me } else { lifetimes.lifetime });
        let idle = session.last_used_at.after(lifetimes.idle + IDLE_MARGIN);
        Times { gone_at: end.after(GARBAGE_MARGIN), look_at: if session.remembered { end } else { end.min(idle) } }
    }
}
