//! The chart's CRD is the one that the type makes. `UPDATE_GOLDEN=1` rewrites it.

use kube::CustomResourceExt;

#[test]
fn the_chart_s_crd_is_that_of_the_type() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/qscaler/crds/qworkers.yaml");
    // JSON is YAML; one serialiser less.
    let mut crd = serde_json::to_value(qscaler_api::QWorker::crd()).unwrap();
    known_formats(&mut crd);
    let made = serde_json::to_string_pretty(&crd).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == made, "{path} is old: UPDATE_GOLDEN=1 cargo test -p qscaler-api");
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
