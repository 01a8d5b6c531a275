//! Black-box tests: the real program on real sockets, behind real proxies, in front of a real browser.
//!
//! A test named `threat_NN_…` proves the line NN of the list of threats that Postern is held against.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking; clippy knows that of test functions, not of what they call"
)]

mod harness;

mod browser;
mod cli;
mod commands;
mod config_errors;
mod connections;
mod cookie_domains;
mod drain;
mod fleet;
mod fleet_redis;
mod fleet_redis_kinds;
mod import;
mod issuers;
mod journey_edge;
mod journey_proxies;
mod journeys;
mod jupyter;
mod kill;
mod lifecycle;
mod limit_show;
mod limits;
mod limits_headers;
mod limits_proxies;
mod machines;
mod mails;
#[path = "../support/mmdb.rs"]
mod mmdb;
mod redis;
mod redis_urls;
mod regulation;
mod reload;
mod replay;
mod roles;
mod startup;
mod stores;
mod streams;
mod threats_headers;
mod threats_issuers;
mod threats_path;
mod threats_portal;
mod threats_rules;
mod threats_sessions;
mod threats_wire;
mod tokens;
mod verdicts;
mod when;
