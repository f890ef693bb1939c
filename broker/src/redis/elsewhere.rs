//! Looks for the keys of a queue of which nothing was ever seen. In: the queue, its framework. Out: lists that have its name in theirs, and the prefix or
//! separator that would explain them. Left to others: when (`stats`), saying it.
//!
//! One sweep by SCAN, a thousand keys a call and a call a second, [`SCANS_MAX`] of them at most: it costs a Redis no more than a fraction of a
//! millisecond a second, whatever its size.

use crate::QueueQuery;
use qscaler_core::framework::KeyNames;
use std::collections::BTreeSet;

/// Keys that one SCAN looks at.
pub(super) const SCAN_COUNT: usize = 1000;
/// A database of more than 600 times a thousand keys is not swept to its end.
pub(super) const SCANS_MAX: u32 = 600;
/// Keys that are named.
const NAMED_MAX: usize = 3;

/// A sweep under way, or done.
#[derive(Clone, Debug, Default)]
pub(super) struct Elsewhere {
    pub(super) cursor: u64,
    pub(super) scans: u32,
    pub(super) keys: BTreeSet<String>,
}

impl Elsewhere {
    pub(super) fn is_done(&self) -> bool {
        self.scans > 0 && (self.cursor == 0 || self.scans >= SCANS_MAX)
    }

    pub(super) fn took(&mut self, next: u64, keys: Vec<String>) {
        self.scans += 1;
        self.cursor = next;
        let room = NAMED_MAX.saturating_sub(self.keys.len());
        self.keys.extend(keys.into_iter().take(room));
    }

    /// What is to be said.
    pub(super) fn words(&self, query: &QueueQuery, place: &str) -> String {
        let own = query.framework.waiting_keys(&query.queue, &query.names);
        let first = own.first().map_or(query.queue.as_str(), |key| key.name.as_str());
        let mut words = format!("no message has been seen in the queue {:?} yet (key {first:?} at {place})", query.queue);
        let others: Vec<&String> = self.keys.iter().filter(|key| own.iter().all(|own| own.name != **key)).collect();
        if let Some(key) = others.first() {
            let named: Vec<String> = others.iter().map(|key| format!("{key:?}")).collect();
            words += &format!("; there is a list of another name: {}", named.join(", "));
            if let Some(mend) = mend(query, key) {
                words += &format!("; if that is it: {mend}");
            }
        }
        words
    }
}

/// The annotation that makes this key the queue's.
fn mend(query: &QueueQuery, key: &str) -> Option<String> {
    const MARK: &str = "\u{1}";
    let marked = KeyNames { prefix: Some(MARK.to_owned()), ..query.names.clone() };
    if let Some(prefix) = query.framework.prefix {
        let keys = query.framework.waiting_keys(&query.queue, &marked);
        let found = keys.iter().find_map(|own| key.strip_suffix(own.name.strip_prefix(MARK)?));
        if let Some(text) = found.filter(|text| !text.is_empty()) {
            return Some(format!("annotation key-prefix: {text:?} ({})", prefix.setting));
        }
    }
    let step = key.rsplit(|c: char| !c.is_ascii_digit()).next().filter(|step| !step.is_empty())?;
    let separator = key.strip_suffix(step)?.strip_prefix(query.queue.as_str()).filter(|text| !text.is_empty())?;
    query.framework.has_priorities().then(|| format!("annotation priority-separator: {separator:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_core::framework::framework;

    fn says(worker: &str, keys: &[&str]) -> String {
        let mut found = Elsewhere::default();
        found.took(0, keys.iter().map(|key| (*key).to_owned()).collect());
        assert!(found.is_done());
        found.words(&QueueQuery::new("mail", framework(worker).unwrap()), "redis://h:6379")
    }

    #[test]
    fn the_prefix_that_would_explain_a_key_is_named() {
        for (worker, key, mend) in [
            ("celery", "app_mail", r#"key-prefix: "app_""#),
            ("bullmq", "{app}:mail:wait", r#"key-prefix: "{app}""#),
            ("dramatiq", "prod:mail", r#"key-prefix: "prod""#),
            ("sidekiq", "ns:queue:mail", r#"key-prefix: "ns""#),
            ("celery", "mail:3", r#"priority-separator: ":""#),
        ] {
            let words = says(worker, &[key]);
            assert!(words.contains(mend) && words.contains(&format!("{key:?}")), "{words}");
        }
    }

    #[test]
    fn without_such_a_key_nothing_is_guessed() {
        for (worker, keys) in [("rq", &["rq:queue:mail"][..]), ("celery", &[])] {
            let words = says(worker, keys);
            assert!(words.contains("\"mail\"") && !words.contains("another name"), "{words}");
        }
        assert!(!says("rq", &["old-mail"]).contains("annotation"));
    }
}
