//! What an upgrade leaves alone. In: the chart, and what `certs` has made of a real API server, by its own code. Out: that no upgrade, by either Helm, no rollback and no
//! changed value changes the authority, the leaf, the key of control messages or the bundle that API servers trust. Left to others: when they are renewed (`certs`).

use crate::server::{NAMESPACE, Server, chart};
use qscaler_certs::issue::service_names;
use qscaler_certs::metrics::Metrics;
use qscaler_certs::run::pass;
use qscaler_certs::store::Store;
use qscaler_core::names::{CA_SECRET, CONTROL_KEY_SECRET, TLS_SECRET, WEBHOOK_CONFIGURATION};
use qscaler_runtime::metrics::Registry;
use serde_json::Value;
use time::OffsetDateTime;

const SECRETS: [&str; 3] = [CA_SECRET, TLS_SECRET, CONTROL_KEY_SECRET];

/// The three Secrets with their versions, and the bundle of each webhook.
fn certificates(server: &Server) -> (Vec<Value>, Vec<Value>) {
    let object = |arguments: &[&str]| -> Value { serde_json::from_str(&server.kubectl(&[arguments, &["-o", "json"]].concat())).unwrap() };
    let secrets = SECRETS.map(|name| object(&["-n", NAMESPACE, "get", "secret", name])).to_vec();
    let configuration = object(&["get", "mutatingwebhookconfiguration", WEBHOOK_CONFIGURATION]);
    let bundles = configuration["webhooks"].as_array().unwrap().iter().map(|webhook| webhook["clientConfig"]["caBundle"].clone()).collect();
    (secrets, bundles)
}

/// What `certs` does every few seconds.
async fn keep(server: &Server) {
    let store = Store::new(server.client().await, NAMESPACE);
    let names = service_names("qscaler-webhook", NAMESPACE);
    pass(&store, &names, OffsetDateTime::now_utc(), &Metrics::new(Registry::default())).await.unwrap();
}

#[tokio::test]
async fn no_upgrade_and_no_rollback_by_either_helm_changes_an_authority_a_leaf_a_key_or_what_is_trusted() {
    let (server, chart) = (Server::start(), chart());
    let ha = format!("{chart}/values-ha.yaml");
    server.helm("helm-", &["install", "qscaler", &chart]);
    keep(&server).await;
    let before = certificates(&server);
    assert!(before.1.len() >= 2 && before.1.iter().all(|bundle| bundle.as_str().is_some_and(|text| text.len() > 100)), "{:?}", before.1);
    for (helm, arguments) in [
        ("helm-", vec!["upgrade", "qscaler", &chart]),
        ("helm-", vec!["upgrade", "qscaler", &chart, "--values", &ha, "--set", "webhook.timeoutSeconds=2"]),
        ("helm-", vec!["rollback", "qscaler", "1"]),
        ("helm4-", vec!["upgrade", "qscaler", &chart]),
        ("helm4-", vec!["upgrade", "qscaler", &chart, "--values", &ha, "--set", "webhook.timeoutSeconds=2"]),
        ("helm4-", vec!["rollback", "qscaler", "1"]),
    ] {
        server.helm(helm, &arguments);
        // Before certs has looked at it: no call is made meanwhile that trusts another authority, or none.
        assert_eq!(certificates(&server), before, "{helm} {arguments:?}");
        keep(&server).await;
        assert_eq!(certificates(&server), before, "{helm} {arguments:?}, and certs after it");
    }
}
