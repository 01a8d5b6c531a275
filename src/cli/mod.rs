//! The command line: one file per command (CONTRACT 2). Exit codes: 0 done, 1 the answer is no or a fault was found,
//! 2 the command line is wrong.

mod check;
mod completions;
mod demo;
mod hash;
mod health;
mod import;
mod init;
mod keys;
mod limit;
mod password;
mod policy;
mod serve;
mod session;
mod token;
mod user;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// Identity-aware reverse proxy and forward-auth sidecar, in one binary.
///
/// Stands in front of your applications, signs people in on its own portal, decides every request by YAML rules, and tells
/// the application who is asking in Remote-User headers. Works alone as the edge proxy, or as the forward-auth hook of
/// Traefik, NGINX, Caddy, HAProxy and Envoy.
#[derive(Debug, Parser)]
#[command(name = "postern", version, arg_required_else_help = true, disable_help_subcommand = true, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
Start here:
  postern demo              try it: no configuration, removed again on Ctrl-C
  postern init DIR          write a configuration, a first rule and the first administrator
  postern check             find every fault before a restart does
  postern serve             run it";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Init(init::Args),
    Serve(serve::Args),
    Check(check::Args),
    Policy(policy::Args),
    User(user::Args),
    Session(session::Args),
    Token(token::Args),
    Keys(keys::Args),
    Limit(limit::Args),
    Import(import::Args),
    Hash(hash::Args),
    Health(health::Args),
    Completions(completions::Args),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Init(args) => init::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Policy(args) => policy::run(&args),
        Command::User(args) => user::run(args),
        Command::Session(args) => session::run(args),
        Command::Token(args) => token::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Limit(args) => limit::run(args),
        Command::Import(args) => import::run(args),
        Command::Hash(args) => hash::run(args),
        Command::Health(args) => health::run(args),
        Command::Completions(args) => completions::run(args),
    };
    match done {
        Ok(code) => code,
        // `postern … | head`: whoever reads has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone as well, the exit code still says it.
            drop(writeln!(io::stderr(), "postern: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
