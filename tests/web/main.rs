//! The portal in process: its own router over real stores in a folder of their own, under a clock that the test moves.
//! What needs sockets, other programs or the edge's part of the work is in `tests/it/`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must fail: clippy spares functions marked as tests alone"
)]

mod harness;
mod ports;

mod account;
mod cookies;
mod csrf;
mod expiry;
mod explained;
mod faults;
mod hand_over;
mod landing;
mod machines;
#[path = "../support/mmdb.rs"]
mod mmdb;
mod notices;
mod on_path;
mod pages;
mod refresh;
mod regulation;
mod sign_in;
mod tokens;
