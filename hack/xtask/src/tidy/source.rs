//! Rust as text, as far as rules about the tree need it. In: a file's text. Out: the same text without comments, strings and what is compiled for tests
//! alone; each character that is left stands where it stood. It leaves to others what the text means, and does not know macros.

/// The text with comments and the insides of strings blanked out, lines kept.
pub(super) fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end > at {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Where a comment, a string or a character that begins at `at` ends; `at` itself where none begins.
fn skipped(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n),
        ['/', '*', ..] => {
            let mut depth = 0;
            let mut i = at;
            while i < chars.len() {
                match chars[i..] {
                    ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
                    ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    return i;
                }
            }
            chars.len()
        }
        ['"', ..] => quoted(chars, at + 1),
        ['r', '"' | '#', ..] if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' => raw(chars, at),
        // A lifetime is no character: it has no quote behind its first letter.
        ['\'', '\\', ..] => rest[2..].iter().skip(1).position(|c| *c == '\'').map_or(at, |n| at + n + 4),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

/// The end of a string whose inside begins at `at`.
fn quoted(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of a raw string that begins at `at`; `at` where it is a raw name.
fn raw(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let inside = at + 2 + hashes;
    chars[inside..].windows(close.len()).position(|w| w == close).map_or(chars.len(), |n| inside + n + close.len())
}

pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// [`code`] without the items that are compiled for tests alone.
pub(super) fn shipped(code: &str) -> String {
    let mut text = code.to_owned();
    let mut from = 0;
    while let Some(found) = text[from..].find("#[cfg(") {
        let start = from + found;
        let condition = &text[start..start + text[start..].find(']').unwrap_or(0)];
        if condition.contains("not(test") || !condition.split(|c| !is_word(c)).any(|word| word == "test") {
            from = start + 1;
            continue;
        }
        let end = item_end(&text, start);
        let blank: String = text[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        text.replace_range(start..end, &blank);
        from = start;
    }
    text
}

/// Where the item ends whose attributes begin at `start`.
fn item_end(text: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text[start..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return start + at + 1;
                }
            }
            ';' | ',' if depth == 0 => return start + at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The line, counted from 1, in which a byte stands.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// A file that is compiled for tests alone, by this tree's names.
pub(super) fn is_test(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default();
    name.ends_with("_tests.rs") || name == "tests.rs" || file.contains("/tests/") || file.contains("/testing/")
}

/// Where a path such as `SystemTime::now` stands as a whole, not as the tail of a longer word.
pub(super) fn mentions<'t>(code: &'t str, path: &'t str) -> impl Iterator<Item = usize> + 't {
    code.match_indices(path)
        .map(|(at, _)| at)
        .filter(move |at| !code[..*at].chars().next_back().is_some_and(is_word) && !code[at + path.len()..].chars().next().is_some_and(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_no_code_and_everything_else_stays_where_it_was() {
        let text = "let a = \"crate::b \\\" //\"; // crate::c\nlet d = r#\"crate::e\"#; /* crate::f /* */ */ let g: &'a str = h('\\'', '\"');";
        let code = code(text);
        assert!(!code.contains("crate"), "{code}");
        assert_eq!(code.chars().count(), text.chars().count());
        assert!(code.contains("let g: &'a str = h("), "{code}");
    }

    #[test]
    fn what_is_for_tests_is_not_shipped() {
        let text = "use a::b;\n#[cfg(test)]\nuse c::d;\n#[cfg(test)]\nmod tests {\n    use e::f;\n}\n#[cfg(not(test))]\nuse g::h;\n#[cfg(all(test, unix))]\n#[path = \"x.rs\"]\nmod i;\nfn j() {}";
        let left = shipped(text);
        assert!(left.contains("a::b") && left.contains("g::h") && left.contains("fn j"), "{left}");
        assert!(!left.contains("c::d") && !left.contains("e::f") && !left.contains("mod i"), "{left}");
        assert_eq!(left.lines().count(), text.lines().count());
    }

    #[test]
    fn a_path_is_found_as_a_whole() {
        let text = "std::time::SystemTime::now(); MySystemTime::now(); SystemTime::now_utc();";
        assert_eq!(mentions(text, "SystemTime::now").collect::<Vec<_>>(), [11]);
    }
}
