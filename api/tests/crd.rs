//! The chart's CRD is the one that the type makes. `UPDATE_GOLDEN=1` rewrites it.

use kube::CustomResourceExt;
use serde_json::json;

#[test]
fn the_chart_s_crds_are_those_of_the_types() {
    for crd in [qscaler_api::QWorker::crd(), qscaler_api::QWorkerCheckpoint::crd()] {
        let path = format!("{}/../charts/qscaler/crd/{}.yaml", env!("CARGO_MANIFEST_DIR"), crd.spec.names.plural);
        // JSON is YAML; one serialiser less.
        let mut crd = serde_json::to_value(crd).unwrap();
        known_formats(&mut crd);
        let made = serde_json::to_string_pretty(&crd).unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == made, "{path} is old: UPDATE_GOLDEN=1 cargo test -p qscaler-api");
    }
}

#[test]
fn what_is_remembered_apart_is_taken_up_unless_an_older_release_has_written_since() {
    let kept = || qscaler_api::QWorkerCheckpointSpec {
        learned: r#"{"last_s": 7}"#.into(),
        sizes: [("worker".to_owned(), qscaler_api::SavedSize { template_hash: "t".into(), estimate: r#"{"samples": 3}"#.into() })].into(),
        cut: 2,
        ..Default::default()
    };
    let mut apart: qscaler_api::QWorkerStatus = serde_json::from_value(json!({"counters": {"cut": 1, "drained": 5}})).unwrap();
    apart.remember(kept());
    assert_eq!((&apart.learned, &apart.sizes["worker"].estimate), (&Some(json!({"last_s": 7})), &Some(json!({"samples": 3}))));
    assert_eq!((apart.counters.cut, apart.counters.drained), (2, 5));
    // As the release before wrote it, after a downgrade.
    let mut older: qscaler_api::QWorkerStatus = serde_json::from_value(json!({"counters": {"cut": 4}, "learned": {"last_s": 9}})).unwrap();
    older.remember(kept());
    assert_eq!((older.learned, older.counters.cut), (Some(json!({"last_s": 9})), 4));
}

/// The longest value of each column that is shown without `-o wide`, as kubectl prints it; of names and queues what is common.
const LONGEST: &[(&str, usize)] = &[("Queue", 16), ("Backlog", 7), ("Replicas", 5), ("Desired", 5), ("Rule", 14), ("Hold", 17), ("Age", 5)];
/// A name of a workload that is long, but not out of the common.
const NAME: usize = 24;

#[test]
fn what_kubectl_shows_by_default_fits_into_120_columns() {
    let crd = serde_json::to_value(qscaler_api::QWorker::crd()).unwrap();
    let columns = crd.pointer("/spec/versions/0/additionalPrinterColumns").and_then(|c| c.as_array()).unwrap();
    let shown = columns.iter().filter(|c| c["priority"].as_u64().unwrap_or(0) == 0).map(|c| c["name"].as_str().unwrap());
    let width = |name: &str| {
        let (_, longest) = LONGEST.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("how wide is {name}?"));
        // kubectl puts three spaces between columns.
        name.len().max(*longest) + 3
    };
    let all = NAME + 3 + shown.map(width).sum::<usize>() - 3;
    assert!(all <= 120, "{all} columns");
}

/// Rows of one object's fields, those of objects below it after it; `path` is where it is.
fn fields(schema: &serde_json::Value, path: &str, rows: &mut Vec<String>) {
    let empty = serde_json::Map::new();
    for (name, field) in schema["properties"].as_object().unwrap_or(&empty) {
        let kind = field["type"].as_str().unwrap_or("any");
        let items = if kind == "array" { format!("{} list", field["items"]["type"].as_str().unwrap_or("any")) } else { kind.to_owned() };
        let map = field["additionalProperties"].is_object();
        let words = field["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        rows.push(format!("| `{path}{name}` | {} | {words} |", if map { "map" } else { &items }));
        let below = match kind {
            "array" => (&field["items"], format!("{path}{name}[].")),
            _ if map => (&field["additionalProperties"], format!("{path}{name}.*.")),
            _ => (field, format!("{path}{name}.")),
        };
        fields(below.0, &below.1, rows);
    }
}

#[test]
fn the_reference_page_has_every_field() {
    let crd = serde_json::to_value(qscaler_api::QWorker::crd()).unwrap();
    let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").unwrap();
    let mut rows = Vec::new();
    for part in ["spec", "status"] {
        fields(&schema[part], &format!("{part}."), &mut rows);
    }
    assert!(rows.len() > 30, "{rows:?}");
    let head = "# QWorker\n\n`qworkers.qscaler.dev/v1alpha1`, short `qw`. The controller makes one for each managed Deployment, with its name, and owns it: write annotations, read this.\n\n\
        | field | type | meaning |\n|---|---|---|\n";
    let page = format!("{head}{}\n", rows.join("\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/qworker.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap_or_default() == page, "{path} is old: UPDATE_GOLDEN=1 cargo test -p qscaler-api");
}

/// The API server knows no unsigned formats, and would warn at every installation; `minimum: 0` says the same.
fn known_formats(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(format) = map.get_mut("format").filter(|format| *format == "uint32" || *format == "uint64") {
                *format = "int64".into();
            }
            map.values_mut().for_each(known_formats);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(known_formats),
        _ => {}
    }
}
