//! A session as Redis keeps it: one text, which a newer version may add to. Written and read by [`super::RedisRecords`].

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::ends::Numbers;
use crate::core::{
    identity::Factor,
    session::{Session, SessionId, TokenHash},
    time::Timestamp,
};

/// A session, and at which numbers of the database it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) session: Session,
    pub(super) made_at: Numbers,
}

/// Times are milliseconds since 1970.
#[derive(Serialize, Deserialize)]
struct Text {
    id: SessionId,
    user: String,
    factor: String,
    domain: String,
    gate: String,
    portal: String,
    remembered: bool,
    created_at: i64,
    signed_in_at: i64,
    user_agent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<SessionId>,
    user_number: i64,
    everybody_number: i64,
}

impl Record {
    /// All but the last use, which changes.
    pub(super) fn to_text(&self) -> String {
        let session = &self.session;
        let text = Text {
            id: session.id.clone(),
            user: session.user.clone(),
            factor: session.factor.as_str().to_owned(),
            domain: session.domain.clone(),
            gate: named(&session.gate_hash),
            portal: named(&session.portal_hash),
            remembered: session.remembered,
            created_at: session.created_at.unix_millis(),
            signed_in_at: session.signed_in_at.unix_millis(),
            user_agent: session.user_agent.clone(),
            address: session.address.map(|address| address.to_string()),
            parent: session.parent.clone(),
            user_number: self.made_at.user,
            everybody_number: self.made_at.everybody,
        };
        serde_json::json!(text).to_string()
    }

    /// # Errors
    /// What is damaged, without what stands there.
    pub(super) fn read(text: &str, last_used_at: i64) -> Result<Self, String> {
        let text: Text = serde_json::from_str(text)
            .map_err(|error| format!("a session's record is damaged at column {}", error.column()))?;
        let hash = |name: &str| hash_of(name).ok_or("a session's hash is damaged");
        let session = Session {
            id: text.id,
            factor: match text.factor.as_str() {
                "one" => Factor::One,
                "two" => Factor::Two,
                _ => return Err("a session's factor is unknown".to_owned()),
            },
            gate_hash: hash(&text.gate)?,
            portal_hash: hash(&text.portal)?,
            user: text.user,
            domain: text.domain,
            remembered: text.remembered,
            created_at: Timestamp::from_unix_millis(text.created_at),
            signed_in_at: Timestamp::from_unix_millis(text.signed_in_at),
            last_used_at: Timestamp::from_unix_millis(last_used_at),
            user_agent: text.user_agent,
            address: text.address.and_then(|address| address.parse().ok()),
            parent: text.parent,
        };
        let made_at = Numbers { user: text.user_number, everybody: text.everybody_number };
        Ok(Self { session, made_at })
    }
}

/// A hash as text, in records and in the names of keys.
pub(super) fn named(hash: &TokenHash) -> String {
    URL_SAFE_NO_PAD.encode(hash.0)
}

fn hash_of(name: &str) -> Option<TokenHash> {
    let bytes = URL_SAFE_NO_PAD.decode(name).ok()?;
    bytes.try_into().ok().map(TokenHash)
}
