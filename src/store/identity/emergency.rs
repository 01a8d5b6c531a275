//! The emergency: every session and every token of a user, or of all, ends. Used by the users of the database and of a file, which differ only in where
//! the token version is.
//!
//! However many sessions there are, no step takes longer than any other operation: the first one raises the token versions, so that
//! every access token is dead with it, and the sessions end in steps, each with its row of the log, until there is none. Never answers before the last
//! one is over.

use crate::{
    ports::Unavailable,
    store::{
        database::{Database, Guard},
        session::delete_step,
    },
};

const STORE: &str = "users";
/// Sessions that a step ends: other writers get their turn in between.
const STEP: u64 = 2_000;

/// How many sessions ended; `None`: there is no such user. `raise`: raises the token version of the user `$1`, or of all where that is null.
///
/// # Errors
/// The database cannot answer; what ended until then stays so, and whoever asks again goes on from there.
pub(super) async fn revoke(
    database: &Database,
    raise: &'static str,
    folded_user: Option<&str>,
) -> Result<Option<u64>, Unavailable> {
    let guard = folded_user.map_or(Guard::AllUsers, Guard::User);
    let first = database.run(STORE, "revoke", async {
        let mut write = database.begin(guard).await?;
        let raised = sqlx::query(raise).bind(folded_user).execute(&mut *write).await?;
        if folded_user.is_some() && raised.rows_affected() == 0 {
            return Ok(None);
        }
        let ended = delete_step(&mut write, folded_user, STEP).await?;
        write.commit().await?;
        Ok(Some(ended))
    });
    let Some(mut last) = first.await? else { return Ok(None) };
    let mut all = last;
    while last >= STEP {
        let step = database.run(STORE, "revoke_step", async {
            let mut write = database.begin(guard).await?;
            let ended = delete_step(&mut write, folded_user, STEP).await?;
            write.commit().await?;
            Ok(ended)
        });
        last = step.await?;
        all += last;
    }
    Ok(Some(all))
}
