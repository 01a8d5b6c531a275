//! `regulation:`: how often a sign-in may go wrong. Authelia bans for a fixed time once there were too many; Postern makes whoever guesses wait longer and
//! longer, up to that time.

use std::time::Duration;

use super::{
    ledger::Ledger,
    length::{Length, length},
    spot::{Placed, Spot},
};
use crate::config::source::Kind;

/// What stands in Authelia's file; the rest has Postern's defaults, which are stricter over a day than Authelia's own.
#[derive(Debug, Default)]
pub(super) struct Regulation {
    pub(super) max_retries: Option<Placed<u32>>,
    pub(super) find_time: Option<Placed<Duration>>,
    pub(super) ban_time: Option<Placed<Duration>>,
}

/// What Postern takes.
const MOST: u32 = 100_000;
const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// Postern's default.
const FIND_TIME: Duration = Duration::from_secs(3600);

pub(super) fn regulation(root: &Spot<'_>, ledger: &mut Ledger) -> Regulation {
    if let Some(modes) = root.get("regulation.modes") {
        ledger.find(&modes, "chose between users and addresses; Postern counts by both, and by known device");
    }
    Regulation {
        max_retries: max_retries(root, ledger),
        find_time: time(root, "regulation.find_time", ledger),
        ban_time: time(root, "regulation.ban_time", ledger),
    }
}

fn max_retries(root: &Spot<'_>, ledger: &mut Ledger) -> Option<Placed<u32>> {
    let spot = root.get("regulation.max_retries")?;
    let number = match &spot.node.kind {
        Kind::Int(number) => u32::try_from(*number).ok().filter(|number| *number <= MOST),
        _ => None,
    };
    match number {
        Some(_) => ledger.carry(&spot),
        None => ledger.find(&spot, "is no number that Postern takes here; its default of 5 holds"),
    }
    number.map(|number| Placed::at(&spot, number))
}

fn time(root: &Spot<'_>, keys: &str, ledger: &mut Ledger) -> Option<Placed<Duration>> {
    let spot = root.get(keys)?;
    match length(&spot) {
        Some(Length::Of(time)) if keys.ends_with("find_time") && time < FIND_TIME => {
            ledger.find(
                &spot,
                "counted anew after that time; Postern forgets one try after another, so its default of 1h holds, which lets \
                 nobody guess more often",
            );
            None
        }
        Some(Length::Of(time)) if time <= LONGEST => {
            ledger.carry(&spot);
            Some(Placed::at(&spot, time))
        }
        Some(Length::Default) => {
            ledger.carry(&spot);
            None
        }
        _ => {
            ledger.find(&spot, "is no duration that Postern takes here (30 days at most); its default holds");
            None
        }
    }
}
