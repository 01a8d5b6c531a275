//! The seeds of the fuzz targets, each run once through its target by the usual compiler: `./dev fuzz` needs a nightly one and nothing
//! else builds `fuzz/`, so that without this a change could break a target unseen.
#![expect(clippy::panic, clippy::expect_used, reason = "a target that finds something must fail")]

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
fn policy_files() {
    seeds("policy_file").iter().for_each(|seed| policy_file::run(seed));
}

#[test]
fn request_targets() {
    seeds("request_target").iter().for_each(|seed| request_target::run(seed));
}
