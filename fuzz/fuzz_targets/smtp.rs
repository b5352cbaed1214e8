#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tolom_fuzz::smtp::target(bytes));
