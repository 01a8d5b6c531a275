//! How long the tokens of a key live: a key must verify until the last of them has expired, whichever node signed it and by whichever configuration. Called
//! by `keys` beside it alone. Never lets a key retire earlier than was said before.

use sqlx::FromRow;

use super::MARGIN;
use crate::{
    core::time::Timestamp,
    ports::{ChangeKind, SigningKeys},
    store::database::Write,
};

#[derive(FromRow)]
struct Row {
    kid: String,
    signs_from: i64,
    retires_at: Option<i64>,
    token_life: i64,
}

/// Whether every key that signs, or will, is known to have tokens that live so long (milliseconds).
pub(super) fn is_known(keys: &SigningKeys, life: i64, now: Timestamp) -> bool {
    let mut follower = None;
    for key in keys.verifying(now) {
        if signs_no_more(follower, now) {
            return true;
        }
        if key.times.token_life.as_millis() < u128::from(life.unsigned_abs()) {
            return false;
        }
        follower = Some(key.times.signs_from.unix_millis());
    }
    true
}

/// Writes down that tokens live so long. `write` guards the keys.
pub(super) async fn tell(write: &mut Write, life: i64, now: Timestamp) -> Result<(), sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT kid, signs_from, retires_at, token_life FROM signing_keys ORDER BY signs_from DESC, created_at DESC, kid",
    )
    .fetch_all(&mut **write)
    .await?;
    let mut follower = None;
    for row in rows {
        if signs_no_more(follower, now) {
            break;
        }
        if row.token_life < life {
            let end =
                follower.map(|at| Timestamp::from_unix_millis(at).after(MARGIN).unix_millis().saturating_add(life));
            let retires_at = row.retires_at.map(|said| end.map_or(said, |end| said.max(end)));
            sqlx::query("UPDATE signing_keys SET token_life = $1, retires_at = $2 WHERE kid = $3")
                .bind(life)
                .bind(retires_at)
                .bind(&row.kid)
                .execute(&mut **write)
                .await?;
            write.record(ChangeKind::Key, &row.kid);
        }
        follower = Some(row.signs_from);
    }
    Ok(())
}

/// A key whose follower has begun, also by a clock that is behind.
fn signs_no_more(follower: Option<i64>, now: Timestamp) -> bool {
    follower.is_some_and(|at| at < now.before(MARGIN).unix_millis())
}
