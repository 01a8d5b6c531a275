use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;

use super::{Barred, Unavailable};
use crate::core::{regulation::By, session::TokenHash, time::Timestamp};

/// What is guessed at. Each kind is counted for itself: whoever knows the password gets no more tries at a second factor by it, and a program with an
/// old refresh token keeps nobody from signing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess<'g> {
    /// By the form, the login API and Basic alike (THREATS 37).
    Password,
    /// `totp`, `webauthn`: whoever verifies one asks with the account of the session that waits for it.
    SecondFactor,
    /// By address alone: 256 bits are guessed by nobody. The same one again counts once in ten minutes.
    RefreshToken(&'g TokenHash),
}

/// What is known of where a try comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known<'k> {
    Nothing,
    /// This user signed in on this browser: it has a budget of its own, whatever is tried elsewhere (THREATS 40).
    Device(&'k TokenHash),
    /// A program of this user's had the right password at this address: what is tried elsewhere with the name does not count here, what is tried at the
    /// address does.
    Place,
}

/// One try to sign in, as regulation counts it.
#[derive(Debug, Clone, Copy)]
pub struct Try<'t> {
    pub guess: Guess<'t>,
    /// The folded name of the user, however it was typed, also as an e-mail address; what was typed, folded, where there is none (THREATS 38).
    pub account: &'t str,
    pub address: Option<IpAddr>,
    /// `password`, `basic`, `refresh`.
    pub provider: &'static str,
    pub known: Known<'t>,
    /// It was wrong a moment ago: nobody learns anything by it, so it is barred as others are, and counts no more.
    pub is_repeated: bool,
}

/// A try that was let through, and takes a place among those that nobody has judged yet; for half a minute at most, where it is never settled.
#[derive(Debug, Default)]
pub struct Admitted {
    /// The counters that it is taken from, as the store calls them.
    pub counters: Vec<(By, String)>,
    /// The account, where it counts for one. As the store calls it.
    pub account: Option<String>,
    pub is_token: bool,
    /// When its place is free in any case.
    pub until: Timestamp,
}

/// Whose sign-ins are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'w> {
    /// By name.
    Account(&'w str),
    Address(IpAddr),
}

/// How long passwords have to wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waits {
    /// With this name from wherever it is not known; or with whatever name at this address.
    pub everywhere: Option<Duration>,
    /// With this name, at so many addresses or on so many known devices besides.
    pub elsewhere: Vec<Duration>,
}

/// Regulation of sign-ins: asked before anything costs a hash. The sign-in form, the login API and Basic all go through it (THREATS 37).
#[async_trait]
pub trait Regulation: Send + Sync {
    /// Takes a place for a try: no more are looked at at once than may go wrong, on all nodes together, so that a hundred at once are counted one after
    /// the other. Whoever finds no place waits a moment for one.
    ///
    /// # Errors
    /// [`Barred::SlowDown`], or a store that cannot answer: then no password is looked at.
    async fn admit(&self, tried: Try<'_>) -> Result<Admitted, Barred>;
    /// Told before anybody is answered. Only what was wrong counts; what was right, or nobody judged in the end, gives its place back and resets nothing:
    /// whoever has an account of his own would go on guessing at others'. Answers what makes the next one wait from now on, if anything does.
    ///
    /// # Errors
    /// It could not be written down: whoever tried must not learn what it was, right or wrong.
    async fn settle(&self, admitted: Admitted, was_wrong: bool) -> Result<Option<By>, Unavailable>;
    /// How long [`Regulation::admit`] would bar it now, as far as memory knows; never waits. What is remembered of the account is not used then: it
    /// would tell the right password from others. [`Try::known`] is not looked at: of places memory knows for itself.
    fn bars(&self, tried: Try<'_>) -> Option<Duration>;
    /// What makes tries wait now, as the store has it; takes nothing.
    async fn waits(&self, whose: Whose<'_>) -> Result<Waits, Unavailable>;
    /// Forgets what counts for a user: by name, at every address, on every device; on every node. What an address did stays. `false`: there was nothing.
    async fn unlock(&self, account: &str) -> Result<bool, Unavailable>;
}
