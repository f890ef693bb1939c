//! Counters, gauges and histograms in the Prometheus text format. In: names, helps, fixed labels, numbers. Out: one text. Left to others: which
//! metrics exist (each binary's `metrics.rs`) and who serves the text (`admin`).
//!
//! A series is one allocation and its updates are atomic, so a handle may be cloned into any task. Labels are few and bounded: a name of a
//! workload may be one, the name of a pod may not.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of one process; clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    families: Arc<Mutex<BTreeMap<String, Family>>>,
}

#[derive(Debug)]
struct Family {
    help: String,
    kind: &'static str,
    /// By rendered labels (`a="x",b="y"`), which sorts them stably.
    series: BTreeMap<String, Series>,
}

#[derive(Clone, Debug)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// Something that is counted; never falls.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

/// Something that rises and falls.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

/// How often each size was seen.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// One more than `bounds`: the last is everything above. Not cumulative; the text is.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// The value from now on.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds, or with a negative number takes away.
    pub fn add(&self, delta: f64) {
        add_f64(&self.0, delta);
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        debug_assert!(bounds.windows(2).all(|w| w[0] < w[1]), "bucket bounds must rise: {bounds:?}");
        Self(Arc::new(Buckets { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }))
    }

    /// One more of this size.
    pub fn observe(&self, value: f64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        add_f64(&self.0.sum, value);
    }

    /// How many were seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }
}

fn add_f64(cell: &AtomicU64, delta: f64) {
    // `fetch_update` only fails when the closure declines, and this one never does.
    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| Some((f64::from_bits(bits) + delta).to_bits()));
}

impl Registry {
    /// The counter of this name (ending in `_total`) and these labels, made on first use.
    pub fn counter(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        match self.series(name, help, "counter", labels, || Series::Counter(Counter::default())) {
            Series::Counter(counter) => counter,
            _ => Counter::default(),
        }
    }

    /// The gauge of this name and these labels, made on first use.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        match self.series(name, help, "gauge", labels, || Series::Gauge(Gauge::default())) {
            Series::Gauge(gauge) => gauge,
            _ => Gauge::default(),
        }
    }

    /// The histogram of this name and these labels, made on first use with these upper bounds (rising; `+Inf` is added).
    pub fn histogram(&self, name: &str, help: &str, labels: &[(&str, &str)], bounds: &'static [f64]) -> Histogram {
        match self.series(name, help, "histogram", labels, || Series::Histogram(Histogram::new(bounds))) {
            Series::Histogram(histogram) => histogram,
            _ => Histogram::new(bounds),
        }
    }

    /// Forgets every series that carries this label with this value: its workload is gone.
    pub fn forget(&self, label: &str, value: &str) {
        let wanted = rendered(&[(label, value)]);
        for family in self.lock().values_mut() {
            family.series.retain(|labels, _| !pairs(labels).any(|pair| pair == wanted));
        }
    }

    /// Forgets the one series with exactly these labels.
    pub fn remove(&self, name: &str, labels: &[(&str, &str)]) {
        if let Some(family) = self.lock().get_mut(name) {
            family.series.remove(&rendered(labels));
        }
    }

    /// Everything, in the Prometheus text format, families and series in a stable order.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, family) in self.lock().iter().filter(|(_, family)| !family.series.is_empty()) {
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            // Writing into a String cannot fail.
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {}\n", family.kind);
            for (labels, series) in &family.series {
                write_series(&mut out, name, labels, series);
            }
        }
        out
    }

    /// A name used for two kinds is a programming mistake: the second kind then counts unseen, as a metric must not end a process.
    fn series(&self, name: &str, help: &str, kind: &'static str, labels: &[(&str, &str)], make: impl FnOnce() -> Series) -> Series {
        debug_assert!(is_name(name), "{name:?} is no metric name");
        debug_assert!(labels.iter().all(|(key, _)| is_name(key) && !key.contains(':')), "{labels:?} has a bad label name");
        let mut families = self.lock();
        let family = families.entry(name.to_owned()).or_insert_with(|| Family { help: help.to_owned(), kind, series: BTreeMap::new() });
        if family.kind != kind {
            debug_assert!(false, "{name} is a {} already, not a {kind}", family.kind);
            return make();
        }
        family.series.entry(rendered(labels)).or_insert_with(make).clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        // Nothing under this lock can leave the map half changed.
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn rendered(labels: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (key, value) in labels {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{}{key}=\"{value}\"", if out.is_empty() { "" } else { "," });
    }
    out
}

