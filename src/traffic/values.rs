//! Numbers in rules.

/// Parses a number of bytes: `65536`, `64k`, `64KiB`, `16M`, `16MiB`, `1G`; each letter means a power of 1024.
///
/// # Errors
/// What is expected instead.
pub fn byte_size(text: &str) -> Result<u64, String> {
    let expected = || format!("'{text}' is not a number of bytes such as 65536, 64KiB or 16MiB");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(1 << shift).ok_or_else(expected)
}
