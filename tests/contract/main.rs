//! What every store promises, asked of each implementation on the real thing. One suite; a new store adds one line to
//! `for_every_store!` and a [`harness::Place`].

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod api_tokens;
mod changes;
mod devices;
mod emergency;
mod foreign_names;
mod hand_overs;
mod harness;
mod keys;
#[path = "../support/late.rs"]
mod late;
mod outage;
#[path = "../support/postgres.rs"]
mod postgres;
mod postgres_fleet;
mod postgres_hand_overs;
mod postgres_outage;
mod sessions;
mod sign_in;
mod tokens;
mod upgrade;
mod users;
mod users_file;

/// Makes one test a store of every named case (`async fn case(place: Place)`).
macro_rules! for_every_store {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::harness::Place::sqlite()).await;
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::harness::Place::postgres().await).await;
                }
            )*
        }
    };
}
pub(crate) use for_every_store;
