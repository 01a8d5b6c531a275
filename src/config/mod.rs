//! From files to validated settings. Every fault is collected, with file, line and column; nothing is half loaded.
//!
//! `source` reads a file into a tree that knows its places, `shape` holds the tree against the JSON Schema of the raw types, `sections/`
//! turns raw values into typed ones (Raw -> TryFrom -> typed), `policy_file` compiles the rules, `error` collects.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize as _;

use self::{
    error::{Report, Trail},
    sections::{
        Raw,
        routes::Known,
        server::{RawListener, RawRole},
        session::COOKIE,
    },
    shape::Shape,
};
use crate::{
    core::{
        cookie::PORTAL_COOKIES,
        policy::{Case, RuleSet},
        printable::printable,
        regulation::Budgets,
        request::Role,
        route::{HostPattern, Route, RouteTable},
        site::{CookieScope, Mount, PortalSite, Site},
        target::EncodedSlashes,
        time::Timestamp,
    },
    observe::access_log::Sink,
};

pub use self::{
    places::{CountersPlace, OnFailure, SessionsPlace},
    postgres_url::PostgresUrl,
    quantity::{duration, moment},
    redis_url::{RedisKind, RedisLogin, RedisUrl},
    sections::{
        connections::ConnectionBounds,
        notifier::{MailWay, Notifier, SmtpServer, SmtpTls},
    },
};

mod cases_file;
mod error;
#[cfg(test)]
mod limit_tests;
mod places;
mod policy_file;
mod policy_roles;
mod postgres_url;
mod quantity;
mod reader;
mod redis_url;
#[cfg(test)]
mod secret_tests;
mod sections;
mod shape;
pub(crate) mod source;
#[cfg(test)]
mod tests;

/// One fault or warning: `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    pub file: PathBuf,
    /// From 1; 0 where the file as a whole is at fault.
    pub line: u64,
    pub column: u64,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", printable(&self.file.to_string_lossy()), self.line, self.column)?;
        // What it quotes of a file may hold a line feed, or what a terminal takes for a command.
        for letter in self.message.chars() {
            if letter.is_control() { write!(f, "{}", letter.escape_default())? } else { f.write_char(letter)? }
        }
        Ok(())
    }
}

/// All faults of a load, in the order of file and place.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

/// A file that the configuration names and whose content others understand: TLS and the users' store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedFile {
    /// A certificate chain.
    Certificate(PathBuf),
    /// A private key, beside the certificate that it belongs to.
    Key(CertificateFiles),
    /// Authorities of clients, or of a mail server.
    ClientCa(PathBuf),
    Users(PathBuf),
    /// A database of addresses.
    Countries(PathBuf),
    /// Holds one value of the configuration; it was read already.
    Value(PathBuf),
}

impl NamedFile {
    fn path(&self) -> &Path {
        match self {
            Self::Certificate(path)
            | Self::ClientCa(path)
            | Self::Users(path)
            | Self::Countries(path)
            | Self::Value(path) => path,
            Self::Key(pair) => &pair.key,
        }
    }
}

/// Why a [`NamedFile`] cannot be used.
#[derive(Debug)]
pub enum Unfit {
    /// Told at the key that names the file.
    Whole(String),
    /// At places within the file.
    Within(Faults),
}

/// Looks into a [`NamedFile`].
pub type Inspect<'i> = dyn Fn(&NamedFile) -> Result<(), Unfit> + 'i;

/// What `load` made of the files.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub warnings: Vec<Fault>,
    /// Every file and folder that was read: watched for changes.
    pub sources: Vec<PathBuf>,
}

#[derive(Debug)]
pub struct Settings {
    pub server: Server,
    pub storage: Storage,
    pub users: UsersSource,
    pub log: Log,
    /// A database that says which country an address is in.
    pub geo: Option<PathBuf>,
    pub notifier: Notifier,
    /// None: sign-ins are not regulated.
    pub regulation: Option<Budgets>,
    /// Folder of the rules and their cases.
    pub policies: PathBuf,
    /// What can be swapped at run time.
    pub site: Site,
}

