//! What every binary's metrics have in common. In: a registry of `prometheus-client`. Out: its text, and the reference page of what is in it. Left to
//! others: which metrics exist (each binary's `metrics.rs`) and who serves the text (`admin`).
//!
//! Labels are few and bounded: a name of a workload may be one, the name of a pod may not.

use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Metric;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicU64;

pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::histogram::Histogram;

/// Something that is counted; never falls.
pub type Counter = prometheus_client::metrics::counter::Counter;
/// The same in fractions: seconds, or messages by estimate.
pub type Amount = prometheus_client::metrics::counter::Counter<f64, AtomicU64>;
/// Something that rises and falls.
pub type Gauge = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;

/// The content type of the text: what every scraper reads.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// All metrics of one process.
#[derive(Debug, Default)]
pub struct Registry {
    registry: prometheus_client::registry::Registry,
    names: Vec<&'static str>,
}

impl Registry {
    /// Exports this metric under this name (a counter's without `_total`, which the text adds) and help (without a full stop, which is added too).
    pub fn add<M: Metric + Clone>(&mut self, name: &'static str, help: &str, metric: M) -> M {
        self.names.push(name);
        self.registry.register(name, help, metric.clone());
        metric
    }

    /// Everything in the Prometheus text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_text::encode(&mut out, &self.registry);
        out
    }

    /// The reference page of a binary: a row for each metric, each of which has at least one sample. `about` is what comes before the table.
    ///
    /// # Errors
    /// A metric without a sample (its labels would not be known), without help, with a name that does not fit its kind, or used twice.
    pub fn reference(&self, about: &str) -> Result<String, String> {
        let text = self.text();
        let described = describe(&text)?;
        for name in &self.names {
            if !described.iter().any(|(shown, _)| shown.strip_suffix("_total").unwrap_or(shown) == *name) {
                return Err(format!("{name} has no sample in the example"));
            }
        }
        let mut out = format!("{}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n", about.trim_end());
        for (name, Described { kind, help, labels }) in described {
            let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {} |", help.replace('|', "\\|"));
        }
        Ok(out)
    }

    /// Compares the reference page with the file at `path`, or with `UPDATE_GOLDEN=1` in the environment writes it.
    ///
    /// # Errors
    /// As [`Self::reference`]; they differ; or the file cannot be read or written.
    pub fn check_reference(&self, about: &str, path: &Path) -> Result<(), String> {
        let (page, failed) = (self.reference(about)?, |e: std::io::Error| format!("{}: {e}; UPDATE_GOLDEN=1 writes it", path.display()));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            return std::fs::write(path, page).map_err(failed);
        }
        if std::fs::read_to_string(path).map_err(failed)? == page {
            return Ok(());
        }
        Err(format!("{} is not what the code says now; UPDATE_GOLDEN=1 writes it. Now:\n{page}", path.display()))
    }
}

/// One metric of a text.
#[derive(Default)]
struct Described<'a> {
    kind: &'a str,
    help: &'a str,
    labels: Vec<&'a str>,
}

fn describe(text: &str) -> Result<BTreeMap<&str, Described<'_>>, String> {
    let mut all: BTreeMap<&str, Described<'_>> = BTreeMap::new();
    let mut current = "";
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            if all.insert(name, Described { help, ..Described::default() }).is_some() {
                return Err(format!("{name} is exported twice"));
            }
            current = name;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let described = all.entry(name).or_default();
            described.kind = kind;
            if described.help.trim_end_matches('.').is_empty() || (kind == "counter") != name.ends_with("_total") {
                return Err(format!("{name} is a {kind} with the help {:?}", described.help));
            }
        } else if let Some(described) = all.get_mut(current).filter(|d| d.labels.is_empty()) {
            described.labels = label_names(line);
        }
    }
    Ok(all)
}

/// The names of a sample's labels, but for a bucket's bound.
fn label_names(sample: &str) -> Vec<&str> {
    let Some((_, labels)) = sample.split_once('{') else { return Vec::new() };
    let (mut names, mut rest) = (Vec::new(), labels);
    while let Some((name, value)) = rest.split_once("=\"") {
        names.push(name.trim_start_matches(','));
        let mut escaped = false;
        let end = value.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        rest = end.map_or("", |(at, _)| &value[at + 1..]);
    }
    names.retain(|name| *name != "le");
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Registry {
        let mut registry = Registry::default();
        let calls = registry.add("q_calls", "Calls", Family::<Vec<(&'static str, &'static str)>, Counter>::default());
        calls.get_or_create(&vec![("reason", "a \"b\"\\\n,c=\"d\""), ("kind", "z")]).inc_by(3);
        registry.add("q_depth", "Depth | so far", Gauge::default()).set(f64::NAN);
        registry.add("q_seconds", "Time", Histogram::new([0.1, 1.0])).observe(0.1);
        registry
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let expected = "# HELP q_calls_total Calls.\n# TYPE q_calls_total counter\n\
            q_calls_total{reason=\"a \\\"b\\\"\\\\\\n,c=\\\"d\\\"\",kind=\"z\"} 3\n\
            # HELP q_depth Depth | so far.\n# TYPE q_depth gauge\nq_depth NaN\n\
            # HELP q_seconds Time.\n# TYPE q_seconds histogram\n\
            q_seconds_bucket{le=\"0.1\"} 1\nq_seconds_bucket{le=\"1\"} 1\nq_seconds_bucket{le=\"+Inf\"} 1\nq_seconds_sum 0.1\nq_seconds_count 1\n";
        assert_eq!(sample().text(), expected);
    }

    #[test]
    fn a_reference_has_every_metric_with_its_labels_and_refuses_what_it_cannot_describe() {
        let page = sample().reference("About.").expect("every metric has a sample");
        let expected = "About.\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n\
            | `q_calls_total` | counter | `reason`, `kind` | Calls. |\n| `q_depth` | gauge |  | Depth \\| so far. |\n| `q_seconds` | histogram |  | Time. |\n";
        assert_eq!(page, expected);
        let with = |add: &dyn Fn(&mut Registry)| {
            let mut registry = sample();
            add(&mut registry);
            registry.reference("")
        };
        let silent = |r: &mut Registry| drop(r.add("q_more", "More", Family::<Vec<(&'static str, &'static str)>, Counter>::default()));
        let mute = |r: &mut Registry| drop(r.add("q_more", "", Gauge::default()));
        let twice = |r: &mut Registry| drop(r.add("q_depth", "Again", Gauge::default()));
        let misnamed = |r: &mut Registry| drop(r.add("q_more_total", "More", Gauge::default()));
        for (what, page) in [("no sample", with(&silent)), ("no help", with(&mute)), ("twice", with(&twice)), ("a counter's name", with(&misnamed))] {
            assert!(page.is_err(), "{what}: {page:?}");
        }
    }
}
