#![no_main]

#[path = "../src/policy_file.rs"]
mod policy_file;

libfuzzer_sys::fuzz_target!(|input: &[u8]| policy_file::run(input));
