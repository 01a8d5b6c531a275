//! Where an address is, as far as a database of addresses says. For people alone: no rule reads it.

use super::printable::printable;

/// A country.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Country {
    /// ISO 3166-1: `DE`.
    pub code: String,
    /// In English: `Germany`.
    pub name: String,
}

impl Country {
    /// From a database that others wrote: `None` where the code is none.
    #[must_use]
    pub fn new(code: &str, name: Option<&str>) -> Option<Self> {
        let is_code = code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
        let code = is_code.then(|| code.to_ascii_uppercase())?;
        let name = name.filter(|name| !name.trim().is_empty()).map(|name| name.chars().take(60).collect::<String>());
        Some(Self { name: name.map_or_else(|| code.clone(), |name| printable(&name)), code })
    }
}
