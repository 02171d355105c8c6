#![no_main]
#[path = "../../tests/support/fuzz.rs"]
#[expect(dead_code, reason = "the other targets' share")]
mod targets;
libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::read_jsonl(data));
