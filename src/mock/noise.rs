//! What differs from run to run without meaning anything: times, and ids that are made anew each time.

/// Names that a user wants left out of comparisons as well, in lower case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ignored(pub Vec<String>);

impl Ignored {
    /// Whether a value is noise: it is left out when calls are compared.
    #[must_use]
    pub fn is_noise(&self, name: &str, value: &str) -> bool {
        let name = plain_name(name);
        self.0.iter().any(|ignored| plain_name(ignored) == name)
            || NOISE_NAMES.contains(&name.as_str())
            || is_point_in_time(value)
    }
}

/// Names whose values are noise, without case, dashes and underscores.
const NOISE_NAMES: [&str; 22] = [
    "timestamp",
    "ts",
    "time",
    "date",
    "datetime",
    "createdat",
    "updatedat",
    "sentat",
    "requestedat",
    "created",
    "updated",
    "nonce",
    "idempotencykey",
    "idempotencytoken",
    "requestid",
    "correlationid",
    "traceid",
    "traceparent",
    "spanid",
    "signature",
    "csrf",
    "csrftoken",
];

fn plain_name(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Whether a value names something, so that two calls may do the same to two things.
#[must_use]
pub(super) fn is_id(name: &str, value: &str) -> bool {
    let plain = plain_name(name);
    let is_named = matches!(
        plain.as_str(),
        "id" | "uuid" | "guid" | "key" | "token" | "ref" | "reference"
    ) || name.ends_with("_id")
        || name.ends_with("-id")
        || name.ends_with("Id")
        || name.ends_with("ID");
    is_named || is_made_anew(value)
}

/// Whether a value looks as if a program had made it at random: a UUID, a ULID, a long hexadecimal number.
#[must_use]
pub(super) fn is_made_anew(value: &str) -> bool {
    is_uuid(value) || is_ulid(value) || (value.len() >= 16 && is_hex(value) && has_digit(value))
}

fn has_digit(value: &str) -> bool {
    value.bytes().any(|byte| byte.is_ascii_digit())
}

fn is_hex(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_uuid(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_ulid(value: &str) -> bool {
    value.len() == 26
        && has_digit(value)
        && value.bytes().all(|byte| {
            byte.is_ascii_digit()
                || byte.is_ascii_uppercase() && !matches!(byte, b'I' | b'L' | b'O' | b'U')
        })
}

/// Whether a value is a point in time as RFC 3339 writes it, with a time of day.
fn is_point_in_time(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.len() >= 19
        && bytes.len() <= 40
        && bytes[..19].iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            10 => matches!(byte, b'T' | b't' | b' '),
            13 | 16 => *byte == b':',
            _ => byte.is_ascii_digit(),
        })
}

/// A path with `{id}` for each segment that names one thing of many.
#[must_use]
pub(super) fn masked_path(path: &str) -> String {
    let segments = path.split('/').map(|segment| {
        let is_number = !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit());
        if is_number || is_made_anew(segment) {
            "{id}"
        } else {
            segment
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_values() {
        for (name, value, noise, id) in [
            ("created_at", "whatever", true, false),
            ("X-Idempotency-Key", "k", false, false),
            ("idempotency_key", "k", true, false),
            ("when", "2026-01-02T03:04:05.678Z", true, false),
            ("when", "2026-01-02", false, false),
            ("order_id", "17", false, true),
            ("orderId", "17", false, true),
            ("paid", "17", false, false),
            ("x", "1b671a64-40d5-491e-99b0-da01ff1f3341", false, true),
            ("x", "01ARZ3NDEKTSV4RRFFQ69G5FAV", false, true),
            ("x", "deadbeefdeadbeef", false, false),
            ("x", "deadbeefdeadbee1", false, true),
            ("amount", "100", false, false),
        ] {
            assert_eq!(
                Ignored::default().is_noise(name, value),
                noise,
                "{name} {value}"
            );
            assert_eq!(is_id(name, value), id, "{name} {value}");
        }
        assert!(Ignored(vec!["amount".to_owned()]).is_noise("Amount", "5"));
    }

    #[test]
    fn paths_are_masked_by_segment() {
        assert_eq!(masked_path("/v2/orders/17/items"), "/v2/orders/{id}/items");
        assert_eq!(masked_path("/"), "/");
        assert_eq!(
            masked_path("/a/1b671a64-40d5-491e-99b0-da01ff1f3341"),
            "/a/{id}"
        );
    }
}
