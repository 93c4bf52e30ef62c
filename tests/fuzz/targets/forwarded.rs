#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hookstream_fuzz::forwarded::run(data));
