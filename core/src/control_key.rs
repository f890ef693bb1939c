//! Public keys of control messages as text: in a Secret, in a pod's environment, in a report. In: text. Out: whether it is a key, and the short name of one.
//! Left to others: what a key proves (`broker::signing`), who makes it (`certs`).

/// Characters of a short name: enough to tell the keys of an installation apart. It proves nothing.
pub const NAME_CHARS: usize = 8;
/// Characters of 32 bytes in base64, without padding.
const KEY_CHARS: usize = 43;
/// Most keys that one pod is given: the current one, and those of a rotation under way.
pub const KEYS_MAX: usize = 8;

/// The public key (Ed25519, 32 bytes) that a text has in base64, in the one form in which keys are compared: the URL's alphabet, no padding. None: it is none.
#[must_use]
pub fn read(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_");
    let is_key = text.len() == KEY_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    is_key.then_some(text)
}

/// Every key of a list that people may have written, comma-separated, each once.
#[must_use]
pub fn read_list(text: &str) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for key in text.split(',').filter_map(read) {
        if !keys.contains(&key) && keys.len() < KEYS_MAX {
            keys.push(key);
        }
    }
    keys
}

/// The short name of a key.
#[must_use]
pub fn name(key: &str) -> &str {
    key.get(..NAME_CHARS).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_in_both_alphabets_with_and_without_padding_and_nothing_else_is_one() {
        let url = format!("ab-_{}", "A".repeat(39));
        let standard = format!(" ab+/{}=\n", "A".repeat(39));
        assert_eq!((read(&url), read(&standard)), (Some(url.clone()), Some(url.clone())));
        assert_eq!(name(&url), "ab-_AAAA");
        for no_key in ["", "AAAA", &"A".repeat(44), &format!("$(PASSWORD){}", "A".repeat(32)), &format!("é{}", "A".repeat(41))] {
            assert_eq!(read(no_key), None, "{no_key}");
        }
        assert_eq!(read_list(&format!("{url},,nonsense,{standard},{}", "B".repeat(43))), [url, "B".repeat(43)]);
        assert!(read_list(&(0..50).map(|i| format!("{i:043}")).collect::<Vec<_>>().join(",")).len() == KEYS_MAX);
    }
}
