//! `postern token …`: API tokens of users and of service accounts. A running server honours each within a second.
//!
//! A new token goes to standard output, alone on its line, so that it can be piped; what is said of it goes to standard error.

use std::{
    io::{self, IsTerminal as _, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{ArgGroup, Subcommand, ValueEnum};
use secrecy::ExposeSecret as _;

use crate::{
    app::{Revoke, Stores},
    config,
    core::{
        api_token::{ApiToken, ApiTokenId, Owner, Scopes},
        printable::printable,
        time::Timestamp,
    },
    identity::api_tokens::{TokenDesk, Wish},
};

/// Make, list and revoke API tokens
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
    /// Make a token, and print it once
    #[command(group = ArgGroup::new("owner").required(true).args(["whose", "user", "service"]), after_help = EXAMPLES)]
    Create {
        /// The user it speaks for
        #[arg(value_name = "USER")]
        whose: Option<String>,
        /// The same
        #[arg(long)]
        user: Option<String>,
        /// A service account that it speaks for, made where it is missing: `client:NAME` in rules
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// The service account's groups, separated by commas, in place of those before
        #[arg(long, value_name = "A,B", requires = "service", conflicts_with_all = ["whose", "user"])]
        groups: Option<String>,
        /// What the token is for
        #[arg(long)]
        name: String,
        /// Where it counts, separated by commas, or given again: `read` (GET, HEAD, OPTIONS), `host:NAME`, `host:*.NAME`. Default: everywhere
        #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
        scopes: Vec<String>,
        /// How long it lives: `12h`, `30d`, or `never`
        #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = life)]
        expires: Life,
    },
    /// List tokens, newest first; never the tokens themselves
    List {
        /// Only those of this user
        #[arg(long, conflicts_with = "service")]
        user: Option<String>,
        /// Only those of this service account
        #[arg(long)]
        service: Option<String>,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Revoke one token, or all of a user or a service account
    #[command(group = ArgGroup::new("which").required(true).args(["id", "user", "service"]))]
    Revoke {
        /// The token's id, as `token list` shows it; not the token itself
        id: Option<String>,
        /// All tokens of this user
        #[arg(long)]
        user: Option<String>,
        /// All tokens of this service account, and the account
        #[arg(long)]
        service: Option<String>,
    },
}

const EXAMPLES: &str = "\
Examples:
  postern token create bob --name laptop --scopes read,host:grafana.example.com
  postern token create --service ci --groups deploy --name pipeline --expires 30d";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    For(Duration),
    Never,
}

fn life(text: &str) -> Result<Life, String> {
    if text == "never" { Ok(Life::Never) } else { config::duration(text).map(Life::For) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let wish = wish(&args.command)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let stores = crate::app::open_stores(&args.config).await?;
        let done = act(&stores, args.command, wish).await;
        stores.close().await;
        done
    })
}

/// What a new token is to be; before any store is opened, so that nothing is created for a wrong command line.
fn wish(command: &Command) -> anyhow::Result<Option<Wish>> {
    let Command::Create { whose, user, service, groups, name, scopes, expires } = command else { return Ok(None) };
    let owner = match (whose.as_ref().or(user.as_ref()), service) {
        (Some(user), _) => Owner::User(user.clone()),
        (None, service) => Owner::Service(service.clone().unwrap_or_default()),
    };
    let groups = groups.as_deref().map(|list| {
        list.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    });
    Ok(Some(Wish {
        owner,
        name: name.clone(),
        scopes: Scopes::parse(scopes.iter().map(String::as_str))?,
        life: match expires {
            Life::For(life) => Some(*life),
            Life::Never => None,
        },
        groups,
        created_by: None,
        version: None,
    }))
}

