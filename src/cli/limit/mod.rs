//! `postern limit …`: who is limited by what. Asks what the gate asks, and takes nothing: in Redis by the same store, else the running server.

mod key;
mod show;
mod whose;

use std::{
    collections::HashSet,
    io::{BufRead as _, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Subcommand, ValueEnum};

use self::{
    key::Key,
    show::{Counted, Report, SignIn},
    whose::{Plan, Subject, Who},
};
use crate::{
    app::{self, Counts, Look, Whose},
    core::policy::Count,
};

/// Show who is limited by what
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
    /// What somebody has used of every limit, and whether a request would be refused now
    ///
    /// Goes through all `limits:` of the policies that may count this KEY: what each rate allows, what is used and left, and when it is whole again; also
    /// whether sign-ins of this name, or from this address, have to wait. It takes nothing. Limits that are counted in memory are asked of the running
    /// server, over its socket (`server.control`).
    #[command(after_help = KEYS)]
    Show {
        /// Whose counts: an address, a user, or one of the forms below; `-` reads it from standard input
        #[arg(value_name = "KEY")]
        key: String,
        /// Reckon by the rates of this plan, not by those of the user's own
        #[arg(long, value_name = "NAME")]
        plan: Option<String>,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

const KEYS: &str = "\
KEY is one of
  ip:203.0.113.7          an address; of IPv6 its /64
  peer:10.0.0.1           a proxy, for requests whose client's address is unknown
  user:alice              a user
  client:ci               a service account
  session:ID              a session, as `postern session list` shows it
  token:ID                an API token, as `postern token list` shows it; never the token itself
  header:X-Tenant=acme    a value of a header; without `=` the count of those who send none
  cel:TEXT                what the expression of a limit yields
or any of these without what stands before the colon: then all that it may be is looked at.
What is a secret (a key in a header) is not to stand in a command line, which others see: give `-`,
and write it to standard input.";

/// No key is longer.
const MOST_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Command::Show { key: written, plan, format } = args.command;
    let written = if written == "-" {
        let mut line = String::new();
        std::io::stdin().lock().take(MOST_BYTES).read_line(&mut line)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        written
    };
    let key = match written.parse::<Key>() {
        Ok(key) => key,
        Err(fault) => {
            writeln!(std::io::stderr(), "error: {fault}\n\n{KEYS}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let report = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(report(
        &args.config,
        written,
        key,
        plan,
    ))?;
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", report.json())?,
        Format::Text => write!(out, "{}", report.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn report(config: &Path, written: String, key: Key, plan: Option<String>) -> anyhow::Result<Report> {
    let counts = app::open_counts(config).await?;
    let done = look(&counts, written, key, plan).await;
    counts.stores.close().await;
    done
}

async fn look(counts: &Counts, written: String, key: Key, plan: Option<String>) -> anyhow::Result<Report> {
    let mut subjects = whose::meant(&counts.stores, key).await?;
    if let Some(plan) = plan {
        for subject in &mut subjects {
            subject.plan = Plan::Chosen(plan.clone());
        }
    }
    let rules = &counts.settings.site.rules;
    let held: Vec<(&Subject, Count<'_>)> = subjects
        .iter()
        .flat_map(|subject| {
            rules.counts_of(subject.who.holder(), subject.plan.name()).into_iter().map(move |count| (subject, count))
        })
        .collect();
    let looks: Vec<Look<'_>> = held
        .iter()
        .map(|(_, count)| Look { limit: &count.quota.limit, rates: &count.quota.rates, key: count.key })
        .collect();
    // Where no limit counts it, nobody need be asked, and nobody may be running.
    let told = if looks.is_empty() { Vec::new() } else { counts.look(&looks).await? };
    let mut limits: Vec<Counted> =
        held.into_iter().zip(told).map(|((subject, count), left)| Counted::new(subject, count, left)).collect();
    // Of what was only guessed, what somebody has used; all of it where there is nothing else.
    if limits.iter().any(|counted| !counted.is_idle_guess()) {
        limits.retain(|counted| !counted.is_idle_guess());
    }
    let shown: HashSet<String> = limits.iter().map(|counted| counted.of.clone()).collect();
    let mut sign_ins = Vec::new();
    if counts.settings.regulation.is_some() {
        for subject in subjects.iter().filter(|subject| !subject.is_guess || shown.contains(&subject.who.written())) {
            let whose = match &subject.who {
                Who::User(name) => Whose::Account(name),
                Who::Address(address) => Whose::Address(*address),
                _ => continue,
            };
            sign_ins.push(SignIn { of: subject.who.written(), waits: counts.sign_in_waits(whose).await? });
        }
    }
    Ok(Report {
        key: written,
        place: counts.place(),
        kind: counts.kind(),
        is_of_one_node: counts.is_of_one_node(),
        others: rules.limit_keys().map(|(limit, key)| (limit.to_owned(), key.into_owned())).collect(),
        limits,
        sign_ins,
        now: app::now(),
    })
}
