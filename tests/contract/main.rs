//! What every store promises, asked of each implementation on the real thing. One suite; a new store adds one line to
//! `for_every_store!` and a [`harness::Place`].

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod api_tokens;
mod changes;
mod counters;
mod counters_far;
mod counters_redis;
mod devices;
mod emergency;
mod emergency_many;
mod foreign_names;
mod hand_overs;
mod harness;
mod in_redis;
mod keys;
#[path = "../support/late.rs"]
mod late;
mod outage;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/postgres.rs"]
mod postgres;
mod postgres_fleet;
mod postgres_hand_overs;
mod postgres_outage;
#[expect(dead_code, reason = "the black-box suite uses the rest")]
#[path = "../support/redis.rs"]
mod redis;
#[expect(dead_code, reason = "the black-box suite uses the rest")]
#[path = "../support/redis_cluster.rs"]
mod redis_cluster;
mod redis_losses;
mod redis_records;
#[expect(dead_code, clippy::indexing_slicing, reason = "the black-box suite uses the rest, and may index")]
#[path = "../support/redis_sentinel.rs"]
mod redis_sentinel;
mod redis_server;
mod regulation;
mod sessions;
mod sessions_damaged;
mod sign_in;
mod tokens;
mod upgrade;
mod users;
mod users_file;

/// Makes one test a store of every named case (`async fn case(place: Place)`).
macro_rules! for_every_store {
    ($($case:ident),* $(,)?) => {
        $crate::for_every_database!($($case),*);
        $crate::for_every_redis!($($case),*);
    };
}
pub(crate) use for_every_store;

/// The same for what is about tables: sessions are in the database.
macro_rules! for_every_database {
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
pub(crate) use for_every_database;

/// The same with sessions in Redis: beside SQLite one server, beside PostgreSQL a cluster.
macro_rules! for_every_redis {
    ($($case:ident),* $(,)?) => {
        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::harness::Place::redis().await).await;
                }
            )*
        }
        mod redis_cluster {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::harness::Place::redis_cluster().await).await;
                }
            )*
        }
    };
}
pub(crate) use for_every_redis;
