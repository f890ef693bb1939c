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

fn pieces(value: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        out.push(Piece::Text(&rest[..at]));
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push(Piece::Text("$"));
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            out.push(Piece::Reference(name));
            rest = tail;
        } else {
            out.push(Piece::Text("$"));
            rest = after;
        }
    }
    out.push(Piece::Text(rest));
    out
}

/// The names in `$(NAME)`, in order, repeated ones too.
#[must_use]
pub fn references(value: &str) -> Vec<&str> {
    pieces(value).into_iter().filter_map(|piece| if let Piece::Reference(name) = piece { Some(name) } else { None }).collect()
}

/// The value that the container sees, where `defined` gives the variables before this one.
#[must_use]
pub fn expand<'v>(value: &str, defined: impl Fn(&str) -> Option<&'v str>) -> String {
    let one = |piece: Piece<'_>| match piece {
        Piece::Text(text) => text.to_owned(),
        Piece::Reference(name) => defined(name).map_or_else(|| format!("$({name})"), str::to_owned),
    };
    pieces(value).into_iter().map(one).collect()
}

/// Keeps the kubelet from expanding anything in a literal value.
#[must_use]
pub fn escape(value: &str) -> String {
    value.replace('$', "$$")
}

/// Why a text that is no URL may be none: a variable in it was not replaced.
pub(crate) fn unexpanded(text: &str) -> Option<String> {
    let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if let Some(name) = references(text).into_iter().find(is_name) {
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
        ] {
            assert_eq!((expand(value, defined).as_str(), references(value).as_slice()), (expanded, names), "{value}");
        }
    }

    #[test]
    fn what_is_escaped_is_seen_as_it_was_written() {
        for value in ["a$(HOST)$$c", "$", "$$", "", "$(PASS)"] {
            assert_eq!(expand(&escape(value), defined), value);
            assert!(references(&escape(value)).is_empty());
        }
    }
}
