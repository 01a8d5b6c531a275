//! Where to go after sign-in (`rd`), and where not to (CONTRACT 7, THREATS 43 and 44).

use url::Url;

use super::{
    site::{CookieScope, Mount, Site},
    target::{EncodedSlashes, Scheme, Target},
};

/// The URL to follow, or `None` where `rd` must be ignored: it is followed only if https (http too if the portal is),
/// without userinfo, within the cookie domain of the serving portal, and, where there are only edge listeners, on a route.
/// With `portal.path`, `own_origin` (`https://host[:port]`) is the only allowed origin.
#[must_use]
pub fn return_to(rd: &str, site: &Site, scope: &CookieScope, portal_scheme: Scheme, own_origin: &str) -> Option<Url> {
    // What a URL parser forgives (white space, controls, backslashes), browsers forgive in other ways.
    if rd.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'\\') {
        return None;
    }
    let (scheme, after_scheme) = rd.split_once("://")?;
    if !(scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")) {
        return None;
    }
    let authority = after_scheme.split(['/', '?', '#']).next()?;
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    let url = Url::parse(rd).ok()?;
    let scheme = Scheme::parse(url.scheme())?;
    if scheme == Scheme::Http && portal_scheme == Scheme::Https {
        return None;
    }
    // The host as the browser will see it: with a dot at its end it is another one, to which no cookie of ours is sent.
    let is_home = match site.portal.mount {
        Mount::Path(_) => url.origin().ascii_serialization() == own_origin,
        Mount::Host { .. } => !scope.domain.is_empty() && scope.covers(url.host_str()?),
    };
    (is_home && is_served(&url, site)).then_some(url)
}

/// Whether the gate can read the target; and where nobody else stands in front of applications, whether it leads to one.
fn is_served(url: &Url, site: &Site) -> bool {
    let mut url = url.clone();
    url.set_fragment(None);
    let Ok(target) = Target::parse_url_with(url.as_str(), site.widest_slashes()) else { return false };
    if !site.is_edge_only() {
        return true;
    }
    let takes = |slashes| !target.has_encoded_slash() || slashes == EncodedSlashes::Strictest;
    let route = site.routes.find(target.host(), target.path());
    route.is_some_and(|route| takes(route.encoded_slashes))
        || site.portal_path(&target).is_some_and(|_| takes(EncodedSlashes::Reject))
}

#[cfg(test)]
mod tests;
