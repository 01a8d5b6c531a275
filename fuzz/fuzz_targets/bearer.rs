#![no_main]

#[path = "../src/bearer.rs"]
mod bearer;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bearer::run(input);
});
