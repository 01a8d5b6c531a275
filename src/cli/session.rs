//! `postern session …`: who is signed in, and ending it. A running server honours a revocation within a second.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::{ArgGroup, Subcommand, ValueEnum};

use crate::{
    app::{End, Geo as _, Stores, Whom},
    core::{
        device::Device,
        place::Country,
        printable::printable,
        session::{Session, SessionId},
        time::Timestamp,
    },
};

/// List and end sessions
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(short, long, default_value = "config/postern.yaml", global = true, value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List sessions, newest first
    List {
        /// Only those of this user
        #[arg(long)]
        user: Option<String>,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// End one session, everything of a user, or everything
    ///
    /// `--user` and `--all` end the tokens too: access tokens and refresh tokens, also such as were stolen, hold no longer, on every node within a second. Whoever
    /// it concerns signs in again.
    #[command(group = ArgGroup::new("which").required(true).args(["id", "user", "all"]))]
    Revoke {
        /// The session's id, as `session list` shows it
        id: Option<String>,
        /// All sessions and tokens of this user
        #[arg(long)]
        user: Option<String>,
        /// All sessions and tokens of everybody
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (stores, fault) = crate::app::open_stores_with_countries(&args.config).await?;
        if let (Command::List { .. }, Some(fault)) = (&args.command, fault) {
            writeln!(std::io::stderr(), "postern: {fault}")?;
        }
        let done = act(&stores, args.command).await;
        stores.close().await;
        done
    })
}

async fn act(stores: &Stores, command: Command) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::List { user, format } => {
            let sessions = stores.sessions.list(user.as_deref()).await?;
            match format {
                Format::Json => {
                    let listed = sessions.iter().map(|session| json(session, country(stores, session)));
                    writeln!(out, "{}", serde_json::Value::from_iter(listed))?;
                }
                Format::Text => print(&mut out, stores, &sessions)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Revoke { id: Some(id), .. } => {
            let ended = stores.sessions.end(End::One(&SessionId::new(id.clone()))).await?;
            if ended == 0 {
                anyhow::bail!("there is no session {id:?}, or it is over: `postern session list` shows all");
            }
            match ended {
                1 => writeln!(out, "1 session has ended")?,
                _ => writeln!(out, "{ended} sessions of one sign-in have ended")?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Revoke { user: Some(user), .. } => {
            let ended = stores.users.revoke(Whom::One(&user)).await?;
            writeln!(out, "{ended} sessions of {user} have ended, and every token")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Revoke { .. } => {
            let ended = stores.users.revoke(Whom::Everybody).await?;
            writeln!(out, "{ended} sessions have ended, and every token")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn country(stores: &Stores, session: &Session) -> Option<Country> {
    session.address.and_then(|address| stores.geo.country(address))
}

fn print(out: &mut impl Write, stores: &Stores, sessions: &[Session]) -> anyhow::Result<()> {
    writeln!(
        out,
        "{:32}  {:20}  {:20}  {:20}  {:15}  {:7}  DEVICE",
        "ID", "USER", "SIGNED IN", "LAST USE", "ADDRESS", "COUNTRY"
    )?;
    for session in sessions {
        writeln!(
            out,
            "{:32}  {:20}  {:20}  {:20}  {:15}  {:7}  {}",
            session.id.as_str(),
            session.user,
            readable(session.signed_in_at),
            readable(session.last_used_at),
            session.address.map(|address| address.to_string()).unwrap_or_default(),
            country(stores, session).map(|country| country.code).unwrap_or_default(),
            described(&session.user_agent)
        )?;
    }
    Ok(())
}

fn json(session: &Session, country: Option<Country>) -> serde_json::Value {
    let Device { browser, system, device } = Device::of(&session.user_agent);
    serde_json::json!({
        "id": session.id.as_str(),
        "user": session.user,
        "factor": session.factor.as_str(),
        "domain": session.domain,
        "remembered": session.remembered,
        "created_at": readable(session.created_at),
        "signed_in_at": readable(session.signed_in_at),
        "last_used_at": readable(session.last_used_at),
        "user_agent": session.user_agent,
        "device": device,
        "browser": browser,
        "os": system,
        "address": session.address,
        "country": country.as_ref().map(|country| &country.code),
        "place": country.as_ref().map(|country| &country.name),
    })
}

/// RFC 3339, whole seconds.
fn readable(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.unix_seconds()).map(|at| at.to_string()).unwrap_or_default()
}

/// What nobody knows is told as it came.
fn described(user_agent: &str) -> String {
    let device = Device::of(user_agent);
    if device != Device::default() {
        return device.words();
    }
    printable(&user_agent.chars().take(80).collect::<String>())
}
