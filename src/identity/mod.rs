//! Use cases of signing in and of sessions, shared by the portal and the command line. Nothing here knows HTTP: who calls
//! says who asks and from where, and renders what comes back.

pub mod api_tokens;
pub mod hand_over;
pub mod notice;
pub mod passwords;
pub mod refresh;
pub mod sessions;
pub mod sign_in;
pub mod tokens;
