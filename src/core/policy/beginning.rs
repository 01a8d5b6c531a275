//! What a regex says of a text of which only the beginning is known: a path without its query. `pattern` asks, for a record alone.
//!
//! The automaton reads the beginning. If every state that it can then come to accepts, or none does, what follows is no matter.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use regex_automata::{
    Anchored, Input,
    hybrid::{
        LazyStateID,
        dfa::{Cache, Config, DFA},
    },
    util::syntax,
};

/// Bytes for the states of one automaton.
const CACHE: usize = 1 << 20;
/// States that are looked through; where there are more nobody can say.
const MOST_STATES: usize = 256;

#[derive(Debug)]
pub(super) struct Beginning {
    automaton: DFA,
    cache: Mutex<Cache>,
}

impl Beginning {
    /// `source` is anchored at its start. `None`: it is too large.
    pub(super) fn of(source: &str, dot_matches_all: bool) -> Option<Self> {
        // Rather than forget states that are still to be looked at, it gives up.
        let config = Config::new().cache_capacity(CACHE).minimum_cache_clear_count(Some(0));
        let syntax = syntax::Config::new().utf8(false).dot_matches_new_line(dot_matches_all);
        let automaton = DFA::builder().configure(config).syntax(syntax).build(source).ok()?;
        let cache = Mutex::new(automaton.create_cache());
        Some(Self { automaton, cache })
    }

    /// Whether it matches the text that begins with `parts`, one behind the other, and goes on in visible ASCII. `None`: it depends on how.
    pub(super) fn is_match(&self, parts: [&str; 2]) -> Option<bool> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(known) = self.known(&mut cache, parts) {
            return known;
        }
        self.automaton.reset_cache(&mut cache);
        None
    }

    fn known(&self, cache: &mut Cache, parts: [&str; 2]) -> Result<Option<bool>, GaveUp> {
        let mut state = self.automaton.start_state_forward(cache, &Input::new("").anchored(Anchored::Yes))?;
        for byte in parts.iter().flat_map(|part| part.bytes()) {
            state = self.automaton.next_state(cache, state, byte)?;
            if let Some(settled) = settled(state)? {
                return Ok(Some(settled));
            }
        }
        let (mut seen, mut left) = (HashSet::from([state]), vec![state]);
        let (mut may_match, mut may_not) = (false, false);
        while let Some(state) = left.pop() {
            if self.automaton.next_eoi_state(cache, state)?.is_match() {
                may_match = true;
            } else {
                may_not = true;
            }
            for byte in b'!'..=b'~' {
                let next = self.automaton.next_state(cache, state, byte)?;
                match settled(next)? {
                    Some(true) => may_match = true,
                    Some(false) => may_not = true,
                    None if seen.insert(next) => left.push(next),
                    None => {}
                }
            }
            if (may_match && may_not) || seen.len() > MOST_STATES {
                return Ok(None);
            }
        }
        Ok(Some(may_match))
    }
}

/// The automaton cannot say.
struct GaveUp;

impl<E: std::error::Error> From<E> for GaveUp {
    fn from(_: E) -> Self {
        Self
    }
}

/// What holds whatever follows. A match shows one byte late, so that it saw what it looks ahead for.
fn settled(state: LazyStateID) -> Result<Option<bool>, GaveUp> {
    match state {
        _ if state.is_match() => Ok(Some(true)),
        _ if state.is_dead() => Ok(Some(false)),
        _ if state.is_quit() => Err(GaveUp),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REGEXES: &[&str] = &[
        "^/api([/?].*)?$",
        "^/api/",
        "^/api$",
        r"^/api\?debug",
        r"^/api/x\?(a|b)",
        "^/(api|b)$|^/b",
        r"^/[a-z]+(\?.*)?$",
        r"^/api(?-u:\b)",
        "^/",
        r"^/[^?]*$",
        r"^/.*\.php$",
        "^/a.{0,300}z$",
        "^$|^/é",
        r"^/api\?$",
        r"^/(?i)API(?-u:\b)",
    ];

    #[test]
    fn what_is_known_from_the_beginning() {
        for (regex, path, expected) in [
            ("^/api([/?].*)?$", "/api", Some(true)),
            ("^/api([/?].*)?$", "/api/x", Some(true)),
            ("^/api([/?].*)?$", "/apix", Some(false)),
            ("^/api$", "/api", Some(false)),
            ("^/api/", "/api/x", Some(true)),
            (r"^/api\?debug", "/api", None),
            (r"^/api\?debug", "/other", Some(false)),
            (r"^/[^?]*$", "/x", Some(false)),
            (r"^/.*\.php$", "/x", None),
            // A space comes in no query.
            (r"^/api\?.* ", "/api", Some(false)),
            // More states than are looked through.
            ("^/a.{0,300}z$", "/a", None),
        ] {
            assert_eq!(Beginning::of(regex, false).unwrap().is_match([path, "?"]), expected, "{regex} {path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_known_holds_whatever_the_query(
            regex in prop::sample::select(REGEXES),
            path in prop::sample::select(vec!["/", "/api", "/api/x", "/api/x.php", "/apix", "/b", "/é", "/az"]),
            query in "[a-z=&?.]{0,8}|debug|a|b|",
        ) {
            let known = Beginning::of(regex, false).unwrap().is_match([path, "?"]);
            let matches = regex::bytes::Regex::new(regex).unwrap().is_match(format!("{path}?{query}").as_bytes());
            prop_assert!(known.is_none_or(|known| known == matches), "{regex} {path}?{query}: {known:?}");
        }
    }
}
