//! PostgreSQL: connecting, bringing the tables up to date, and the follower's own connection, which LISTENs. Called by `database` alone.
//!
//! Never prints the URL, which holds the password: `PostgresUrl` shows itself without.

use std::{fmt::Display, io::ErrorKind};

use sqlx::{
    AnyPool, ConnectOptions, Connection, PgConnection, Row,
    any::{AnyConnectOptions, AnyPoolOptions},
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use super::{DatabaseError, Look, OPENING};
use crate::{config::PostgresUrl, store::changes::CHANNEL};

/// Beside the follower's own one. Every node has so many.
const CONNECTIONS: u32 = 10;
/// `server_version_num` of the oldest release that will do, and its name.
const OLDEST: (i32, &str) = (130_000, "13");

pub(super) struct Server {
    url: PostgresUrl,
    options: Box<PgConnectOptions>,
}

impl Server {
    pub(super) fn at(url: &PostgresUrl) -> Result<Self, DatabaseError> {
        let options: PgConnectOptions = url.expose().parse().map_err(|error| told(&error))?;
        Ok(Self { url: url.clone(), options: Box::new(options.disable_statement_logging()) })
    }

    /// Makes sure that the server will do and that its tables are up to date.
    pub(super) async fn open_pool(&self) -> Result<AnyPool, DatabaseError> {
        let opening = async {
            let mut connection = self.options.connect().await.map_err(|error| told(&error))?;
            prepare(&mut connection).await?;
            // A failure to say goodbye is none of ours.
            let _ = connection.close().await;
            let options: AnyConnectOptions = self.url.expose().parse().map_err(|error| told(&error))?;
            let pool = pool_options().connect_with(options.disable_statement_logging()).await;
            pool.map_err(|error| told(&error))
        };
        let opened = tokio::time::timeout(OPENING, opening).await;
        opened.unwrap_or_else(|_| Err(DatabaseError::Told(format!("no answer within {OPENING:?}"))))
    }

    async fn listen(&self) -> Result<PgListener, sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let mut listener = PgListener::connect_with(&pool.connect_with((*self.options).clone()).await?).await?;
        listener.ignore_pool_close_event(true);
        // A lost connection is the follower's to replace, which then reads what was missed.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }
}

/// A standby says what was true a while ago: a session that was ended would live on there.
fn pool_options() -> AnyPoolOptions {
    AnyPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(OPENING).after_connect(|connection, _| {
        Box::pin(async move {
            match sqlx::query("SELECT pg_is_in_recovery()").fetch_one(connection).await?.try_get(0)? {
                true => Err(sqlx::Error::Configuration(STANDBY.into())),
                false => Ok(()),
            }
        })
    })
}

const STANDBY: &str = "it is a standby that cannot be written to: name the primary";

async fn prepare(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    let about = "SELECT current_setting('server_version_num')::int4, current_setting('server_version'), \
                 current_setting('server_encoding'), pg_is_in_recovery()";
    let (number, version, encoding, standby): (i32, String, String, bool) =
        sqlx::query_as(about).fetch_one(&mut *connection).await.map_err(|error| told(&error))?;
    let (oldest, name) = OLDEST;
    if number < oldest {
        return Err(DatabaseError::Told(format!("it is PostgreSQL {version}; PostgreSQL {name} or newer is needed")));
    }
    if encoding != "UTF8" {
        return Err(DatabaseError::Told(format!(
            "its encoding is {encoding}; make one with `createdb --encoding UTF8 --template template0`"
        )));
    }
    if standby {
        return Err(DatabaseError::Told(STANDBY.to_owned()));
    }
    migrate(connection).await
}

/// All within one transaction, the lock too, which sqlx's own would leave behind on a connection of pgbouncer's.
async fn migrate(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    let mut migrations = sqlx::migrate!("src/store/migrations/postgres");
    migrations.set_locking(false);
    let mut transaction = connection.begin().await.map_err(|error| told(&error))?;
    // Without the notices that tables are there already.
    let lock = "SELECT set_config('client_min_messages', 'warning', true), \
                pg_advisory_xact_lock(hashtextextended('postern migrations', 0))";
    sqlx::query(lock).execute(&mut *transaction).await.map_err(|error| told(&error))?;
    // What `run` does, which the compiler cannot see to be Send for a borrowed connection.
    match migrations.run_direct(None, &mut *transaction, false).await {
        Ok(()) => {}
        Err(sqlx::migrate::MigrateError::Execute(error) | sqlx::migrate::MigrateError::ExecuteMigration(error, _)) => {
            return Err(told(&error));
        }
        Err(error) => return Err(error.into()),
    }
    transaction.commit().await.map_err(|error| told(&error))
}

/// What went wrong, and what to do about it, in one line.
fn told(error: &sqlx::Error) -> DatabaseError {
    let text = match error {
        // What rustls finds wrong with a certificate comes like this.
        sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => refused_tls(error),
        sqlx::Error::Io(error) if error.kind() == ErrorKind::NotFound => {
            format!("nobody answers there, or a file that the URL names is missing ({error})")
        }
        sqlx::Error::Io(error) => format!("nobody answers there ({error})"),
        sqlx::Error::Tls(error) => refused_tls(error),
        sqlx::Error::PoolTimedOut => format!("no connection within {OPENING:?}"),
        sqlx::Error::Configuration(error) => error.to_string(),
        sqlx::Error::Database(error) => {
            let said = error.message();
            match error.code().as_deref() {
                Some("28P01") => format!("the server refuses the password ({said})"),
                Some("28000") => format!("the server lets this user not in from here ({said}); see its pg_hba.conf"),
                Some("3D000") => format!("the server has no such database ({said}); make it with `createdb`"),
                Some("42501") => {
                    format!("the user may not make its tables ({said}); make them the owner of the database")
                }
                Some("53300") => format!("the server has no connection left ({said}); raise its max_connections"),
                _ => said.to_owned(),
            }
        }
        other => other.to_string(),
    };
    DatabaseError::Told(text.lines().collect::<Vec<_>>().join(" "))
}

fn refused_tls(error: &impl Display) -> String {
    format!("TLS is refused ({error}); see `sslmode` and `sslrootcert` in docs/fleet.md")
}

/// One connection for looking and listening, so that one that is dead is noticed by the next look.
#[derive(Default)]
pub(in crate::store) struct Watch {
    listener: Option<PgListener>,
    /// Which server, since when, and which of its databases: after a restart or a change to another server the numbers of the log may begin anew.
    identity: Option<String>,
}

impl Watch {
    pub(super) async fn look(&mut self, server: &Server) -> Result<Look, String> {
        let listener = match &mut self.listener {
            Some(listener) => listener,
            none => none.insert(server.listen().await.map_err(|error| told(&error).to_string())?),
        };
        let query = "SELECT seq, concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), \
                     (SELECT oid FROM pg_database WHERE datname = current_database())), pg_is_in_recovery() FROM change_counter";
        let (seq, identity, standby): (i64, String, bool) =
            sqlx::query_as(query).fetch_one(listener).await.map_err(|error| error.to_string())?;
        if standby {
            return Err(STANDBY.to_owned());
        }
        match self.identity.replace(identity.clone()) {
            Some(known) if known != identity => Ok(Look::Replaced),
            _ => Ok(Look::At(seq)),
        }
    }

    pub(super) async fn woken(&mut self) {
        let Some(listener) = &mut self.listener else { return std::future::pending().await };
        match listener.try_recv().await {
            // Many at once are one.
            Ok(Some(_)) => while listener.next_buffered().is_some() {},
            Ok(None) | Err(_) => self.listener = None,
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.listener = None;
    }
}
