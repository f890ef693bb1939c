//! The text of a manifest. In: a file with one document or several. Out: its documents, and the file again, byte for byte where nothing was changed; the lines that a
//! changed document was made from, kept in it as comments. Left to others: what a document says (`object`), and its YAML (`yaml`).

/// The beginning of a changed document; the version and the sum of what follows the kept lines come behind it.
const HEAD: &str = "# Written by kubectl qscaler inject ";
const SUM: &str = "; kubectl qscaler uninject gives back the lines marked #| while nothing below them was changed: ";
/// A kept line that ended with a newline, and the last one where it did not.
const LINE: &str = "#|";
const LAST: &str = "#.";
const SEPARATOR: &str = "---";

/// One document: with the separator that leads it, and everything up to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// `---`, or empty for what stands before the first one.
    lead: &'static str,
    /// What follows it, untouched.
    pub(super) text: &'a str,
}

/// What a document was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeptDocument {
    /// It was not made by `inject`, or the comments are gone.
    Nothing,
    /// The original text.
    Original(String),
    /// It was changed since.
    Edited,
}

/// A line that begins with `---` and goes on with white space or ends begins a document, wherever it stands: so says YAML.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut out = Vec::new();
    let (mut lead, mut from, mut at) = ("", 0, 0);
    for line in text.split_inclusive('\n') {
        if line.strip_prefix(SEPARATOR).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            if !lead.is_empty() || at > from {
                out.push(Document { lead, text: &text[from..at] });
            }
            (lead, from) = (SEPARATOR, at + SEPARATOR.len());
        }
        at += line.len();
    }
    if !lead.is_empty() || at > from {
        out.push(Document { lead, text: &text[from..at] });
    }
    out
}

impl Document<'_> {
    /// It has nothing but white space, comments and directives.
    pub(super) fn is_empty(&self) -> bool {
        self.text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with(['#', '%']) || line == "...")
    }

    /// As it is.
    pub(super) fn untouched(&self) -> String {
        format!("{}{}", self.lead, self.text)
    }

    /// With another text, which ends with a newline.
    pub(super) fn replaced(&self, body: &str) -> String {
        format!("{}{body}", self.begin())
    }

    /// With another text, which ends with a newline, and its own kept in comments.
    pub(super) fn kept(&self, body: &str) -> String {
        let mut out = format!("{}{HEAD}{}{SUM}{:016x}\n", self.begin(), env!("CARGO_PKG_VERSION"), sum(body));
        for line in self.text.split_inclusive('\n') {
            let (mark, line) = line.strip_suffix('\n').map_or((LAST, line), |line| (LINE, line));
            out += mark;
            out.extend(line.chars().map(escape));
            out.push('\n');
        }
        out + body
    }

    /// What it was made from.
    pub(super) fn original(&self) -> KeptDocument {
        let text = if self.lead.is_empty() { self.text } else { self.text.strip_prefix('\n').unwrap_or(self.text) };
        let Some((head, mut rest)) = text.split_once('\n').filter(|(head, _)| head.starts_with(HEAD)) else { return KeptDocument::Nothing };
        let mut original = String::new();
        while let Some((line, next)) = rest.split_once('\n') {
            match (line.strip_prefix(LINE), line.strip_prefix(LAST)) {
                (Some(line), _) => original = original + &unescape(line) + "\n",
                (None, Some(line)) => original += &unescape(line),
                (None, None) => break,
            }
            rest = next;
        }
        match head.rsplit_once(' ').and_then(|(_, text)| u64::from_str_radix(text, 16).ok()) {
            Some(told) if told == sum(rest) => KeptDocument::Original(format!("{}{original}", self.lead)),
            _ => KeptDocument::Edited,
        }
    }

    fn begin(&self) -> String {
        if self.lead.is_empty() { String::new() } else { format!("{}\n", self.lead) }
    }
}

/// What may stand in a comment stays; a character that ends a line for YAML or is none of its printable ones is written as `\u{HEX}`.
fn escape(c: char) -> String {
    match c {
        '\\' => "\\\\".to_owned(),
        '\t' => c.to_string(),
        _ if is_plain(c) => c.to_string(),
        _ => format!("\\u{{{:x}}}", u32::from(c)),
    }
}

/// Printable by YAML's rules, and no line break of any version of it.
pub(super) fn is_plain(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn unescape(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some((before, after)) = rest.split_once('\\') {
        out += before;
        let code = after.strip_prefix("u{").and_then(|hex| hex.split_once('}'));
        rest = match code.and_then(|(hex, next)| Some((char::from_u32(u32::from_str_radix(hex, 16).ok()?)?, next))) {
            Some((c, next)) => {
                out.push(c);
                next
            }
            None => {
                out.push('\\');
                after.strip_prefix('\\').unwrap_or(after)
            }
        };
    }
    out + rest
}

/// FNV-1a, 64 bits: tells an edit, and guards nothing.
fn sum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Vec<&str> {
        split(text).iter().map(|d| d.text).collect()
    }

    #[test]
    fn documents_begin_where_yaml_says_so() {
        assert_eq!(texts(""), Vec::<&str>::new());
        assert_eq!(texts("a: 1\n---\nb: 2\n"), ["a: 1\n", "\nb: 2\n"]);
        assert_eq!(texts("---\na: |\n  ---\n---x: 1\n--- # two\nb: 2"), ["\na: |\n  ---\n---x: 1\n", " # two\nb: 2"]);
        assert_eq!(texts("---\r\na: 1\r\n---"), ["\r\na: 1\r\n", ""]);
        assert!(split("# only words\n\n--- \n%YAML 1.2\n...\n").iter().all(Document::is_empty));
    }

    #[test]
    fn an_edit_below_the_kept_lines_is_noticed() {
        let text = "---\na: 1\n";
        let made = split(text)[0].kept("a: 2\n");
        assert_eq!(split(&made)[0].original(), KeptDocument::Original(text.to_owned()));
        assert_eq!(split(&made.replace("a: 2", "a: 3"))[0].original(), KeptDocument::Edited);
        assert_eq!(split(text)[0].original(), KeptDocument::Nothing);
    }

    proptest! {
        #[test]
        fn the_documents_make_the_file_again(text in "(---|\n|\r|a: 1|#|\\\\| |\u{85}|\u{2028}|\u{feff}|\u{7}|\\\\u\\{41\\}|é){0,30}") {
            let documents = split(&text);
            prop_assert_eq!(documents.iter().map(Document::untouched).collect::<String>(), text.clone());
            let made: String = documents.iter().map(|d| d.kept("b: 2\n")).collect();
            let back: String = split(&made).iter().map(|d| match d.original() { KeptDocument::Original(text) => text, other => format!("{other:?}") }).collect();
            prop_assert_eq!(back, text);
            // Comments only: whatever was kept says nothing to a reader of YAML.
            for one in split(&made) {
                let read: serde_yaml::Value = serde_yaml::from_str(one.text).unwrap();
                prop_assert_eq!(read, serde_yaml::from_str::<serde_yaml::Value>("b: 2").unwrap());
            }
        }
    }
}
