//! What is seen from outside: metrics, tracing, the access log (CONTRACT 9). Label values are bounded: never a path, a user or an address.

pub mod access_log;
pub mod limits;
pub mod metrics;
pub mod readiness;
pub mod tracing;
