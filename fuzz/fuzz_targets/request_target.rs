#![no_main]

#[path = "../src/request_target.rs"]
mod request_target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| request_target::run(input));
