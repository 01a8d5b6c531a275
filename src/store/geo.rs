//! Countries of addresses, from a database in MaxMind's format (GeoLite2, GeoIP2, DB-IP, IPinfo). Read whole into memory at the start and at a
//! reload, so that a look never waits and a file that is replaced meanwhile changes nothing.

use std::{fs, net::IpAddr, path::Path, sync::Arc};

use arc_swap::ArcSwapOption;
use maxminddb::{LookupResult, PathElement, Reader};

use crate::{core::place::Country, ports::Geo};

/// Entries that are looked at to tell whether a database names countries at all. Some begin with networks that are nowhere.
const LOOKED_AT: usize = 10_000;

/// A database that was read and found to name countries.
pub struct Countries(Reader<Vec<u8>>);

impl Countries {
    /// What `geo.database` names, if it does.
    ///
    /// # Errors
    /// As [`Countries::read`].
    pub fn configured(path: Option<&Path>) -> Result<Option<Self>, String> {
        path.map(Self::read).transpose()
    }

    /// # Errors
    /// What is wrong with the file, and what to do.
    pub fn read(path: &Path) -> Result<Self, String> {
        let path_told = path.display();
        let bytes = fs::read(path).map_err(|error| {
            format!("the file `{path_told}` cannot be read ({error}); correct the path or its permissions")
        })?;
        let reader = Reader::from_source(bytes).map_err(|error| {
            format!("`{path_told}` is no database in MaxMind's format, or is damaged ({error}); fetch it again")
        })?;
        let countries = Self(reader);
        if !countries.name_any()? {
            let kind = &countries.0.metadata().database_type;
            return Err(format!(
                "`{path_told}` names no countries (it is of the type `{kind}`); fetch one such as GeoLite2-Country.mmdb"
            ));
        }
        Ok(countries)
    }

    fn name_any(&self) -> Result<bool, String> {
        let damaged = |error| format!("this database is damaged ({error}); fetch it again");
        let networks = self.0.networks(Default::default()).map_err(damaged)?;
        for network in networks.take(LOOKED_AT) {
            if country(&network.map_err(damaged)?).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn of(&self, address: IpAddr) -> Option<Country> {
        country(&self.0.lookup(address).ok()?)
    }
}

/// What is damaged below the surface names nothing.
fn country(found: &LookupResult<'_, Vec<u8>>) -> Option<Country> {
    let text = |path: &[PathElement<'_>]| found.decode_path::<&str>(path).ok().flatten();
    let key = PathElement::Key;
    // Where somebody is comes before where the network is registered. The last is IPinfo's.
    for place in ["country", "registered_country"] {
        if let Some(code) = text(&[key(place), key("iso_code")]) {
            return Country::new(code, text(&[key(place), key("names"), key("en")]));
        }
    }
    Country::new(text(&[key("country_code")])?, text(&[key("country")]))
}

/// The database in force, if any.
#[derive(Default)]
pub struct MaxMindGeo(ArcSwapOption<Countries>);

impl MaxMindGeo {
    /// From now on.
    pub fn swap(&self, countries: Option<Countries>) {
        self.0.store(countries.map(Arc::new));
    }
}

impl Geo for MaxMindGeo {
    fn country(&self, address: IpAddr) -> Option<Country> {
        // Some databases hold IPv4 alone.
        let address = match address {
            IpAddr::V6(address) => address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4),
            address => address,
        };

        self.0.load().as_ref()?.of(address)
    }
}
