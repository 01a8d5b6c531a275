//! The one place that canonicalises a host and a path (CONTRACT 3 "The canonical path", THREATS 1 to 13).
//! Rules see the canonical forms; what is forwarded is what came, byte for byte.

use std::net::Ipv6Addr;

use super::verdict::Rejection;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// `ws` and `wss` are read as `http` and `https`; case does not matter (RFC 3986 §3.1).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is = |name: &str| text.eq_ignore_ascii_case(name);
        if is("https") || is("wss") {
            Some(Self::Https)
        } else if is("http") || is("ws") {
            Some(Self::Http)
        } else {
            None
        }
    }

    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What becomes of a path with an encoded slash or backslash (`encoded_slashes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EncodedSlashes {
    #[default]
    Reject,
    /// Read as a character and as a slash; the strictest verdict holds.
    Strictest,
}

/// Where a request wants to go.
#[derive(Clone, Debug)]
pub struct Target {
    scheme: Scheme,
    /// Lower case, no port, no trailing dot; an IPv6 address in brackets.
    host: String,
    /// As it came, if it came.
    port: Option<u16>,
    /// Path and query as they came.
    raw: String,
    path: String,
    /// The other readings: with the parameters of `;` taken off, with encoded slashes as slashes, with both in either order.
    others: Vec<String>,
    has_encoded_slash: bool,
}

impl Target {
    /// `authority` is a `Host` header's value or an HTTP/2 `:authority`; `raw` is the path with its query, in origin form.
    ///
    /// # Errors
    /// [`Rejection::Host`] or [`Rejection::Path`] where it cannot be read in one way (or in the two of `;`).
    pub fn parse(scheme: Scheme, authority: &str, raw: &str) -> Result<Self, Rejection> {
        Self::parse_with(scheme, authority, raw, EncodedSlashes::Reject)
    }

    /// # Errors
    /// As [`Target::parse`], but for encoded slashes where they may be.
    pub fn parse_with(scheme: Scheme, authority: &str, raw: &str, slashes: EncodedSlashes) -> Result<Self, Rejection> {
        let (host, port) = split_authority(authority).ok_or(Rejection::Host)?;
        let path = raw.split_once('?').map_or(raw, |(path, _)| path);
        if !(raw.starts_with('/') || raw.is_empty() || raw.starts_with('?')) {
            return Err(Rejection::Path("it does not begin with a slash"));
        }
        if !raw.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(Rejection::Path("it holds a character that must be percent-encoded"));
        }
        let kept = match slashes {
            EncodedSlashes::Reject => Slash::Rejected,
            EncodedSlashes::Strictest => Slash::Kept,
        };
        let as_slashes = (slashes == EncodedSlashes::Strictest).then(|| split_at_encoded(path)).transpose()?.flatten();
        let stripped = match &as_slashes {
            Some(_) if path.contains(';') => split_at_encoded(&without_parameters(path))?,
            _ => None,
        };
        let path = canonical_path(path, kept)?;
        let mut others = Vec::new();
        if path.contains(';') {
            others.push(without_dot_segments(without_parameters(&path))?);
        }
        let has_encoded_slash = as_slashes.is_some();
        if let Some(split) = as_slashes {
            if split.contains(';') {
                others.push(resolved(&without_parameters(&split)));
            }
            // Servlet containers take parameters off before they decode: what is encoded behind a `;` is gone by then.
            others.extend(stripped.map(|stripped| resolved(&stripped)));
            others.push(resolved(&split));
            // What several read alike is decided once.
            let mut known: Vec<String> = Vec::with_capacity(others.len());
            others.retain(|reading| {
                let is_new = *reading != path && !known.contains(reading);
                if is_new {
                    known.push(reading.clone());
                }
                is_new
            });
        }
        let raw = if raw.starts_with('/') { raw.to_owned() } else { format!("/{raw}") };
        Ok(Self { scheme, host, port, raw, path, others, has_encoded_slash })
    }

    /// Parses an absolute URL (`X-Original-URL`, `rd`), without a fragment or userinfo.
    ///
    /// # Errors
    /// As [`Target::parse`], and [`Rejection::Scheme`].
    pub fn parse_url(url: &str) -> Result<Self, Rejection> {
        Self::parse_url_with(url, EncodedSlashes::Reject)
    }

    /// # Errors
    /// As [`Target::parse_with`], and [`Rejection::Scheme`].
    pub fn parse_url_with(url: &str, slashes: EncodedSlashes) -> Result<Self, Rejection> {
        let (scheme, rest) = url.split_once("://").ok_or(Rejection::Scheme)?;
        let scheme = Scheme::parse(scheme).ok_or(Rejection::Scheme)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, raw) = rest.split_at(end);
        Self::parse_with(scheme, authority, raw, slashes)
    }

    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port as it came.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// `host[:port]`, the port as it came.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// Path and query as they came.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// The raw query, without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.raw.split_once('?').map(|(_, query)| query)
    }

    /// The canonical path: the first reading (parameters of `;` kept, encoded slashes as `%2F` and `%5C`).
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Every reading of the path; the strictest verdict over them holds.
    pub fn readings(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.path.as_str()).chain(self.others.iter().map(String::as_str))
    }

    /// Whether an encoded slash or backslash gave it more readings.
    #[must_use]
    pub fn has_encoded_slash(&self) -> bool {
        self.has_encoded_slash
    }

    /// `https://host[:port]`, the port only where it is not the scheme's own.
    #[must_use]
    pub fn origin(&self) -> String {
        match self.port.filter(|port| *port != self.scheme.default_port()) {
            Some(port) => format!("{}://{}:{port}", self.scheme.as_str(), self.host),
            None => format!("{}://{}", self.scheme.as_str(), self.host),
        }
    }

    /// The original URL, absolute: for `rd`. Port (as it came) and query kept.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme.as_str(), self.authority(), self.raw)
    }

    /// The same target asked for over https. Port 80, if it came, is left out: nobody speaks TLS there.
    #[must_use]
    pub fn over_https(&self) -> Self {
        let port = self.port.filter(|port| *port != Scheme::Http.default_port());
        Self { scheme: Scheme::Https, port, ..self.clone() }
    }
}

