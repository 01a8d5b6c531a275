//! A transaction that changes something, and the rows of the log that belong to it. Begun by [`super::Database::begin`], used by every adapter
//! that writes.
//!
//! The order in which locks are taken is the same everywhere, so that no two wait for each other: what [`Guard`] names,
//! rows of `users`, rows of `sessions` and of `api_tokens` by id, and last of all, at the commit, the counter of the log. SQLite has one lock for all.

use std::ops::{Deref, DerefMut};

use sqlx::{Any, AnyConnection, AnyPool, Transaction};

use super::Dialect;
use crate::{core::time::Timestamp, ports::ChangeKind, store::changes};

/// Takes the write lock at once, so that it never fails half-way for want of it.
const BEGIN_SQLITE: &str = "BEGIN IMMEDIATE";

/// Settings of this transaction alone, since a pooler may hand its connection to others afterwards. A client that hangs half-way must not keep
/// everybody from the counter of the log for long, and an acknowledged revocation must outlive a power cut of the server: where the
/// administrator asked for more (`remote_apply`), that stays.
const BEGIN_POSTGRES: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SELECT set_config('lock_timeout', '1000', true), set_config('statement_timeout', '1500', true), \
     set_config('idle_in_transaction_session_timeout', '2000', true); \
     SELECT set_config('synchronous_commit', 'on', true) \
     WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')";

/// What no other transaction may change until this one ends.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Guard<'g> {
    /// Only the rows that it touches.
    Rows,
    /// A user, by folded name, and which sessions they have; nobody may hold all users meanwhile.
    User(&'g str),
    /// A user, who gets a session: others may add sessions too, but nobody may change the user or end them all. Without it a session that is
    /// made while a password changes would be seen by neither side.
    SessionOf(&'g str),
    /// All users and which sessions they have.
    AllUsers,
    SigningKeys,
    /// The refresh tokens of a session.
    Family(&'g str),
}

const ALONE: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
const SHARED: &str = "SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0))";
const ALL_USERS: &str = "users";

impl Guard<'_> {
    /// Advisory locks of PostgreSQL, which are free again at the end of the transaction; SQLite has one writer anyway.
    async fn take(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        let (lock, name) = match self {
            Guard::Rows => return Ok(()),
            Guard::User(folded) => {
                sqlx::query(SHARED).bind(ALL_USERS).execute(&mut *connection).await?;
                (ALONE, format!("user {folded}"))
            }
            Guard::AllUsers => (ALONE, ALL_USERS.to_owned()),
            Guard::SigningKeys => (ALONE, "signing keys".to_owned()),
            Guard::Family(session) => (ALONE, format!("refresh tokens {session}")),
            Guard::SessionOf(folded) => {
                sqlx::query(SHARED).bind(ALL_USERS).execute(&mut *connection).await?;
                (SHARED, format!("user {folded}"))
            }
        };
        sqlx::query(lock).bind(name).execute(connection).await?;
        Ok(())
    }
}

pub(in crate::store) struct Write {
    transaction: Transaction<'static, Any>,
    dialect: Dialect,
    log: Vec<(ChangeKind, String)>,
    at: Timestamp,
}

impl Write {
    pub(super) async fn begin(
        pool: &AnyPool,
        dialect: Dialect,
        guard: Guard<'_>,
        at: Timestamp,
    ) -> Result<Self, sqlx::Error> {
        let transaction = match dialect {
            Dialect::Sqlite => pool.begin_with(BEGIN_SQLITE).await?,
            Dialect::Postgres => {
                let mut transaction = pool.begin_with(BEGIN_POSTGRES).await?;
                guard.take(&mut transaction).await?;
                transaction
            }
        };
        Ok(Self { transaction, dialect, log: Vec::new(), at })
    }

    pub(in crate::store) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// When it began.
    pub(in crate::store) fn at(&self) -> Timestamp {
        self.at
    }

    /// A row of the log (invariant 7), to be written with the commit.
    pub(in crate::store) fn record(&mut self, kind: ChangeKind, id: &str) {
        self.log.push((kind, id.to_owned()));
    }

    pub(in crate::store) async fn commit(mut self) -> Result<(), sqlx::Error> {
        changes::append(&mut self.transaction, self.dialect, &self.log, self.at).await?;
        self.transaction.commit().await
    }
}

impl Deref for Write {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.transaction
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }
}
