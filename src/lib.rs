//! Postern: an identity-aware reverse proxy and forward-auth sidecar.
//!
//! A request comes in through [`edge`] or [`forward_auth`], which make facts of it; [`gate`] finds out who asks (through
//! [`ports`], behind which [`store`] stands) and lets [`core`] decide; the role tells the verdict, with a body from [`portal`].
//! People sign in at the portal by the use cases of [`identity`]. Around that [`config`] reads, [`observe`] and [`admin`] tell,
//! [`app`] puts all of it together, [`lifecycle`] keeps it running, and [`cli`] is the door.

// In the order of the layers, innermost first.

pub mod core;

pub mod ports;

pub mod gate;
pub mod identity;

pub mod config;
pub mod observe;
pub mod store;

pub mod portal;

pub mod edge;
pub mod forward_auth;

pub mod admin;

pub mod app;
pub mod lifecycle;

pub mod cli;
