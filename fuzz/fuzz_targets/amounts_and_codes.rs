#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tolom_fuzz::amounts_and_codes::target(bytes));