/// Splits rendered labels at the commas between pairs, not at those within quoted values.
fn pairs(labels: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    labels.split(move |c| {
        let inside = quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == ',' && !inside
    })
}

fn write_series(out: &mut String, name: &str, labels: &str, series: &Series) {
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = match series {
        Series::Counter(counter) => writeln!(out, "{name}{braces} {}", counter.get()),
        Series::Gauge(gauge) => writeln!(out, "{name}{braces} {}", gauge.get()),
        Series::Histogram(histogram) => {
            let comma = if labels.is_empty() { "" } else { "," };
            let mut total = 0;
            for (i, count) in histogram.0.counts.iter().enumerate() {
                total += count.load(Ordering::Relaxed);
                let bound = histogram.0.bounds.get(i).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
            }
            let sum = f64::from_bits(histogram.0.sum.load(Ordering::Relaxed));
            writeln!(out, "{name}_sum{braces} {sum}\n{name}_count{braces} {total}")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let registry = Registry::default();
        registry.counter("q_calls_total", "Calls.", &[("reason", "a \"b\"\\\n")]).add(3);
        registry.counter("q_calls_total", "Calls.", &[("reason", "z")]).inc();
        registry.gauge("q_depth", "Depth.", &[]).set(1.5);
        let seconds = registry.histogram("q_seconds", "Time.", &[("op", "x")], &[0.1, 1.0]);
        for value in [0.1, 0.5, 7.0] {
            seconds.observe(value);
        }
        let expected = "# HELP q_calls_total Calls.\n# TYPE q_calls_total counter\n\
            q_calls_total{reason=\"a \\\"b\\\"\\\\\\n\"} 3\nq_calls_total{reason=\"z\"} 1\n\
            # HELP q_depth Depth.\n# TYPE q_depth gauge\nq_depth 1.5\n\
            # HELP q_seconds Time.\n# TYPE q_seconds histogram\n\
            q_seconds_bucket{op=\"x\",le=\"0.1\"} 1\nq_seconds_bucket{op=\"x\",le=\"1\"} 2\nq_seconds_bucket{op=\"x\",le=\"+Inf\"} 3\n\
            q_seconds_sum{op=\"x\"} 7.6\nq_seconds_count{op=\"x\"} 3\n";
        assert_eq!(registry.text(), expected);
    }

    #[test]
    fn the_same_name_and_labels_are_the_same_series() {
        let registry = Registry::default();
        registry.counter("q_total", "", &[("a", "1")]).inc();
        registry.clone().counter("q_total", "", &[("a", "1")]).inc();
        assert_eq!(registry.counter("q_total", "", &[("a", "1")]).get(), 2);
    }

    #[test]
    fn a_workload_that_is_gone_leaves_no_series() {
        let registry = Registry::default();
        for workload in ["shop/a", "shop/ab", "x\",workload=\"shop/a"] {
            registry.gauge("q_replicas", "", &[("kind", "x"), ("workload", workload)]).set(1.0);
        }
        registry.forget("workload", "shop/a");
        let text = registry.text();
        assert!(!text.contains("workload=\"shop/a\"}") || text.contains("\\\"shop/a\"}"), "{text}");
        assert_eq!(text.lines().filter(|l| l.starts_with("q_replicas{")).count(), 2, "{text}");
        registry.remove("q_replicas", &[("kind", "x"), ("workload", "shop/ab")]);
        assert_eq!(registry.text().lines().filter(|l| l.starts_with("q_replicas{")).count(), 1);
    }

    #[test]
    fn a_gauge_takes_differences() {
        let gauge = Gauge::default();
        gauge.add(2.0);
        gauge.add(-0.5);
        assert!((gauge.get() - 1.5).abs() < f64::EPSILON);
    }
}
