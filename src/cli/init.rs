use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};

use super::password;
use crate::{app, config, core::user::User};

/// Write a configuration to start from, and the first administrator
///
/// Writes config/postern.yaml, policies/access.yaml and its cases with the schemas that editors check them by, and creates the
/// storage key, the database and a user in the group admins. Never overwrites anything.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to write
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Name of the first administrator
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin: String,
    /// Read the administrator's password from standard input; without it a random one is made and shown once
    #[arg(long)]
    password_stdin: bool,
}

const CONFIG: &str = include_str!("../../config/postern.yaml");
const POLICIES: &str = include_str!("../../policies/access.yaml");
const CASES: &str = include_str!("../../policies/access.cases.yaml");

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (schema, policies_schema, cases_schema) = (config::schema(), config::policies_schema(), config::cases_schema());
    let files = [
        ("config/postern.yaml", CONFIG),
        ("policies/access.yaml", POLICIES),
        ("policies/access.cases.yaml", CASES),
        // Named by the first line of the three, so that editors complete and check them.
        ("config/postern.schema.json", schema.as_str()),
        ("config/policies.schema.json", policies_schema.as_str()),
        ("config/cases.schema.json", cases_schema.as_str()),
    ];
    for (name, _) in files {
        let file = args.folder.join(name);
        if file.exists() {
            bail!("{} exists already, and init never overwrites; choose an empty folder", file.display());
        }
    }
    let password = if args.password_stdin { Some(password::read_new(true)?) } else { None };
    let user = User::new(args.admin.clone(), vec!["admins".to_owned()]).checked()?;
    for (name, text) in files {
        write_new(&args.folder.join(name), text)?;
    }
    // Paths in a configuration are relative to the working directory: work from where it will be served.
    std::env::set_current_dir(&args.folder).with_context(|| format!("cannot change into {}", args.folder.display()))?;
    let generated = app::runtime()?.block_on(async {
        let stores = app::open_stores(Path::new("config/postern.yaml")).await?;
        let (password, generated) = match password {
            Some(password) => (password, None),
            None => {
                let password = password::random(&*stores.entropy);
                (SecretString::from(password.clone()), Some(password))
            }
        };
        let hash = stores.hasher.hash(password).await?;
        stores.users.insert(user, Some(hash)).await?;
        anyhow::Ok(generated.map(SecretString::from))
    })?;

    let mut out = io::stdout().lock();
    for (name, _) in files {
        writeln!(out, "wrote    {}", args.folder.join(name).display())?;
    }
    writeln!(
        out,
        "created  data/postern.db and data/postern.key (keep the key: without it the database cannot be used)"
    )?;
    writeln!(out, "created  user {} in the group admins", args.admin)?;
    if let Some(password) = generated {
        writeln!(out, "\n  password: {}   (shown this once)\n", password.expose_secret())?;
    }
    writeln!(out, "next:    cd {} && postern check && postern serve", args.folder.display())?;
    Ok(ExitCode::SUCCESS)
}

fn write_new(file: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut open = fs::File::create_new(file).with_context(|| format!("cannot create {}", file.display()))?;
    open.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", file.display()))
}
