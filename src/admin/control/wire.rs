//! What goes over the control socket: a question, and its answer, each one line.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    core::limit::{Allowance, Rates, Refused, Remaining},
    ports::Ask,
};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    pub(super) looks: Vec<Look>,
}

/// At what one limit counts of one key.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Look {
    pub(super) limit: String,
    /// The hash, in hexadecimal.
    key: String,
    /// As people write them.
    rates: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Looked(Vec<Looked>),
    Refused(String),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Looked {
    /// In the order of the rates that were asked by.
    rates: Vec<Left>,
    refused: Option<Stops>,
}

/// Times in microseconds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    remaining: u32,
    next: u64,
    full: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stops {
    /// Which of the rates.
    rate: String,
    retry_after: u64,
}

impl Question {
    pub(super) fn of(asks: &[Ask<'_>]) -> Self {
        let look = |ask: &Ask<'_>| Look {
            limit: ask.limit.to_owned(),
            key: format!("{:032x}", u128::from_be_bytes(ask.key.0)),
            rates: ask.rates.iter().map(|rate| rate.to_string()).collect(),
        };
        Self { looks: asks.iter().map(look).collect() }
    }
}

impl Look {
    /// `None`: it is none.
    pub(super) fn read(&self) -> Option<([u8; 16], Rates)> {
        let is_hash = self.key.len() == 32 && self.key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = u128::from_str_radix(&self.key, 16).ok().filter(|_| is_hash)?;
        let rates: Result<Vec<_>, _> = self.rates.iter().map(|rate| rate.parse()).collect();
        Some((key.to_be_bytes(), Rates::new(rates.ok()?).ok()?))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl From<Allowance> for Looked {
    fn from(allowance: Allowance) -> Self {
        let left =
            |left: &Remaining| Left { remaining: left.remaining, next: micros(left.next), full: micros(left.full) };
        let stops = |by: Refused| Stops { rate: by.rate.to_string(), retry_after: micros(by.retry_after) };
        Self { rates: allowance.rates.iter().map(left).collect(), refused: allowance.refused.map(stops) }
    }
}

impl Looked {
    /// `None`: it is no answer to a question by these rates.
    pub(super) fn read(&self, rates: &Rates) -> Option<Allowance> {
        if self.rates.len() != rates.iter().len() {
            return None;
        }
        let each = rates.iter().zip(&self.rates).map(|(rate, left)| Remaining {
            rate,
            remaining: left.remaining,
            next: Duration::from_micros(left.next),
            full: Duration::from_micros(left.full),
        });
        let refused = match &self.refused {
            None => None,
            Some(Stops { rate, retry_after }) => {
                let rate = rates.iter().find(|known| known.to_string() == *rate)?;
                Some(Refused { rate, retry_after: Duration::from_micros(*retry_after) })
            }
        };
        Some(Allowance { rates: each.collect(), refused })
    }
}

/// # Errors
/// Why it is none.
pub(super) fn read<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    if !line.ends_with('\n') {
        return Err("it does not end, or is too long".to_owned());
    }
    serde_json::from_str(line).map_err(|error| error.to_string())
}

pub(super) fn line<T: Serialize>(value: &T) -> String {
    // Plain data: what cannot be written does not exist.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}
