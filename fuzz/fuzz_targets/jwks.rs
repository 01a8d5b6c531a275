#![no_main]

#[path = "../src/jwks.rs"]
mod jwks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| jwks::run(input));