/// The canonical form of a host name or address in a configuration or a header, or `None` where it is neither.
/// Lower case, no trailing dot, no port; IPv6 in brackets. Underscores are allowed in labels (they occur in practice).
#[must_use]
pub fn canonical_host(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    (name.len() <= 253 && is_name(name)).then(|| name.to_ascii_lowercase())
}

/// Labels of 1 to 63 letters, digits, dashes and underscores, with dots between them. In one pass: it runs on every request.
fn is_name(name: &str) -> bool {
    let mut label = 0;
    let is_good = name.bytes().all(|byte| match byte {
        b'.' => std::mem::take(&mut label) > 0,
        b'-' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
            label += 1;
            label <= 63
        }
        _ => false,
    });
    is_good && label > 0
}

/// Host and port of an authority without userinfo (RFC 3986 §3.2).
fn split_authority(authority: &str) -> Option<(String, Option<u16>)> {
    let host_end = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(host_end)?;
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        // An empty port is the scheme's own (RFC 3986 §3.2.3).
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
    };
    Some((canonical_host(host)?, port))
}

pub const ENCODED_SLASH: Rejection = Rejection::Path("it holds an encoded slash");

/// What an encoded slash or backslash becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Rejected,
    /// A character like any other, which no segment can hold decoded: `%2F`, `%5C`.
    Kept,
    Split,
}

/// The reading of those who take an encoded slash for a slash, dot segments not yet resolved. `None`: there is none.
fn split_at_encoded(raw: &str) -> Result<Option<String>, Rejection> {
    let has = |escape: &[u8]| raw.as_bytes().windows(3).any(|window| window.eq_ignore_ascii_case(escape));
    match (has(b"%2f"), has(b"%5c")) {
        (false, false) => Ok(None),
        // Who takes the one for a slash may take the other for a character.
        (true, true) => Err(Rejection::Path("it holds both encoded slashes and encoded backslashes")),
        _ => canonical_path(raw, Slash::Split).and_then(only_resolved_in_one_way).map(Some),
    }
}

