//! Where an API token counts. A scope only takes away: without any, a token counts wherever its owner may go with one factor.

/// What cannot be a scope. Said to whoever asks for one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadScope {
    #[error(
        "{0:?} is no scope; there are `read` and `host:NAME`, as in `host:grafana.example.com` or `host:*.example.com`"
    )]
    Unknown(String),
    #[error(
        "{0:?} names no host; write a name without scheme, port and path, as in `host:grafana.example.com` or `host:*.example.com`"
    )]
    Host(String),
    #[error("a token takes no more than {MOST} scopes")]
    TooMany,
}

const MOST: usize = 50;
const READ: &str = "read";
const HOST: &str = "host:";

/// Hosts and methods. All that is said of hosts is one list, of which one must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// GET, HEAD and OPTIONS alone.
    read: bool,
    /// `grafana.example.com`, or `*.example.com` for any depth below; none: every host.
    hosts: Vec<String>,
}

impl Scopes {
    /// Scopes as people write them, in any order. An empty text is none of them: a scope that was meant and lost must not let a token count everywhere.
    ///
    /// # Errors
    /// The first that is none.
    pub fn parse<'s>(written: impl IntoIterator<Item = &'s str>) -> Result<Self, BadScope> {
        let mut scopes = Self::default();
        for text in written.into_iter().map(str::trim) {
            match text.strip_prefix(HOST) {
                Some(host) => {
                    let host = host.trim_end_matches('.').to_ascii_lowercase();
                    if !is_host(host.strip_prefix("*.").unwrap_or(&host)) {
                        return Err(BadScope::Host(text.to_owned()));
                    }
                    if !scopes.hosts.contains(&host) {
                        scopes.hosts.push(host);
                    }
                }
                None if text == READ => scopes.read = true,
                None => return Err(BadScope::Unknown(text.to_owned())),
            }
        }
        if scopes.hosts.len() > MOST { Err(BadScope::TooMany) } else { Ok(scopes) }
    }

    /// As they are written, `read` first.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let read = self.read.then(|| READ.to_owned());
        read.into_iter().chain(self.hosts.iter().map(|host| format!("{HOST}{host}")))
    }

    /// `host`: canonical. An upgraded connection carries what it likes, so that a handshake is no reading.
    #[must_use]
    pub fn allow(&self, host: &str, method: &str, is_websocket: bool) -> bool {
        let may_method = !self.read || (matches!(method, "GET" | "HEAD" | "OPTIONS") && !is_websocket);
        may_method && (self.hosts.is_empty() || self.hosts.iter().any(|allowed| covers(allowed, host)))
    }
}

fn covers(allowed: &str, host: &str) -> bool {
    match allowed.strip_prefix('*') {
        Some(below) => host.len() > below.len() && host.ends_with(below),
        None => allowed == host,
    }
}

fn is_host(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=253).contains(&text.len()) && text.split('.').all(|label| !label.is_empty() && label.bytes().all(is_letter))
}
