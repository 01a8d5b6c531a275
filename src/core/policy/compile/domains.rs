//! The keys `domain` and `domain_regex` of a rule, and under which hosts it stands in the index.

use super::{Anatomy, Compiler, Domain, HostKey, Pattern, RuleDraft};
use crate::core::target::canonical_host;

impl Compiler<'_> {
    pub(super) fn domains(&mut self, place: usize, written: &RuleDraft, hosts: &mut Vec<HostKey>) -> Vec<Domain> {
        if written.domain.is_empty() && written.domain_regex.is_empty() {
            let message =
                "the rule has no domain: write one such as app.example.com or \"*.example.com\", or a domain_regex";
            self.fault(place, "domain", None, message.to_owned());
        }
        let mut domains = Vec::with_capacity(written.domain.len() + written.domain_regex.len());
        for (entry, pattern) in written.domain.iter().enumerate() {
            match parse_domain(pattern) {
                Ok(domain) => {
                    hosts.push(match &domain {
                        Domain::Exact(host) => HostKey::Exact(host.clone()),
                        Domain::Below(suffix) | Domain::User(suffix) | Domain::Group(suffix) => {
                            HostKey::Below(suffix.clone())
                        }
                        Domain::Regex(_) => HostKey::Any,
                    });
                    domains.push(domain);
                }
                Err(message) => self.fault(place, "domain", Some(entry), message),
            }
        }
        for (entry, regex) in written.domain_regex.iter().enumerate() {
            match parse_domain_regex(regex) {
                Ok((pattern, anatomy)) => {
                    hosts.extend(host_keys(anatomy));
                    domains.push(Domain::Regex(pattern));
                }
                Err(message) => self.fault(place, "domain_regex", Some(entry), message),
            }
        }
        domains
    }
}

type MakeDomain = fn(Box<str>) -> Domain;

fn parse_domain(written: &str) -> Result<Domain, String> {
    if written.contains("://") {
        return Err(format!("the domain {written:?} has a scheme: write the host alone"));
    }
    if written.contains('/') {
        return Err(format!("the domain {written:?} has a path: write the host alone, and the path under path"));
    }
    let forms: [(&str, MakeDomain); 3] =
        [("*.", Domain::Below), ("{user}.", Domain::User), ("{group}.", Domain::Group)];
    let (make, name) = forms
        .iter()
        .find_map(|(form, make)| Some((*make, written.strip_prefix(form)?)))
        .unwrap_or((Domain::Exact as MakeDomain, written));
    if name.contains(['*', '{', '}']) {
        return Err(format!(
            "the domain {written:?}: *, {{user}} and {{group}} stand only at the beginning and before a dot, as in \
             \"*.example.com\"; for anything else write a domain_regex"
        ));
    }
    if name.contains(':') && !name.ends_with(']') && !is_ipv6(name) {
        return Err(format!("the domain {written:?} has a port, but rules never see one: write the host alone"));
    }
    let bracketed = if is_ipv6(name) { format!("[{name}]") } else { name.to_owned() };
    match canonical_host(&bracketed) {
        Some(host) => Ok(make(host.into_boxed_str())),
        None => Err(format!("{written:?} is not a domain: write one such as app.example.com or \"*.example.com\"")),
    }
}

fn is_ipv6(name: &str) -> bool {
    name.parse::<std::net::Ipv6Addr>().is_ok()
}

fn parse_domain_regex(written: &str) -> Result<(Pattern, Anatomy), String> {
    let (pattern, anatomy) = Pattern::parse(written)?;
    if !anatomy.anchored_at_start || !anatomy.anchored_at_end {
        return Err(format!(
            "the regex {written:?} is not anchored at both ends, so it would match hosts that only contain it: write ^(…)$ around it"
        ));
    }
    if !anatomy.can_be_host {
        return Err(format!(
            "no host can match the regex {written:?}: rules see hosts in lower case, without a port, and an IPv6 address within [ ]"
        ));
    }
    Ok((pattern, anatomy))
}

/// A regex that matches a few hosts and no others stands under these in the index.
fn host_keys(anatomy: Anatomy) -> Vec<HostKey> {
    let hosts: Option<Vec<HostKey>> = anatomy
        .prefixes
        .into_iter()
        .map(|host| String::from_utf8(host).ok().map(|host| HostKey::Exact(host.into_boxed_str())))
        .collect();
    match hosts {
        Some(hosts) if anatomy.exact && !hosts.is_empty() => hosts,
        _ => vec![HostKey::Any],
    }
}
