//! The seeds of the fuzz targets, each run once through its target by the usual compiler: `./dev fuzz` needs a nightly one and nothing
//! else builds `fuzz/`, so that without this a change could break a target unseen.
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a target that finds something must fail"
)]

#[path = "../fuzz/src/bearer.rs"]
mod bearer;
#[path = "../fuzz/src/cookie.rs"]
mod cookie;
#[path = "../fuzz/src/jwks.rs"]
mod jwks;
#[path = "../fuzz/src/policy_file.rs"]
mod policy_file;
#[path = "../fuzz/src/request_target.rs"]
mod request_target;

use std::{fs, path::Path};

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let files = fs::read_dir(folder).expect("seeds");
    let seeds: Vec<_> = files.map(|file| fs::read(file.expect("a seed").path()).expect("a seed")).collect();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}

#[test]
fn key_sets() {
    seeds("jwks").iter().for_each(|seed| jwks::run(seed));
}

#[test]
fn bearers() {
    let taken = seeds("bearer").iter().filter(|seed| bearer::run(seed)).count();
    assert_eq!(taken, 2, "`good` and `nbf` are what ours look like, and no other is");
}

#[test]
fn cookies() {
    let found: usize = seeds("cookie").iter().map(|seed| cookie::run(seed)).sum();
    assert!(found >= 8, "of ours, as they are named: {found}");
}

#[test]
fn policy_files() {
    seeds("policy_file").iter().for_each(|seed| policy_file::run(seed));
}

#[test]
fn request_targets() {
    seeds("request_target").iter().for_each(|seed| request_target::run(seed));
}
