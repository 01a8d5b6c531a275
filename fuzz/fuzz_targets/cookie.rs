#![no_main]

#[path = "../src/cookie.rs"]
mod cookie;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    cookie::run(input);
});
