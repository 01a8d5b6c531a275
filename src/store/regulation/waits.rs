//! Who has to wait now, for `postern limit show`. Counts nothing, and memory is not asked: a command has none.

use super::{DatabaseRegulation, PASSWORD, SECOND_FACTOR, STORE, rows};
use crate::{
    core::{client_ip::bucket_of, regulation::By, user::folded},
    ports::{Unavailable, Waits, Whose},
};

impl DatabaseRegulation {
    pub(super) async fn waiting(&self, whose: Whose<'_>) -> Result<Waits, Unavailable> {
        let Some(budgets) = self.budgets.load_full() else { return Ok(Waits::default()) };
        let (by, id, held) = match whose {
            Whose::Address(address) => {
                let id = self.names.of(&[PASSWORD, By::Address.as_str(), &bucket_of(address).to_string()]);
                let held = self.database.run(STORE, "waits", rows::find(&self.database, &id)).await?;
                (By::Address, id, held)
            }
            Whose::Account(account) => {
                let account = folded(account);
                let id = self.names.of(&[PASSWORD, By::Name.as_str(), &account]);
                let of_account = self.names.of_account(&account);
                let held = self.database.run(STORE, "waits", rows::of_account(&self.database, &of_account)).await?;
                (By::Name, id, held)
            }
        };
        // Of the name's, all others have the same budget, but for that of second factors with this name.
        let passed_over = match whose {
            Whose::Address(_) => None,
            Whose::Account(account) => Some(self.names.of(&[SECOND_FACTOR, By::Name.as_str(), &folded(account)])),
        };
        let (now, mut waits) = (self.now(), Waits::default());
        for (found, entry) in held {
            if found == id {
                waits.everywhere = entry.count.wait(&budgets.of(by), now);
            } else if Some(&found) != passed_over.as_ref() {
                waits.elsewhere.extend(entry.count.wait(&budgets.of(By::AddressAndName), now));
            }
        }
        waits.elsewhere.sort();
        Ok(waits)
    }
}
