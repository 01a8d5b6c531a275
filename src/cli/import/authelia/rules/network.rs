//! Networks by name: `access_control.networks`, and `definitions.network` of Authelia 4.39; and the `networks` of a rule.

use std::collections::HashMap;

use super::{
    super::{
        ledger::{Ledger, kind_of},
        spot::{Placed, Spot, is_templated},
    },
    Entries,
    probe::{deny, probe},
};
use crate::core::policy::RuleDraft;

#[derive(Debug, Default)]
pub(in crate::cli::import::authelia) struct Networks {
    by_name: HashMap<String, Entries<String>>,
    /// Those that hold an address, in their order.
    pub(in crate::cli::import::authelia) written: Vec<(Placed<String>, Vec<String>)>,
}

impl Networks {
    pub(super) fn read(root: &Spot<'_>, ledger: &mut Ledger) -> Self {
        let mut networks = Self::default();
        if let Some(definitions) = root.get("definitions.network") {
            for (name, spot) in definitions.named() {
                networks.add(name, &spot, &spot, ledger);
            }
        }
        for spot in root.get("access_control.networks").map(|networks| networks.items()).unwrap_or_default() {
            let name = spot.get("name");
            match (name.as_ref().and_then(|name| Some((name, name.text()?))), spot.get("networks")) {
                (Some((at, name)), Some(addresses)) => {
                    ledger.carry(at);
                    networks.add(name, at, &addresses, ledger);
                }
                _ => ledger.find(&spot, "is no network with `name` and `networks`; rules that name it are closed"),
            }
        }
        networks
    }

    fn add(&mut self, name: &str, at: &Spot<'_>, addresses: &Spot<'_>, ledger: &mut Ledger) {
        if self.by_name.contains_key(name) {
            ledger.find(
                at,
                format!(
                    "the network {name:?} is there twice, so rules that name it are closed; Authelia would not start"
                ),
            );
            self.by_name.insert(name.to_owned(), Entries { good: Vec::new(), lost: true });
            self.written.retain(|(other, _)| other.value != name);
            return;
        }
        let mut entries = Entries::default();
        for (spot, text) in addresses.texts() {
            match text.ok_or_else(|| format!("is {}, not an address", kind_of(&spot))).and_then(address) {
                Ok(address) => {
                    ledger.carry(&spot);
                    entries.good.push(address);
                }
                Err(message) => {
                    ledger.find(
                        &spot,
                        format!("{message}; rules that name {name:?} are closed where it would have counted"),
                    );
                    entries.lost = true;
                }
            }
        }
        if entries.good.is_empty() && !entries.lost {
            ledger.find(addresses, format!("holds no address; rules that name {name:?} are closed"));
            entries.lost = true;
        }
        if !entries.good.is_empty() {
            self.written.push((Placed::at(at, name.to_owned()), entries.good.clone()));
        }
        self.by_name.insert(name.to_owned(), entries);
    }

    /// As `core::policy` takes them.
    pub(super) fn drafts(&self) -> Vec<(String, Vec<String>)> {
        self.written.iter().map(|(name, addresses)| (name.value.clone(), addresses.clone())).collect()
    }

    /// The `networks` of a rule.
    pub(super) fn of_rule(&self, spot: &Spot<'_>, closes: &str, ledger: &mut Ledger) -> Entries<String> {
        let mut entries = Entries::default();
        for (spot, text) in spot.texts() {
            let Some(text) = text else {
                ledger.find(&spot, format!("is {}, not an address or a name; {closes}", kind_of(&spot)));
                entries.lost = true;
                continue;
            };
            match self.by_name.get(text).filter(|_| !is_templated(text)) {
                Some(named) if named.lost => {
                    ledger.find(&spot, format!("the network {text:?} was not carried over whole; {closes}"));
                    entries.lost = true;
                    if !named.good.is_empty() {
                        entries.good.push(text.to_owned());
                    }
                }
                Some(_) => {
                    ledger.carry(&spot);
                    entries.good.push(text.to_owned());
                }
                None => match address(text) {
                    Ok(address) => {
                        ledger.carry(&spot);
                        entries.good.push(address);
                    }
                    Err(message) => {
                        ledger.find(&spot, format!("{message}; {closes}"));
                        entries.lost = true;
                    }
                },
            }
        }
        entries
    }
}

fn address(text: &str) -> Result<String, String> {
    if is_templated(text) {
        return Err("a template or the environment may fill this in".to_owned());
    }
    let networks = vec![text.to_owned()];
    match probe(RuleDraft { networks, ..deny() }) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("{text:?} is no address, no network and the name of none")),
    }
}