async fn act(stores: &Stores, command: Command, wish: Option<Wish>) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let desk = TokenDesk {
        tokens: &*stores.api_tokens,
        clock: &*stores.clock,
        entropy: &*stores.entropy,
        audit: &*stores.audit,
        metrics: None,
        address: None,
        request_id: None,
    };
    if let Some(wish) = wish {
        let issued = desk.issue(wish).await?;
        writeln!(out, "{}", issued.secret.expose_secret())?;
        out.flush()?;
        say_of(&issued.token, io::stdout().is_terminal())?;
        return Ok(ExitCode::SUCCESS);
    }
    match command {
        Command::Create { .. } => {}
        Command::List { user, service, format } => {
            let owner = owner_of(user, service);
            let tokens = stores.api_tokens.list(owner.as_ref()).await?;
            let now = stores.clock.now();
            match format {
                Format::Json => {
                    let all: serde_json::Value = tokens.iter().map(|token| json(token, now)).collect();
                    writeln!(out, "{all}")?;
                }
                Format::Text => print(&mut out, &tokens, now)?,
            }
        }
        Command::Revoke { id: Some(id), .. } => {
            let id = ApiTokenId(id);
            if id.key().is_none() || desk.revoke_any(Revoke::One(&id)).await? == 0 {
                anyhow::bail!("there is no token of that id: `postern token list` shows all");
            }
            writeln!(out, "1 token is revoked")?;
        }
        Command::Revoke { user, service, .. } => {
            if let Some(owner) = owner_of(user, service) {
                let revoked = desk.revoke_any(Revoke::AllOf(&owner)).await?;
                if let Owner::User(name) = &owner
                    && revoked == 0
                    && stores.users.find(name).await?.is_none()
                {
                    anyhow::bail!("there is no user {name:?}: `postern user list` shows all");
                }
                writeln!(out, "{revoked} tokens of {} are revoked", owner.name())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn owner_of(user: Option<String>, service: Option<String>) -> Option<Owner> {
    user.map(Owner::User).or(service.map(Owner::Service))
}

fn say_of(token: &ApiToken, is_seen: bool) -> anyhow::Result<()> {
    let end = token.expires_at.map_or_else(|| "never expires".to_owned(), |end| format!("expires {}", readable(end)));
    let scopes: Vec<String> = token.scopes.words().collect();
    let scopes = if scopes.is_empty() { "everywhere".to_owned() } else { scopes.join(", ") };
    let hint = if is_seen { " Nobody can show it again." } else { "" };
    writeln!(
        io::stderr().lock(),
        "token {} of {} {}: {scopes}; {end}.{hint}",
        token.id(),
        token.owner.kind(),
        token.owner.name()
    )?;
    Ok(())
}

fn print(out: &mut impl Write, tokens: &[ApiToken], now: Timestamp) -> anyhow::Result<()> {
    let width = |text: fn(&ApiToken) -> &str, least: usize| {
        tokens.iter().map(|token| text(token).chars().count()).max().unwrap_or(0).max(least)
    };
    let owners = width(|token| token.owner.name(), 5);
    let names = width(|token| &token.name, 4);
    writeln!(
        out,
        "{:20}  {:7}  {:owners$}  {:names$}  {:20}  {:20}  {:20}  SCOPES",
        "ID", "KIND", "OWNER", "NAME", "CREATED", "EXPIRES", "LAST USE"
    )?;
    for token in tokens {
        let expires = match token.expires_at {
            Some(_) if token.is_expired(now) => "expired".to_owned(),
            Some(end) => readable(end),
            None => "never".to_owned(),
        };
        writeln!(
            out,
            "{:20}  {:7}  {:owners$}  {:names$}  {:20}  {:20}  {:20}  {}",
            token.id().0,
            token.owner.kind(),
            token.owner.name(),
            printable(&token.name),
            readable(token.created_at),
            expires,
            token.last_used_at.map_or_else(|| "never".to_owned(), readable),
            token.scopes.words().collect::<Vec<_>>().join(",")
        )?;
    }
    Ok(())
}

fn json(token: &ApiToken, now: Timestamp) -> serde_json::Value {
    serde_json::json!({
        "id": token.id().0,
        "kind": token.owner.kind(),
        "owner": token.owner.name(),
        "name": token.name,
        "scopes": token.scopes.words().collect::<Vec<_>>(),
        "created_at": readable(token.created_at),
        "expires_at": token.expires_at.map(readable),
        "expired": token.is_expired(now),
        "last_used_at": token.last_used_at.map(readable),
        "created_by": token.created_by,
    })
}

/// RFC 3339, whole seconds.
fn readable(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.unix_seconds()).map(|at| at.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn scopes(more: &[&str]) -> anyhow::Result<Vec<String>> {
        let line = Line::try_parse_from(["token", "create", "bob", "--name", "x"].iter().chain(more))?;
        Ok(wish(&line.args.command)?.map(|wish| wish.scopes.words().collect()).unwrap_or_default())
    }

    /// As a script has it whose variable is empty.
    #[test]
    fn a_scope_that_is_given_and_empty_makes_no_token() {
        for bad in
            [&["--scopes", ""][..], &["--scopes="], &["--scopes", "read,"], &["--scopes", "read", "--scopes", " "]]
        {
            assert!(scopes(bad).is_err(), "{bad:?}");
        }
        assert_eq!(scopes(&[]).unwrap(), [""; 0]);
        assert_eq!(scopes(&["--scopes", "read,host:a.test"]).unwrap(), ["read", "host:a.test"]);
    }
}