/// `/a//../b` is `/b` to whoever takes two slashes for one first, `/a/b` to whoever resolves first (RFC 3986 §5.2.4). Parameters alone may
/// become an empty segment, or one before them a dot segment.
fn only_resolved_in_one_way(path: String) -> Result<String, Rejection> {
    let names: Vec<&str> =
        path.split('/').skip(1).map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    // A slash at the end leaves an empty one behind that is none.
    let inner = names.split_last().map_or(&[][..], |(_, inner)| inner);
    if inner.contains(&"") && names.iter().any(|name| matches!(*name, "." | "..")) {
        return Err(Rejection::Path("it holds an encoded slash beside another slash, and a dot segment"));
    }
    Ok(path)
}

/// Dot segments taken out as RFC 3986 §5.2.4 does.
fn resolved(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in path.split('/').skip(1) {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let path = format!("/{}", segments.join("/"));
    if ends_in_slash && path != "/" { path + "/" } else { path }
}

/// Decoded once, `//` as `/`; anything that could be read in another way is refused.
fn canonical_path(raw: &str, slash: Slash) -> Result<String, Rejection> {
    if is_plain(raw) {
        return Ok(raw.to_owned());
    }
    let mut bytes = Vec::with_capacity(raw.len().max(1));
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        let decoded = if byte == b'%' {
            let digits = (rest.next().and_then(hex), rest.next().and_then(hex));
            let (Some(high), Some(low)) = digits else {
                return Err(Rejection::Path("it holds a percent sign that is not followed by two hexadecimal digits"));
            };
            match (high * 16 + low, slash) {
                (b'/', Slash::Rejected) => return Err(ENCODED_SLASH),
                (b'\\', Slash::Rejected) => return Err(Rejection::Path("it holds a backslash")),
                (b'/', Slash::Kept) => {
                    bytes.extend_from_slice(b"%2F");
                    continue;
                }
                (b'\\', Slash::Kept) => {
                    bytes.extend_from_slice(b"%5C");
                    continue;
                }
                (b'/' | b'\\', Slash::Split) => b'/',
                (decoded, _) => decoded,
            }
        } else {
            byte
        };
        match decoded {
            b'\\' => return Err(Rejection::Path("it holds a backslash")),
            0 => return Err(Rejection::Path("it holds a NUL")),
            control if control.is_ascii_control() => return Err(Rejection::Path("it holds a control character")),
            // Whoever splits at encoded slashes sees to it later.
            b'/' if slash != Slash::Split && bytes.last() == Some(&b'/') => {}
            decoded => bytes.push(decoded),
        }
    }
    if bytes.is_empty() {
        bytes.push(b'/');
    }
    let path = String::from_utf8(bytes).map_err(|_| Rejection::Path("it is not UTF-8"))?;
    if path.chars().any(char::is_control) {
        return Err(Rejection::Path("it holds a control character"));
    }
    // Where slashes came out of it, the caller resolves.
    if slash == Slash::Split { Ok(path) } else { without_dot_segments(path) }
}

/// Whether a path of visible ASCII characters is canonical as it came: nothing encoded, no backslash, nothing empty or with
/// a dot in front between its slashes. Most are; the others take the long way.
fn is_plain(path: &str) -> bool {
    let mut last = 0;
    let nothing_to_do = path.bytes().all(|byte| {
        let plain = !matches!((last, byte), (_, b'%' | b'\\') | (b'/', b'/' | b'.'));
        last = byte;
        plain
    });
    nothing_to_do && path.starts_with('/')
}

/// The second reading of a path with `;`: the parameters of every segment taken off, as servlet containers do. A segment that becomes
/// a dot segment by that (`/public/..;/admin`) is refused like one that was written so, by the caller.
fn without_parameters(path: &str) -> String {
    let mut reading = String::with_capacity(path.len());
    for segment in path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        // A segment may have been parameters alone: `//` counts as `/`.
        if !reading.ends_with('/') {
            reading.push('/');
        }
        reading.push_str(segment);
    }
    reading
}

fn without_dot_segments(path: String) -> Result<String, Rejection> {
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Rejection::Path("it holds a dot segment"));
    }
    Ok(path)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests;