#[derive(Debug, Clone)]
pub struct Server {
    /// Same order as `site.listeners`.
    pub listeners: Vec<Listener>,
    /// `None`: no admin listener (`admin: none`).
    pub admin: Option<SocketAddr>,
    /// Socket for commands that ask the running server; `None`: there is none (`control: none`).
    pub control: Option<PathBuf>,
    pub drain: Duration,
    pub drain_delay: Duration,
    pub source_limit: Option<SourceRate>,
    pub connections: ConnectionBounds,
}

#[derive(Debug, Clone)]
pub struct Listener {
    pub address: SocketAddr,
    pub role: Role,
    pub tls: Option<TlsFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificates: Vec<CertificateFiles>,
    /// A client certificate of one of these authorities is required.
    pub client_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// `N/unit burst B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRate {
    pub count: u32,
    pub per: Duration,
    pub burst: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    pub database: DatabaseAddress,
    pub key_file: PathBuf,
    pub sessions: SessionsPlace,
    pub counters: CountersPlace,
    pub counters_on_failure: OnFailure,
}

/// Shows itself without a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseAddress {
    /// Path of the file (`sqlite://data/postern.db`).
    Sqlite(PathBuf),
    Postgres(PostgresUrl),
}

impl fmt::Display for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => write!(f, "{url} (storage.database)"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsersSource {
    Database,
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// A `tracing` filter: `info`, `postern=debug`.
    pub level: String,
    pub access: Sink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// Reads and validates the file and the policies, without a look into certificates and users.
///
/// # Errors
/// Every fault at once.
pub fn load(file: &Path) -> Result<Loaded, Faults> {
    load_with(file, &|_| Ok(()))
}

/// As [`load`], with a look into every file that the configuration names.
///
/// # Errors
/// Every fault at once, those of the named files included.
pub fn load_with(file: &Path, inspect: &Inspect<'_>) -> Result<Loaded, Faults> {
    load_in(file, &|name| std::env::var(name).ok(), inspect)
}

/// As [`load_with`], under a given environment.
fn load_in(file: &Path, environment: &dyn Fn(&str) -> Option<String>, inspect: &Inspect<'_>) -> Result<Loaded, Faults> {
    let mut faults = Vec::new();
    let parsed = source::read(file).and_then(|text| source::parse(file, &text));
    let mut root = parsed.map_err(|fault| Faults(vec![fault]))?;
    root.expand(file, environment, &mut faults);
    let checked = shape().check(file, &mut root);
    let raw = Raw::deserialize(&mut root);
    let mut report = Report::new(file, root, checked);
    report.faults.extend(faults);
    // The shape took out what serde would refuse; should they ever disagree, nothing is loaded.
    let raw = raw.unwrap_or_else(|error| {
        report.fault(&Trail::root(), error.to_string());
        Raw::default()
    });
    finish(report, &raw, inspect)
}

/// From raw values to settings.
fn finish(mut report: Report, raw: &Raw, inspect: &Inspect<'_>) -> Result<Loaded, Faults> {
    let report = &mut report;
    let (server, listeners) = sections::server::server(report, &raw.server);
    let must_choose = needs_portal(raw).filter(|_| !report.is_pruned("portal"));
    let portal = sections::portal::portal(report, &raw.portal, must_choose);
    let upstreams = sections::upstreams::upstreams(report, &raw.upstreams);
    let encoded_slashes = raw.encoded_slashes.map_or(EncodedSlashes::Reject, EncodedSlashes::from);
    let known = Known { upstreams: &upstreams, upstreams_pruned: report.is_pruned("upstreams"), encoded_slashes };
    let routes = sections::routes::routes(report, &raw.routes, &known);
    // A domain can be judged only by a portal that is known, and by whole routes.
    let is_placed = matches!(portal.mount, Mount::Host { .. }) || raw.portal.path.is_some() || must_choose.is_none();
    let is_whole = !["portal", "routes", "session"].into_iter().any(|key| report.is_pruned(key));
    let cookies = if !is_placed || !is_whole {
        Vec::new()
    } else {
        let hosts: Vec<String> = routes.iter().filter_map(|route| host_of(&route.host).map(str::to_owned)).collect();
        sections::session::cookies(report, &raw.session, &portal.mount, &hosts)
    };
    let hands_over = sections::session::hands_over(report, &raw.session, &portal.mount, &cookies);
    warn_unreachable(report, raw, &routes, &portal, &cookies);
    if !report.is_pruned("routes") {
        sections::routes::warn_unused(report, &raw.routes, &raw.upstreams);
    }
    let lifetimes = sections::session::lifetimes(report, &raw.session);
    let tokens = sections::tokens::tokens(report, &raw.tokens, &portal.mount);
    let storage = sections::storage::storage(report, &raw.storage);
    let users = sections::users::users(report, &raw.users);
    let log = sections::log::log(report, &raw.log);
    let geo = sections::geo::geo(report, &raw.geo);
    let notifier = sections::notifier::notifier(report, &raw.notifier, &portal.mount);
    let regulation = sections::regulation::regulation(report, &raw.regulation);

    report.inspect(inspect);

    let policies_at = Trail::root().key("policies");
    let folder = PathBuf::from(raw.policies.as_deref().unwrap_or("policies/"));
    let roles_by_claim = tokens.trusted_issuers.iter().any(|issuer| issuer.claims.roles.is_some());
    let policies = report.take(&policies_at, policy_file::read(&folder, roles_by_claim));

    let mut sources = vec![report.file.clone(), folder.clone()];
    sources.extend(report.named_paths());
    let mut faults = std::mem::take(&mut report.faults);
    let mut warnings = std::mem::take(&mut report.warnings);
    let rules = policies.and_then(|policies| {
        faults.extend(policies.faults);
        warnings.extend(policies.warnings);
        sources.extend(policies.files);
        policies.rules
    });
    warnings.sort();
    let Some(rules) = rules.filter(|_| faults.is_empty()) else { return Err(sorted(faults)) };
    let own_cookies = own_cookies(&cookies);
    let routes = RouteTable::new(routes);
    let site = Site {
        listeners,
        portal,
        cookies,
        hands_over,
        tells_new_devices: notifier.new_device,
        knows_devices: notifier.new_device || regulation.is_some(),
        lifetimes,
        routes,
        encoded_slashes,
        upstreams,
        rules,
        tokens,
        own_cookies,
    };
    Ok(Loaded {
        settings: Settings { server, storage, users, log, geo, notifier, regulation, policies: folder, site },
        warnings,
        sources,
    })
}

/// Compiles the rules of a folder alone (`policy explain --policies DIR`, `policy replay`). Which issuers there are is not known here, and a
/// recorded request holds no roles that none gave.
///
/// # Errors
/// Every fault at once.
pub fn load_policies(folder: &Path) -> Result<(RuleSet, Vec<Fault>), Faults> {
    compiled(policy_file::read(folder, true).map_err(|message| Faults(vec![source::whole_file(folder, message)]))?)
}

/// Compiles the rules of one file's text; `file` is what faults name. For whoever has no folder (the fuzz targets).
///
/// # Errors
/// As [`load_policies`].
pub fn parse_policies(file: &Path, text: &str) -> Result<(RuleSet, Vec<Fault>), Faults> {
    compiled(policy_file::of_text(file, text))
}

fn compiled(policies: policy_file::Policies) -> Result<(RuleSet, Vec<Fault>), Faults> {
    match policies.rules.filter(|_| policies.faults.is_empty()) {
        Some(rules) => Ok((rules, policies.warnings)),
        None => Err(sorted(policies.faults)),
    }
}

/// A case, and where it stands.
#[derive(Debug)]
pub struct PlacedCase {
    pub file: PathBuf,
    /// From 1.
    pub line: u64,
    pub column: u64,
    pub case: Case,
}

/// The cases (`*.cases.yaml`) beside the rules of a folder, in file-name order; those that name no time are asked `now`.
///
/// # Errors
/// Every fault at once.
pub fn load_cases(folder: &Path, rules: &RuleSet, now: Timestamp) -> Result<Vec<PlacedCase>, Faults> {
    let files = policy_file::policy_files(folder)
        .map_err(|error| Faults(vec![source::whole_file(folder, format!("cannot be read: {error}"))]))?;
    let (mut cases, mut faults) = (Vec::new(), Vec::new());
    for file in files.cases {
        let (found, wrong) = cases_file::read(&file, rules, now);
        cases.extend(found);
        faults.extend(wrong);
    }
    if faults.is_empty() { Ok(cases) } else { Err(sorted(faults)) }
}

/// The JSON Schema of a cases file, as checked in at `config/cases.schema.json`.
#[must_use]
pub fn cases_schema() -> String {
    format!("{:#}\n", cases_file::shape().schema)
}

/// The JSON Schema of the configuration, as checked in at `config/postern.schema.json`.
#[must_use]
pub fn schema() -> String {
    format!("{:#}\n", shape().schema)
}

/// The JSON Schema of a policies file, as checked in at `config/policies.schema.json`.
#[must_use]
pub fn policies_schema() -> String {
    format!("{:#}\n", policy_file::shape().schema)
}

fn shape() -> Shape {
    Shape { schema: schemars::schema_for!(Raw).to_value(), later: sections::LATER, whole_items_of: &[] }
}

/// Never empty: an `Err` without a line would fail without saying why.
fn sorted(mut faults: Vec<Fault>) -> Faults {
    if faults.is_empty() {
        faults.push(source::whole_file(Path::new("policies"), "the rules cannot be compiled".to_owned()));
    }
    faults.sort();
    faults.dedup();
    Faults(faults)
}

/// Why leaving the portal out is no option. A bare edge listener serves it below a path.
fn needs_portal(raw: &Raw) -> Option<&'static str> {
    let asks = |listener: &RawListener| matches!(listener.serves, RawRole::ForwardAuth);
    if !raw.session.cookies.is_empty() {
        Some("cookie domains are named")
    } else if !raw.routes.is_empty() {
        Some("there are routes")
    } else if raw.server.listeners.iter().flatten().any(asks) {
        Some("a `forward_auth` listener sends people to sign in")
    } else {
        None
    }
}

/// The host that stands for a route where cookie domains are judged.
fn host_of(pattern: &HostPattern) -> Option<&str> {
    match pattern {
        HostPattern::Any => None,
        HostPattern::Exact(host) | HostPattern::Below(host) => Some(host),
    }
}

/// Routes on which nobody could sign in, or that the portal hides.
fn warn_unreachable(report: &mut Report, raw: &Raw, routes: &[Route], portal: &PortalSite, cookies: &[CookieScope]) {
    // With a route taken out for a fault, the indices no longer say which is which.
    let Mount::Host { host: portal_host, base, .. } = &portal.mount else { return };
    if routes.len() != raw.routes.len() || cookies.is_empty() {
        return;
    }
    for (index, route) in routes.iter().enumerate() {
        let at = Trail::root().key("routes").item(index);
        let Some(host) = host_of(&route.host) else { continue };
        if !cookies.iter().any(|scope| scope.covers(host)) {
            let message =
                format!("`{host}` lies in no cookie domain, so nobody can sign in there; add it to `session.cookies`");
            report.warn(&at.key("host"), message);
        }
        if base.is_empty() && route.host == HostPattern::Exact(portal_host.clone()) {
            report.warn(&at.key("host"), format!("the portal answers all of `{host}`, so this route is never reached"));
        }
    }
}

fn own_cookies(scopes: &[CookieScope]) -> Vec<String> {
    let fixed = std::iter::once(COOKIE).chain(PORTAL_COOKIES);
    let mut names: Vec<String> = scopes.iter().map(|scope| scope.name.clone()).collect();
    names.extend(fixed.map(str::to_owned));
    names.sort();
    names.dedup();
    names
}
