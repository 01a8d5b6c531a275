//! The key `networks` at the top of the policies, and in a rule.

use ipnet::IpNet;

use super::{Compiler, DraftFault, Place, PolicyDraft, RuleDraft};
use crate::core::spelling::nearest;

impl<'d> Compiler<'d> {
    pub(super) fn read_networks(&mut self, draft: &'d PolicyDraft) {
        for (place, (name, addresses)) in draft.networks.iter().enumerate() {
            let mut networks = Vec::with_capacity(addresses.len());
            if addresses.is_empty() {
                let message =
                    format!("the network {name:?} holds no address: write one such as 10.0.0.0/8, or take it out");
                self.faults.push(DraftFault { place: Place::Network { network: place, entry: None }, message });
            }
            for (entry, address) in addresses.iter().enumerate() {
                match parse_network(address) {
                    Some(network) => networks.push(network),
                    None => self.faults.push(DraftFault {
                        place: Place::Network { network: place, entry: Some(entry) },
                        message: not_a_network(address),
                    }),
                }
            }
            self.warn_of_overlaps(place, name, addresses, &networks);
            if self.networks.insert(name, networks).is_some() {
                let message =
                    format!("the network {name:?} is there twice: give one of them another name, or join them");
                self.faults.push(DraftFault { place: Place::Network { network: place, entry: None }, message });
            }
        }
    }

    /// An address in two places of one list, or in two networks of different names: whoever changes one of them may not think of the other.
    /// `networks` has an entry for each of `addresses` unless one of those is a fault.
    fn warn_of_overlaps(&mut self, network: usize, name: &str, addresses: &[String], networks: &[IpNet]) {
        if networks.len() != addresses.len() {
            return;
        }
        for (entry, (written, one)) in addresses.iter().zip(networks).enumerate() {
            let earlier = networks.iter().take(entry).find(|other| overlap(one, other)).map(|other| (name, other));
            let elsewhere = || {
                let mut named: Vec<_> = self.networks.iter().collect();
                named.sort_unstable_by_key(|(other, _)| **other);
                named.into_iter().find_map(|(other, all)| Some((*other, all.iter().find(|net| overlap(one, net))?)))
            };
            let message = match earlier.or_else(elsewhere) {
                Some((other, net)) if other == name => {
                    format!("{written} overlaps with {net} of the same network: keep the wider one")
                }
                Some((other, net)) => format!(
                    "{written} overlaps with {net} of the network {other:?}: an address in both is in either, whichever a rule names"
                ),
                None => continue,
            };
            let place = Place::Network { network, entry: Some(entry) };
            self.warnings.push(DraftFault { place, message });
        }
    }

    pub(super) fn networks(&mut self, place: usize, written: &RuleDraft) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (entry, text) in written.networks.iter().enumerate() {
            if let Some(named) = self.networks.get(text.as_str()) {
                networks.extend(named);
            } else if let Some(network) = parse_network(text) {
                networks.push(network);
            } else {
                let looks_like_an_address =
                    text.contains(['/', ':']) || text.starts_with(|first: char| first.is_ascii_digit());
                let message = match nearest(text, self.networks.keys().copied()) {
                    _ if looks_like_an_address => not_a_network(text),
                    Some(near) => format!("there is no network {text:?}: did you mean {near:?}?"),
                    None => format!(
                        "there is no network {text:?}: define it under networks, or write an address such as 10.0.0.0/8"
                    ),
                };
                self.fault(place, "networks", Some(entry), message);
            }
        }
        networks
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// An address or a CIDR. IPv4 mapped into IPv6 counts as IPv4, as it does for clients.
fn parse_network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Some(IpNet::from(address.to_canonical()));
    }
    let network: IpNet = text.parse().ok()?;
    if let IpNet::V6(six) = network
        && let Some(four) = six.addr().to_ipv4_mapped()
        && let Some(length) = six.prefix_len().checked_sub(96)
    {
        return ipnet::Ipv4Net::new(four, length).ok().map(IpNet::V4);
    }
    Some(network.trunc())
}

fn not_a_network(text: &str) -> String {
    format!("{text:?} is not an address or a network: write one such as 192.0.2.7, 10.0.0.0/8 or fd00::/8")
}
