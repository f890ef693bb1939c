//! Redis keys of a queue. In: a framework's templates, the queue's name, what the user has chosen of the names. Out: keys, each with how it is measured.
//! Left to others: measuring them (`broker`).
//!
//! Words in a template: `{queue}` the queue's name; `{{queue}}` the same in braces (a hash tag); `{queue:word}` only its letters, digits and
//! underscores; `{prefix}` the prefix; `{priority}` one name for each step of priority.

use serde::{Deserialize, Serialize};

/// kombu's `priority_steps`: the keys that a Celery queue has where nobody says otherwise.
const PRIORITY_STEPS_DEFAULT: &[u8] = &[0, 3, 6, 9];
/// kombu's `sep`, between a queue's name and its step of priority.
const PRIORITY_SEPARATOR_DEFAULT: &str = "\u{6}\u{16}";

/// Unit of the scores of a sorted set that is ordered by due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clock {
    /// Seconds since the epoch.
    Seconds,
    /// Milliseconds since the epoch.
    Millis,
    /// BullMQ and Bull: milliseconds since the epoch times 4096, and the low bits of the job's number (`lua: timestamp * 0x1000`).
    Millis4096,
}

impl Clock {
    /// The highest score that is due at `now_ms`, as a command's argument.
    #[must_use]
    pub fn due_until(self, now_ms: u64) -> String {
        match self {
            Self::Seconds => format!("{}.{:03}", now_ms / 1000, now_ms % 1000),
            Self::Millis => now_ms.to_string(),
            Self::Millis4096 => (now_ms.saturating_add(1).saturating_mul(4096) - 1).to_string(),
        }
    }

    /// When an entry with this score is due, milliseconds since the epoch.
    #[must_use]
    pub fn due_ms(self, score: f64) -> u64 {
        // A float that is negative or no number becomes 0 in the cast, one that is too large the maximum.
        let ms = match self {
            Self::Seconds => score * 1000.0,
            Self::Millis => score,
            Self::Millis4096 => score / 4096.0,
        };
        ms as u64
    }
}

/// How a Redis key is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `LLEN`.
    List,
    /// `ZCARD`.
    SortedSet,
    /// `HLEN`.
    Hash,
    /// A sorted set by due time: those that are due wait. Where running jobs stay in it until their end, each has a key of its own, whose name is
    /// `running` and the job's id: then the set tells both what waits and what is in work (arq).
    Due {
        /// Unit of its scores.
        clock: Clock,
        /// Before a running job's id.
        running: Option<&'static str>,
    },
    /// A sorted set by due time that all queues share; its members are JSON that names the queue in the field `queue` (Sidekiq).
    DueOfAll {
        /// Unit of its scores.
        clock: Clock,
    },
    /// A list of message ids, with the messages as JSON in a hash beside it (`.msgs` behind the list's name), each with its due time in
    /// `options.eta`, milliseconds since the epoch (Dramatiq).
    DueList,
    /// Celery's `unacked` hash: shared by all queues of the database; only entries whose routing key is this queue count.
    CeleryUnacked,
    /// A stream's consumer groups: lag waits, pending works.
    Stream,
    /// `SCARD` of every key that matches this pattern (Dramatiq's acks).
    SetPattern,
}

/// One Redis key of a queue, or one for each step of priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisKey {
    /// How it is measured.
    pub kind: KeyKind,
    /// Its name; see the module.
    pub template: &'static str,
}

/// A key of one queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// How it is measured.
    pub kind: KeyKind,
    /// Its name.
    pub name: String,
}

/// What stands before every key of a framework.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Where the user says nothing.
    pub default: &'static str,
    /// What the framework itself puts between a prefix that is not empty and the key.
    pub joint: &'static str,
    /// What the framework calls this setting.
    pub setting: &'static str,
}

/// What a workload's owner has chosen of its keys' names. Nothing: what the framework does by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyNames {
    /// The framework's own prefix or namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Steps of priority that have a key of their own; 0 is the queue's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_steps: Option<Vec<u8>>,
    /// Between the queue's name and its step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_separator: Option<String>,
}

