//! `postern import authelia`: Authelia's configuration into ours (CONTRACT 2). The result is never laxer than Authelia's, and every key of
//! the source is carried over or named in a finding. Called by `cli::import` alone.
//!
//! `siblings` makes sure that there is no second file, and `templates` looks at what the parser of YAML does not see. `spot` walks
//! Authelia's file, `ledger` keeps what became of each key; `session`, `server`, `people`, `regulation`, `foreign` and `rules/` read a section
//! each;
//! `write` and `yaml` make the text of ours; `place` has it checked and put into its place.

mod foreign;
mod ledger;
mod length;
mod people;
mod place;
mod regulation;
mod rules;
mod server;
mod session;
mod siblings;
mod spot;
mod tell;
mod templates;
#[cfg(test)]
mod tests;
mod write;
mod yaml;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow, bail};

use self::{
    ledger::Ledger,
    place::{File, Staged},
    spot::{Placed, Spot},
};
use crate::{
    config::source::{self, Node},
    core::policy::Level,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of Authelia's configuration.yml, or the file itself
    #[arg(value_name = "DIR")]
    source: PathBuf,
    /// Where to write
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
}

/// All that is carried over.
#[derive(Debug)]
struct Import {
    address: Placed<SocketAddr>,
    /// The `Authorization` header signs nobody in.
    cookies_alone: Option<Placed<()>>,
    session: session::Session,
    users: Option<Placed<PathBuf>>,
    log: foreign::Log,
    regulation: regulation::Regulation,
    policies: rules::Policies,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let file = configuration_file(&args.source)?;
    let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let root = parse(&file, &text)?;
    let folder = file.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let mut ledger = Ledger::new(file.clone());
    templates::report(&text, &Spot::root(&root), &mut ledger);
    let mut import = translate(&root, &folder, &mut ledger);
    if args.source.is_file() {
        beside_others(&siblings::others(&folder, &file)?, &Spot::root(&root), &mut import, &mut ledger);
    }

    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let files = files(&import, &name)?;
    let output = std::path::absolute(&args.output).context("the working directory cannot be read")?;
    place::ensure_free(&output, &files)?;
    if !ledger.faults.is_empty() {
        return tell::faults(&ledger);
    }
    let staged = Staged::write(&output, &files)?;
    let loaded = match staged.check()? {
        Ok(loaded) => loaded,
        Err(faults) => return tell::unfit(&ledger, &faults, &import, &files),
    };
    staged.place(&output, &files)?;
    tell::done(&mut io::stdout().lock(), &ledger, &import, &loaded, &args.output)?;
    Ok(ExitCode::SUCCESS)
}

/// Reads every section; the ledger tells what became of it.
fn translate(root: &Node, folder: &Path, ledger: &mut Ledger) -> Import {
    let root = Spot::root(root);
    let import = Import {
        address: server::address(&root, ledger),
        cookies_alone: server::cookies_alone(&root, ledger),
        session: session::session(&root, ledger),
        users: people::users_file(&root, folder, ledger),
        log: foreign::log(&root, ledger),
        regulation: regulation::regulation(&root, ledger),
        policies: rules::policies(&root, ledger),
    };
    foreign::report(&root, ledger);
    dotted_keys(&root, ledger);
    ledger.sweep(&root);
    import
}

/// Whoever names the file says that Authelia reads no other; where it holds no rules they may stand in another all the same.
fn beside_others(others: &[String], root: &Spot<'_>, import: &mut Import, ledger: &mut Ledger) {
    if others.is_empty() {
        return;
    }
    let names = others.join(", ");
    let closes = import.policies.read == 0 && import.policies.default.value != Level::Deny;
    if closes {
        import.policies.default = Placed::default(Level::Deny);
    }
    let closed = if closes { ". No rules stand in this one, so `default: deny` was written" } else { "" };
    ledger.leave_to_do(
        root,
        format!("{names} beside it may be part of the same configuration, and was not read{closed}"),
        format!(
            "if Authelia reads {names} too (`--config`, X_AUTHELIA_CONFIG), merge them into one file and import again"
        ),
    );
}

/// To older versions of Authelia, `access_control.rules:` is the same as `rules:` within `access_control:`.
fn dotted_keys(root: &Spot<'_>, ledger: &mut Ledger) {
    let blocks = ["access_control", "server", "server.endpoints", "session", "regulation"]
        .iter()
        .filter_map(|keys| root.get(keys));
    for block in std::iter::once(root.clone()).chain(blocks) {
        for (_, spot) in block.named().filter(|(name, _)| name.contains('.')) {
            ledger.fault(
                &spot,
                "holds a dot, which some versions of Authelia take for a block within a block, and others for nothing; write it as \
                     blocks, or take it out",
            );
        }
    }
}

fn configuration_file(source: &Path) -> anyhow::Result<PathBuf> {
    if source.is_file() {
        return Ok(source.to_owned());
    }
    if !source.is_dir() {
        bail!("there is no folder {}; name the one with Authelia's configuration.yml", source.display());
    }
    let names = ["configuration.yml", "configuration.yaml"];
    let found: Vec<PathBuf> = names.iter().map(|name| source.join(name)).filter(|file| file.is_file()).collect();
    if let [] | [_] = found.as_slice() {
        siblings::ensure_alone(source, found.first().map(PathBuf::as_path))?;
    }
    match found.as_slice() {
        [file] => Ok(file.clone()),
        [] => bail!(
            "there is no configuration.yml in {}; name the file itself if it is called otherwise",
            source.display()
        ),
        _ => bail!(
            "there are both configuration.yml and configuration.yaml in {}; name the one that is meant",
            source.display()
        ),
    }
}

fn parse(file: &Path, text: &str) -> anyhow::Result<Node> {
    let root = source::parse(file, text).map_err(|fault| {
        let template = if text.contains("{{") {
            "\nthe file holds templates (`{{ … }}`): let Authelia fill them in (`authelia config template`), and \
                 import the result"
        } else {
            ""
        };
        anyhow!("{fault}{template}")
    })?;
    if !Spot::root(&root).is_block() {
        bail!("{} is no configuration: it holds no keys", file.display());
    }
    Ok(root)
}

fn files(import: &Import, source: &str) -> anyhow::Result<Vec<File>> {
    let mut files = vec![
        File { name: tell::CONFIG, content: write::config(import, source).into_bytes(), is_private: false },
        File { name: tell::POLICIES, content: write::policies(import, source).into_bytes(), is_private: false },
    ];
    if let Some(Placed { value: path, .. }) = &import.users {
        let content = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        files.push(File { name: write::USERS, content, is_private: true });
    }
    Ok(files)
}
