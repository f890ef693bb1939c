//! Changes to bytes. In: an input, another one, words that the target knows, randomness. Out: the input changed in a few places. Left to others: what it means.

/// Most bytes of an input: beyond, only time is spent.
pub const INPUT_MAX: usize = 16 << 10;
/// Most changes at once.
const CHANGES_MAX: u64 = 6;
/// Most bytes that one change repeats or takes out.
const SPAN_MAX: usize = 256;
/// Bytes and numbers at which parsers turn.
const EDGES: &[&[u8]] = &[
    b"",
    b"0",
    b"-1",
    b"65535",
    b"65536",
    b"4294967295",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1e308",
    b"-0.0",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"\"",
    b"\\u0000",
    b"\xff",
    b"\xc3",
    b"\xef\xbb\xbf",
    "\u{130}".as_bytes(),
    "\u{202e}".as_bytes(),
    b"%",
    b"%00",
    b"%zz",
    b"$(",
    b"$$",
    b"..",
    b"//",
    b"@",
    b";",
    b",",
    b":",
    b"?",
    b"#",
    b"[",
    b"]",
];

/// A sequence of numbers by its seed (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The remainder is below `bound`.
        self.draw().checked_rem(bound as u64).unwrap_or_default() as usize
    }

    /// One of them.
    pub fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> Option<&'a T> {
        all.get(self.below(all.len())).copied()
    }
}

/// Changes `input` in one to a few places; `other` gives pieces.
pub fn change(input: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut Random) {
    for _ in 0..=random.draw() % CHANGES_MAX {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(SPAN_MAX)).min(input.len());
        let edge = |random: &mut Random| random.of(EDGES).unwrap_or_default().to_vec();
        let word = |random: &mut Random| random.of(words).unwrap_or_default().as_bytes().to_vec();
        let piece = |random: &mut Random| {
            let from = random.below(other.len() + 1);
            other[from..(from + random.below(SPAN_MAX)).min(other.len())].to_vec()
        };
        match random.below(10) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => drop(input.drain(at..end)),
            2 => drop(input.splice(at..at, edge(random))),
            3 => drop(input.splice(at..end, edge(random))),
            4 => drop(input.splice(at..at, word(random))),
            5 => replace_token(input, at, &word(random)),
            6 => replace_token(input, at, &edge(random)),
            7 => drop(input.splice(at..at, piece(random))),
            8 => {
                let again = input[at..end].repeat(1 + random.below(8));
                input.splice(at..at, again);
            }
            _ => drop(input.splice(at..end, piece(random))),
        }
        input.truncate(INPUT_MAX);
    }
}

/// Puts bytes in place of the letters and digits around a position: a word, a number, a name.
fn replace_token(input: &mut Vec<u8>, at: usize, with: &[u8]) {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let begin = input[..at].iter().rposition(|byte| !inside(byte)).map_or(0, |before| before + 1);
    let end = input[at..].iter().position(|byte| !inside(byte)).map_or(input.len(), |length| at + length);
    input.splice(begin..end, with.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_make_equal_inputs_and_none_is_too_long() {
        let made = |seed| {
            let mut random = Random::new(seed);
            let mut input = b"redis://:p@h:6379/0".to_vec();
            for _ in 0..2000 {
                change(&mut input, b"amqp://a;b", &["rediss", "?ssl=true"], &mut random);
                assert!(input.len() <= INPUT_MAX);
            }
            input
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
    }

    #[test]
    fn a_whole_token_is_replaced() {
        let mut input = br#"{"cpu": 100}"#.to_vec();
        replace_token(&mut input, 9, b"x");
        assert_eq!(input, br#"{"cpu": x}"#);
        let mut end = b"ab".to_vec();
        replace_token(&mut end, 2, b"");
        assert!(end.is_empty());
    }
}