impl KeyNames {
    /// Nothing was chosen.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The prefix with its joint.
    #[must_use]
    pub fn prefix(&self, prefix: Option<Prefix>) -> String {
        let Some(prefix) = prefix else { return String::new() };
        let text = self.prefix.as_deref().unwrap_or(prefix.default);
        if text.is_empty() { String::new() } else { format!("{text}{}", prefix.joint) }
    }

    fn priorities(&self) -> Vec<String> {
        let separator = self.priority_separator.as_deref().unwrap_or(PRIORITY_SEPARATOR_DEFAULT);
        let steps = self.priority_steps.as_deref().unwrap_or(PRIORITY_STEPS_DEFAULT);
        steps.iter().map(|step| if *step == 0 { String::new() } else { format!("{separator}{step}") }).collect()
    }
}

/// The names that a template stands for, each word of the queue and the prefix spelled by `literal`.
pub(super) fn names(template: &str, queue: &str, names: &KeyNames, prefix: Option<Prefix>, literal: impl Fn(&str) -> String) -> Vec<String> {
    let word: String = queue.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let of = |priority: &str| {
        let words = [
            ("{{queue}}", format!("{{{}}}", literal(queue))),
            ("{queue:word}", literal(&word)),
            ("{queue}", literal(queue)),
            ("{prefix}", literal(&names.prefix(prefix))),
            ("{priority}", literal(priority)),
        ];
        fill(template, &words)
    };
    if template.contains("{priority}") { names.priorities().iter().map(|priority| of(priority)).collect() } else { vec![of("")] }
}

/// In one pass: what is put in is not looked through for words again.
fn fill(template: &str, words: &[(&str, String)]) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while !rest.is_empty() {
        let found = words.iter().find_map(|(word, value)| rest.strip_prefix(word).map(|after| (value, after)));
        match found {
            Some((value, after)) => {
                text.push_str(value);
                rest = after;
            }
            None => {
                let next = rest.chars().next().map_or(rest.len(), char::len_utf8);
                text.push_str(&rest[..next]);
                rest = &rest[next..];
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_s_name_that_looks_like_a_word_of_the_template_stands_for_itself() {
        let prefix = Some(Prefix { default: "p", joint: ":", setting: "namespace" });
        let plain = |text: &str| text.to_owned();
        assert_eq!(names("{prefix}{queue}:{priority}", "{prefix}", &KeyNames::default(), prefix, plain)[0], "p:{prefix}:");
        assert_eq!(names("a:{{queue}}:b", "q", &KeyNames::default(), None, plain), ["a:{q}:b"]);
        assert_eq!(names("h.{queue:word}", "mail-out_2", &KeyNames::default(), None, plain), ["h.mailout_2"]);
    }

    #[test]
    fn prefix_and_priorities_are_the_user_s_where_there_are_any() {
        let prefix = Some(Prefix { default: "", joint: ":", setting: "namespace" });
        let own = KeyNames { prefix: Some("app".into()), priority_steps: Some(vec![0, 1]), priority_separator: Some("/".into()) };
        assert_eq!(names("{prefix}{queue}{priority}", "q", &own, prefix, str::to_owned), ["app:q", "app:q/1"]);
        let none = names("{prefix}{queue}{priority}", "q", &KeyNames::default(), prefix, str::to_owned);
        assert_eq!((none.len(), none[0].as_str(), none[3].as_str()), (4, "q", "q\u{6}\u{16}9"));
    }

    #[test]
    fn scores_are_compared_in_their_own_unit() {
        assert_eq!(Clock::Seconds.due_until(1_700_000_000_250), "1700000000.250");
        assert_eq!(Clock::Millis4096.due_until(2), (3 * 4096 - 1).to_string());
        for clock in [Clock::Seconds, Clock::Millis, Clock::Millis4096] {
            let until: f64 = clock.due_until(1_700_000_000_250).parse().unwrap();
            assert_eq!(clock.due_ms(until), 1_700_000_000_250, "{clock:?}");
        }
        assert_eq!(Clock::Seconds.due_ms(f64::NAN), 0);
    }
}
