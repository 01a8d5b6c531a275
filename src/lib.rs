//! Postern: an identity-aware reverse proxy and forward-auth sidecar.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod core;
pub mod edge;
pub mod forward_auth;
pub mod gate;
pub mod identity;
pub mod lifecycle;
pub mod observe;
pub mod portal;
pub mod ports;
pub mod store;
