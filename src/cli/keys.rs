//! `postern keys …`: what signs our tokens, and putting another key in its place. A running server honours it within a second.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Subcommand, ValueEnum};

use crate::{
    app::{KeyState, PUBLISHED_BEFORE, Rotation, SigningKey, Stores, Takeover},
    core::{time::Timestamp, tokens::TokenSettings},
};

/// List and rotate the keys that sign tokens
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
    /// List keys, newest first: which one signs, which comes next, and until when the older ones verify
    List {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Make a new key, of the algorithm in tokens.algorithm
    ///
    /// It is published in /.well-known/jwks.json at once, on every node, and signs after --after. The key before it verifies until the last token that it
    /// signed has expired, and is removed then. Nobody is signed out.
    Rotate {
        /// How long the key is only published. The default is longer than the published keys may be kept (5 minutes); applications that keep
        /// them for longer need more; the most is 30d
        #[arg(long, value_name = "DURATION", value_parser = delay)]
        after: Option<Duration>,
        /// In an emergency: the new key signs at once and the older ones are removed. Every access token is dead, and the applications that verify tokens
        /// themselves must read the keys again. Sessions and refresh tokens stay: `postern session revoke --all` ends those
        #[arg(long, conflicts_with = "after")]
        now: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Nobody notices before that a key which was meant to sign does not.
const MOST_DELAY: Duration = Duration::from_secs(30 * 86_400);

fn delay(text: &str) -> Result<Duration, String> {
    let delay = crate::config::duration(text)?;
    if delay > MOST_DELAY { Err("the most is 30d: the key before it signs until then".to_owned()) } else { Ok(delay) }
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (stores, settings) = crate::app::open_stores_with_tokens(&args.config).await?;
        let done = act(&stores, &settings, args.command).await;
        stores.close().await;
        done
    })
}

async fn act(stores: &Stores, settings: &TokenSettings, command: Command) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::List { format } => {
            let keys = stores.keys.signing();
            let states = keys.states(stores.clock.now());
            match format {
                Format::Json => {
                    writeln!(out, "{}", serde_json::Value::from_iter(states.map(|(key, state)| json(key, state))))?;
                }
                Format::Text => {
                    writeln!(
                        out,
                        "{:43}  {:9}  {:8}  {:20}  {:20}  RETIRES",
                        "KID", "ALGORITHM", "STATE", "CREATED", "SIGNS FROM"
                    )?;
                    for (key, state) in states {
                        print(&mut out, key, state)?;
                    }
                }
            }
        }
        Command::Rotate { after, now } => {
            let delay = after.unwrap_or(PUBLISHED_BEFORE);
            let takeover = if now { Takeover::AtOnce } else { Takeover::After(delay) };
            let rotation = Rotation { algorithm: settings.algorithm, takeover, access: settings.access };
            let kid = stores.keys.rotate(rotation).await?;
            let keys = stores.keys.signing();
            let made = keys.verifying(stores.clock.now()).find(|key| key.kid == kid);
            match made {
                Some(key) if !now => {
                    writeln!(
                        out,
                        "the new key {kid} ({}) is published and signs from {}",
                        key.algorithm,
                        readable(key.times.signs_from)
                    )?;
                }
                _ => writeln!(out, "the new key {kid} ({}) signs, and the older ones are removed", settings.algorithm)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut impl Write, key: &SigningKey, state: KeyState) -> anyhow::Result<()> {
    writeln!(
        out,
        "{:43}  {:9}  {:8}  {:20}  {:20}  {}",
        key.kid,
        key.algorithm.as_str(),
        state.as_str(),
        readable(key.times.created_at),
        readable(key.times.signs_from),
        key.times.retires_at.map(readable).unwrap_or_default(),
    )?;
    Ok(())
}

fn json(key: &SigningKey, state: KeyState) -> serde_json::Value {
    serde_json::json!({
        "kid": key.kid,
        "algorithm": key.algorithm.as_str(),
        "state": state.as_str(),
        "created_at": readable(key.times.created_at),
        "signs_from": readable(key.times.signs_from),
        "retires_at": key.times.retires_at.map(readable),
    })
}

/// RFC 3339, whole seconds.
fn readable(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.unix_seconds()).map(|at| at.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_wait_for_longer_than_a_month() {
        assert_eq!(delay("30d"), Ok(MOST_DELAY));
        for text in ["31d", "43201m", "100000d", "-1h", ""] {
            assert!(delay(text).is_err(), "{text}");
        }
    }
}
