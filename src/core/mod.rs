//! The pure part: what is decided, and by which rules. Sync; no clock, no IO, no framework. Everything here can be tested
//! with a table.

pub mod answer;
pub mod api_token;
pub mod certificate;
pub mod client_ip;
pub mod cookie;
pub mod decision;
pub mod device;
pub mod ground;
pub mod header;
pub mod identity;
pub mod issuer;
pub mod limit;
pub mod place;
pub mod policy;
pub mod printable;
pub mod quota;
pub mod regulation;
pub mod request;
pub mod return_to;
pub mod route;
pub mod session;
pub mod site;
pub mod spelling;
pub mod target;
pub mod time;
pub mod tokens;
pub mod user;
pub mod verdict;
