//! `$(NAME)` in the value of an environment variable, by the kubelet's rules. In: a value, what is defined before it. Out: the names that it refers to,
//! the value that the container sees. Left to others: where variables come from.
//!
//! `$(NAME)` is the value of a variable defined before, `$$` is a dollar and opens nothing, a reference to nothing stays as it is
//! (Kubernetes: `third_party/forked/golang/expansion`).

/// One piece of a value.
enum Piece<'a> {
    Text(&'a str),
    Reference(&'a str),
}

/// The pieces of what is left of a value, in time that grows as its length.
struct Pieces<'a> {
    rest: &'a str,
    /// Whether a `)` may still come: else each `$(` would look for one to the end.
    closes: bool,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let rest = self.rest;
        if rest.is_empty() {
            return None;
        }
        let Some(after) = rest.strip_prefix('$') else {
            let (text, rest) = rest.split_at(rest.find('$').unwrap_or(rest.len()));
            self.rest = rest;
            return Some(Piece::Text(text));
        };
        self.rest = after;
        if let Some(tail) = after.strip_prefix('$') {
            self.rest = tail;
        } else if let (true, Some(opened)) = (self.closes, after.strip_prefix('(')) {
            match opened.split_once(')') {
                Some((name, tail)) => {
                    self.rest = tail;
                    return Some(Piece::Reference(name));
                }
                None => self.closes = false,
            }
        }
        Some(Piece::Text("$"))
    }
}

fn pieces(value: &str) -> Pieces<'_> {
    Pieces { rest: value, closes: true }
}

/// The names in `$(NAME)`, in order, repeated ones too.
pub fn references(value: &str) -> impl Iterator<Item = &str> {
    pieces(value).filter_map(|piece| if let Piece::Reference(name) = piece { Some(name) } else { None })
}

/// The value that the container sees, where `defined` gives the variables before this one.
#[must_use]
pub fn expand<'v>(value: &str, defined: impl Fn(&str) -> Option<&'v str>) -> String {
    expand_within(value, defined, usize::MAX).unwrap_or_default()
}

/// The same; None where it is longer than `max` bytes.
#[must_use]
pub fn expand_within<'v>(value: &str, defined: impl Fn(&str) -> Option<&'v str>, max: usize) -> Option<String> {
    let mut whole = String::new();
    for piece in pieces(value) {
        match piece {
            Piece::Text(text) => whole.push_str(text),
            Piece::Reference(name) => match defined(name) {
                Some(text) => whole.push_str(text),
                None => whole.extend(["$(", name, ")"]),
            },
        }
        if whole.len() > max {
            return None;
        }
    }
    Some(whole)
}

/// Keeps the kubelet from expanding anything in a literal value.
#[must_use]
pub fn escape(value: &str) -> String {
    value.replace('$', "$$")
}

/// Why a text that is no URL may be none: a variable in it was not replaced.
pub(crate) fn unexpanded(text: &str) -> Option<String> {
    let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if let Some(name) = references(text).find(is_name) {
        return Some(format!("it holds $({name}), which nothing has replaced: the container has no variable {name} defined before this one"));
    }
    let braces = text.split("${").nth(1).and_then(|rest| rest.split_once('}')).map(|(name, _)| name).filter(is_name);
    braces.map(|name| format!("it holds ${{{name}}}, which Kubernetes does not replace: write $({name}), and define {name} before it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defined(name: &str) -> Option<&'static str> {
        match name {
            "HOST" => Some("redis"),
            "PASS" => Some("a$(HOST)$$"),
            _ => None,
        }
    }

    #[test]
    fn values_are_those_that_the_kubelet_makes() {
        for (value, expanded, names) in [
            ("", "", &[][..]),
            ("plain", "plain", &[]),
            ("redis://:$(PASS)@$(HOST):6379", "redis://:a$(HOST)$$@redis:6379", &["PASS", "HOST"]),
            ("$$(HOST)", "$(HOST)", &[]),
            ("$$$(HOST)", "$redis", &["HOST"]),
            ("$$$$(HOST)", "$$(HOST)", &[]),
            ("$(TYPO)", "$(TYPO)", &["TYPO"]),
            ("$(open $(HOST)", "$(open $(HOST)", &["open $(HOST"]),
            ("$HOST ${HOST} $", "$HOST ${HOST} $", &[]),
            ("$()", "$()", &[""]),
            ("$($(HOST", "$($(HOST", &[]),
            ("$(HOST)$(PASS", "redis$(PASS", &["HOST"]),
        ] {
            assert_eq!((expand(value, defined).as_str(), references(value).collect::<Vec<_>>().as_slice()), (expanded, names), "{value}");
        }
    }

    #[test]
    fn a_value_that_grows_beyond_what_is_wanted_is_not_made() {
        assert_eq!(expand_within("$(HOST)$(HOST)", defined, 10).as_deref(), Some("redisredis"));
        assert_eq!(expand_within("$(HOST)$(HOST)", defined, 9), None);
    }

    #[test]
    fn what_is_escaped_is_seen_as_it_was_written() {
        for value in ["a$(HOST)$$c", "$", "$$", "", "$(PASS)"] {
            assert_eq!(expand(&escape(value), defined), value);
            assert_eq!(references(&escape(value)).count(), 0);
        }
    }
}
