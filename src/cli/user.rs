//! `postern user …`: the users of the database. A running server honours each within a second.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use secrecy::SecretString;

use super::password;
use crate::{
    app::{Stores, UserChange},
    core::user::User,
};

/// Add, change, list and remove users
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
    /// Add a user; asks for the password on a terminal
    Add(Details),
    /// Change a user; what is not named stays
    Set(Details),
    /// List all users
    List {
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Show one user
    Show {
        /// The user's name
        name: String,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Set a new password and end the user's sessions
    SetPassword {
        /// The user's name
        name: String,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Keep a user from signing in, and end their sessions
    Disable {
        /// The user's name
        name: String,
    },
    /// Let a disabled user sign in again
    Enable {
        /// The user's name
        name: String,
    },
    /// Let a user sign in at once who was kept waiting since too many sign-ins went wrong
    Unlock {
        /// The user's name
        name: String,
    },
    /// Remove a user and end their sessions
    Delete {
        /// The user's name
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct Details {
    /// The name to sign in with
    name: String,
    /// E-mail address; an empty one takes it away
    #[arg(long)]
    email: Option<String>,
    /// The name that people read
    #[arg(long = "name", value_name = "NAME")]
    display_name: Option<String>,
    /// Groups, separated by commas, in place of those before; an empty list takes all away
    #[arg(long, value_name = "A,B")]
    groups: Option<String>,
    /// Something that rules ask about, as text; again for more. `seats:=5` is a number (any JSON), `tier=` takes it away
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, Option<serde_json::Value>)>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

/// `tier=premium` is text, `seats:=5` JSON, `tier=` nothing.
fn attribute(text: &str) -> Result<(String, Option<serde_json::Value>), String> {
    let fault = || "write it as NAME=VALUE, or NAME:=JSON".to_owned();
    let (name, value) = text.split_once('=').ok_or_else(fault)?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => {
            (name, Some(serde_json::from_str(value).map_err(|error| format!("what follows := is no JSON: {error}"))?))
        }
        None => (name, Some(value).filter(|value| !value.is_empty()).map(serde_json::Value::from)),
    };
    if name.is_empty() { Err(fault()) } else { Ok((name.to_owned(), value)) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        // Asked before the stores are opened: nothing is created for somebody who gives up.
        let new_password = new_password(&args.command)?;
        let stores = crate::app::open_stores(&args.config).await?;
        let done = act(&stores, args.command, new_password).await;
        stores.close().await;
        done
    })
}

fn new_password(command: &Command) -> anyhow::Result<Option<SecretString>> {
    match command {
        Command::Add(details) => password::read_new(details.password_stdin).map(Some),
        Command::SetPassword { password_stdin, .. } => password::read_new(*password_stdin).map(Some),
        Command::Set(details) if details.password_stdin => password::read_new(true).map(Some),
        _ => Ok(None),
    }
}

async fn act(stores: &Stores, command: Command, new_password: Option<SecretString>) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add(details) => add(stores, details, new_password).await?,
        Command::Set(details) => set(stores, details, new_password).await?,
        Command::List { format } => print(&stores.users.list().await?, format)?,
        Command::Show { name, format } => {
            let Some(user) = stores.users.find(&name).await? else {
                bail!("there is no user {name:?}: `postern user list` names all");
            };
            match format {
                Format::Json => writeln!(std::io::stdout().lock(), "{}", json(&user))?,
                Format::Text => print(&[user], format)?,
            }
        }
        Command::SetPassword { name, .. } => {
            set_password(stores, &name, new_password).await?;
            say(&format!("{name} has a new password; their sessions have ended"))?;
        }
        Command::Disable { name } => {
            disabled(stores, &name, true).await?;
            say(&format!("{name} is disabled; their sessions have ended"))?;
        }
        Command::Enable { name } => {
            disabled(stores, &name, false).await?;
            say(&format!("{name} may sign in again"))?;
        }
        Command::Unlock { name } => {
            let Some(user) = stores.users.find(&name).await? else {
                bail!("there is no user {name:?}: `postern user list` names all");
            };
            stores.regulation.unlock(&user.name).await?;
            say(&format!(
                "{} may sign in without a wait; what an address did with other names stays counted",
                user.name
            ))?;
        }
        Command::Delete { name } => {
            stores.users.delete(&name).await?;
            say(&format!("{name} is removed; their sessions have ended"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(stores: &Stores, details: Details, password: Option<SecretString>) -> anyhow::Result<()> {
    let password = password.context("a new user needs a password")?;
    let user = User {
        display_name: details.display_name.unwrap_or_else(|| details.name.clone()),
        email: details.email.filter(|email| !email.is_empty()),
        groups: details.groups.as_deref().map(groups).unwrap_or_default(),
        disabled: false,
        token_version: 1,
        attributes: details.attributes.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        name: details.name,
    }
    .checked()?;
    let name = user.name.clone();
    let hash = stores.hasher.hash(password).await?;
    stores.users.insert(user, Some(hash)).await?;
    say(&format!("{name} is added"))
}

async fn set(stores: &Stores, details: Details, password: Option<SecretString>) -> anyhow::Result<()> {
    let is_bare = details.email.is_none() && details.display_name.is_none() && details.groups.is_none();
    if is_bare && details.attributes.is_empty() && password.is_none() {
        bail!("nothing to change: name at least one of --email, --name, --groups, --attribute, --password-stdin");
    }
    let change = UserChange {
        display_name: details.display_name,
        email: details.email.map(|email| Some(email).filter(|email| !email.is_empty())),
        groups: details.groups.as_deref().map(groups),
        disabled: None,
        attributes: details.attributes.into_iter().collect(),
    };
    let user = stores.users.update(&details.name, change).await?;
    if password.is_some() {
        set_password(stores, &details.name, password).await?;
    }
    say(&format!("{} is changed", user.name))
}

async fn set_password(stores: &Stores, name: &str, password: Option<SecretString>) -> anyhow::Result<()> {
    let password = password.context("a password is needed")?;
    let hash = stores.hasher.hash(password).await?;
    Ok(stores.credentials.set_password_hash(name, SecretString::from(hash)).await?)
}

async fn disabled(stores: &Stores, name: &str, disabled: bool) -> anyhow::Result<()> {
    stores.users.update(name, UserChange { disabled: Some(disabled), ..UserChange::default() }).await?;
    Ok(())
}

fn groups(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned).collect()
}

fn print(users: &[User], format: Format) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        writeln!(out, "{}", serde_json::Value::from_iter(users.iter().map(json)))?;
        return Ok(());
    }
    let width = |text: fn(&User) -> &str, least: usize| {
        users.iter().map(|user| text(user).chars().count()).max().unwrap_or(0).max(least)
    };
    let names = width(|user| &user.name, 4);
    let displayed = width(|user| &user.display_name, 12);
    let emails = width(|user| user.email.as_deref().unwrap_or_default(), 6);
    writeln!(out, "{:names$}  {:displayed$}  {:emails$}  {:8}  GROUPS", "NAME", "DISPLAY NAME", "E-MAIL", "STATE")?;
    for user in users {
        writeln!(
            out,
            "{:names$}  {:displayed$}  {:emails$}  {:8}  {}",
            user.name,
            user.display_name,
            user.email.as_deref().unwrap_or_default(),
            if user.disabled { "disabled" } else { "enabled" },
            user.groups.join(",")
        )?;
    }
    Ok(())
}

fn json(user: &User) -> serde_json::Value {
    serde_json::json!({
        "name": user.name,
        "display_name": user.display_name,
        "email": user.email,
        "groups": user.groups,
        "disabled": user.disabled,
        "attributes": user.attributes,
    })
}

fn say(what: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{what}")?)
}
