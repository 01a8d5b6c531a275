//! Families of refresh tokens: what the last use was answered with holds (several answers, where one was asked for again), and every other token was
//! spent. What is done here is done within one transaction that holds the family ([`crate::store::database::Guard::Family`]), so that two requests
//! come one after the other.
//!
//! Never forgets a token that was spent while its session may live: its second use is what tells of a thief. So a family is not pruned; one that grows
//! beyond [`MOST`] ends with its session.

use sqlx::{Any, AnyConnection, AnyPool, Executor, FromRow};

use crate::{
    core::{
        session::{SessionId, TokenHash},
        time::Timestamp,
        tokens::GRACE,
    },
    ports::{Exchange, Exchanged, RefreshToken},
    store::{
        database::Write,
        session::{Belongs, delete_session},
    },
};

/// Tokens that a family has at most: one each four minutes for thirty days. Who needs more signs in again.
const MOST: i64 = 10_000;
/// Answers to one use that hold at once: all tabs of a browser may have asked. One more is answered too, and the oldest of them holds no longer: whoever has
/// that one is found by it. To refuse instead would let a thief ask so often that the owner is the one refused, and nobody ever second.
const MOST_HOLD: i64 = 9;
/// Answers to one use at all. Nobody but a thief or a loop asks more often in so short a time: it ends.
const MOST_ANSWERS: i64 = 64;

pub(super) async fn find(pool: &AnyPool, hash: &TokenHash) -> Result<Option<RefreshToken>, sqlx::Error> {
    let row = row_of(pool, hash).await?;
    Ok(row.map(|row| RefreshToken {
        hash: *hash,
        session: SessionId::new(row.session),
        expires_at: Timestamp::from_unix_millis(row.expires_at),
    }))
}

/// `belongs`: what ends together with its session, if it has to.
pub(super) async fn exchange(
    family: &mut Write,
    exchange: &Exchange,
    belongs: &Belongs,
) -> Result<Exchanged, sqlx::Error> {
    let session = exchange.next.session.as_str();
    let Some(row) = row_of(&mut **family, &exchange.presented).await? else { return Ok(Exchanged::Unknown) };
    // Only of one that nobody used: a second use tells of a thief however old the token is.
    let has_expired = row.spent_at.is_none() && row.expires_at <= exchange.now.unix_millis();
    if row.session != *session || has_expired {
        return Ok(Exchanged::Unknown);
    }
    let newest: i64 = sqlx::query_scalar("SELECT max(generation) FROM refresh_tokens WHERE session = $1")
        .bind(session)
        .fetch_one(&mut **family)
        .await?;
    let exchanged = if row.spent_at.is_none() {
        spend(family, exchange).await?;
        // Of several answers to one use the first that is used goes on: if somebody has another one, its use is a second one.
        close(family, exchange).await?;
        Exchanged::Done
    } else {
        match use_of(family, exchange, &row).await? {
            Use::Same { answers } if answers >= MOST_ANSWERS => {
                return end(family, exchange, belongs, Exchanged::TooMany).await;
            }
            Use::Same { .. } => {
                close_oldest(family, exchange).await?;
                Exchanged::Again
            }
            Use::Second => return end(family, exchange, belongs, Exchanged::Reused).await,
        }
    };
    if newest >= MOST {
        return end(family, exchange, belongs, Exchanged::TooMany).await;
    }
    insert(family, &exchange.next, newest + 1).await?;
    Ok(exchanged)
}

/// With the session, in the same transaction: there is no moment in which the one is over and the other is not.
async fn end(
    family: &mut Write,
    exchange: &Exchange,
    belongs: &Belongs,
    why: Exchanged,
) -> Result<Exchanged, sqlx::Error> {
    close(family, exchange).await?;
    delete_session(family, &exchange.next.session, belongs).await?;
    Ok(why)
}

/// What the use of a token is that was spent.
enum Use {
    /// The last use of the family once more: the same token, within [`GRACE`], from the same place, and nothing that came of that use was used
    /// itself. How often it was answered.
    Same {
        answers: i64,
    },
    Second,
}

async fn use_of(family: &mut AnyConnection, exchange: &Exchange, row: &Row) -> Result<Use, sqlx::Error> {
    let was_here = exchange.place.is_some_and(|place| row.place.as_deref() == Some(place.0.as_slice()));
    let age = row.spent_at.map(|spent_at| exchange.now.unix_millis().abs_diff(spent_at));
    let is_recent = age.is_some_and(|age| u128::from(age) <= GRACE.as_millis());
    if row.used == 0 || !was_here || !is_recent {
        return Ok(Use::Second);
    }
    let (used_since, unspent, answers): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE used = 1), count(*) FILTER (WHERE spent_at IS NULL), count(*) FROM refresh_tokens \
         WHERE session = $1 AND generation > $2",
    )
    .bind(&row.session)
    .bind(row.generation)
    .fetch_one(family)
    .await?;
    // None that holds: the family was closed by a second use.
    if used_since > 0 || unspent == 0 {
        return Ok(Use::Second);
    }
    Ok(Use::Same { answers })
}

async fn spend(family: &mut AnyConnection, exchange: &Exchange) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE refresh_tokens SET spent_at = $1, used = 1, place = $2, expires_at = $3 WHERE hash = $4")
        .bind(exchange.now.unix_millis())
        .bind(exchange.place.map(|place| place.0.to_vec()))
        .bind(exchange.end_of_session.unix_millis())
        .bind(exchange.presented.0.as_slice())
        .execute(family)
        .await?;
    Ok(())
}

/// No token that nobody used holds any longer.
async fn close(family: &mut AnyConnection, exchange: &Exchange) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE refresh_tokens SET spent_at = $1, expires_at = $2 WHERE session = $3 AND spent_at IS NULL")
        .bind(exchange.now.unix_millis())
        .bind(exchange.end_of_session.unix_millis())
        .bind(exchange.next.session.as_str())
        .execute(family)
        .await?;
    Ok(())
}

/// Leaves room for one more answer. The row stays, spent and unused: its use is a second one.
async fn close_oldest(family: &mut AnyConnection, exchange: &Exchange) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE refresh_tokens SET spent_at = $1, expires_at = $2 WHERE session = $3 AND spent_at IS NULL AND generation = \
         (SELECT generation FROM refresh_tokens WHERE session = $3 AND spent_at IS NULL ORDER BY generation DESC LIMIT 1 OFFSET $4)",
    )
    .bind(exchange.now.unix_millis())
    .bind(exchange.end_of_session.unix_millis())
    .bind(exchange.next.session.as_str())
    .bind(MOST_HOLD - 1)
    .execute(family)
    .await?;
    Ok(())
}

pub(super) async fn insert(
    family: &mut AnyConnection,
    token: &RefreshToken,
    generation: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO refresh_tokens (hash, session, generation, expires_at) VALUES ($1, $2, $3, $4)")
        .bind(token.hash.0.as_slice())
        .bind(token.session.as_str())
        .bind(generation)
        .bind(token.expires_at.unix_millis())
        .execute(family)
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct Row {
    session: String,
    generation: i64,
    expires_at: i64,
    spent_at: Option<i64>,
    used: i64,
    place: Option<Vec<u8>>,
}

async fn row_of<'c>(from: impl Executor<'c, Database = Any>, hash: &TokenHash) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as("SELECT session, generation, expires_at, spent_at, used, place FROM refresh_tokens WHERE hash = $1")
        .bind(hash.0.as_slice())
        .fetch_optional(from)
        .await
}
