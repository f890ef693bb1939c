//! The webhook's certificate as the API server sees it. In: the published bundles, what is served, the time. Out: checks. Left to others: reading (`cluster`), making
//! certificates (`certs`, cert-manager).

use super::{Check, ClusterSeen, NOT_ALLOWED, State, check};
use qscaler_core::names::{TLS_SECRET, WEBHOOK_CONFIGURATION};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

/// Less than this is left: certs renews a leaf at two thirds of its seven days, and an authority far earlier.
const SOON_S: i64 = 86_400;
/// The Service by which the API server calls.
const SERVICE: &str = "qscaler-webhook";

/// One webhook and its bundle, PEM.
pub(crate) type Bundle = (String, Vec<u8>);

/// All checks of it. `namespace`: of the installation; `now_s` since the epoch.
pub(super) fn checks(webhooks: &ClusterSeen<Vec<Bundle>>, served: &ClusterSeen<Option<Vec<u8>>>, namespace: Option<&str>, now_s: i64) -> Vec<Check> {
    let name = format!("MutatingWebhookConfiguration {WEBHOOK_CONFIGURATION} is there");
    let found = match webhooks {
        ClusterSeen::Yes(found) => found,
        ClusterSeen::NotAllowed => return vec![check(name, State::Unknown, NOT_ALLOWED)],
        ClusterSeen::No(why) => {
            return vec![check(name, State::Failed, format!("{why}: pods are made without the sidecar; helm install or upgrade"))];
        }
    };
    let mut out = vec![check(name, State::Ok, "")];
    out.extend(found.iter().map(|(hook, pem)| bundle(hook, pem, now_s)));
    out.extend(namespace.and_then(|namespace| leaf(found, served, namespace, now_s)));
    out
}

fn bundle(hook: &str, pem: &[u8], now_s: i64) -> Check {
    let name = format!("{hook} has a CA bundle");
    let who = "see the log of qscaler-certs, or cert-manager's";
    if pem.is_empty() {
        let fix = format!("the API server trusts no certificate of the webhook, so pods are made without the sidecar: {who}");
        return check(name, State::Failed, fix);
    }
    let blocks = blocks(pem);
    let ends = parsed(&blocks).iter().map(|ca| ca.validity().not_after.timestamp()).max();
    match ends {
        None => {
            check(name, State::Failed, format!("its caBundle holds no certificate that can be read, so pods are made without the sidecar: {who}"))
        }
        Some(at) if at <= now_s => check(
            name,
            State::Failed,
            format!("every authority in it has expired, the last at {}, so pods are made without the sidecar: {who}", time(at)),
        ),
        Some(at) if at - now_s < SOON_S => {
            check(name, State::Warning, format!("the last authority in it expires at {}, and was not renewed: {who}", time(at)))
        }
        Some(at) => check(format!("{name}, valid until {}", time(at)), State::Ok, ""),
    }
}

/// What is served, beside every bundle.
fn leaf(bundles: &[Bundle], served: &ClusterSeen<Option<Vec<u8>>>, namespace: &str, now_s: i64) -> Option<Check> {
    let name = "the webhook's certificate is trusted and valid".to_owned();
    let renew = format!(
        "kubectl -n {namespace} delete secret {TLS_SECRET} has certs make another; kubectl -n {namespace} logs deployment/qscaler-certs says what keeps it from it"
    );
    let failed = |what: String| Some(check(name.clone(), State::Failed, format!("{what}, so pods are made without the sidecar: {renew}")));
    let pem = match served {
        ClusterSeen::Yes(Some(pem)) => pem,
        ClusterSeen::Yes(None) => return failed(format!("the Secret {namespace}/{TLS_SECRET} is not there, or has no tls.crt")),
        ClusterSeen::NotAllowed => return Some(check(name, State::Unknown, NOT_ALLOWED)),
        ClusterSeen::No(why) => return Some(check(name, State::Unknown, why)),
    };
    let served = blocks(pem);
    let chain = parsed(&served);
    let Some(leaf) = chain.first() else { return failed(format!("the Secret {namespace}/{TLS_SECRET} holds no certificate that can be read")) };
    let ends = leaf.validity().not_after.timestamp();
    if ends <= now_s {
        return failed(format!("it has expired at {}", time(ends)));
    }
    if leaf.validity().not_before.timestamp() > now_s {
        return failed(format!("it is valid only from {}: is a clock wrong?", time(leaf.validity().not_before.timestamp())));
    }
    let wanted = format!("{SERVICE}.{namespace}.svc");
    if !names(leaf).contains(&wanted) {
        return failed(format!("it is not for {wanted}, but for {}", names(leaf).join(", ")));
    }
    for (hook, bundle) in bundles.iter().filter(|(_, bundle)| !bundle.is_empty()) {
        let authorities = blocks(bundle);
        let authorities = parsed(&authorities);
        let trusted = |one: &X509Certificate<'_>| authorities.iter().any(|ca| signed(ca, one));
        if !trusted(leaf) && !chain[1..].iter().any(|between| signed(between, leaf) && trusted(between)) {
            return failed(format!("no authority in the caBundle of {hook} has signed it (does something write an old bundle back?)"));
        }
    }
    if ends - now_s < SOON_S {
        return Some(check(name, State::Warning, format!("it expires at {}, and was not renewed: {renew}", time(ends))));
    }
    Some(check(format!("{name}, until {}", time(ends)), State::Ok, ""))
}

fn blocks(pem: &[u8]) -> Vec<Pem> {
    Pem::iter_from_buffer(pem).filter_map(Result::ok).collect()
}

fn parsed(blocks: &[Pem]) -> Vec<X509Certificate<'_>> {
    blocks.iter().filter_map(|block| Some(X509Certificate::from_der(&block.contents).ok()?.1)).collect()
}

fn signed(ca: &X509Certificate<'_>, one: &X509Certificate<'_>) -> bool {
    ca.subject() == one.issuer() && one.verify_signature(Some(ca.public_key())).is_ok()
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let names = leaf.subject_alternative_name().ok().flatten().map(|san| &san.value.general_names);
    let dns = |name: &GeneralName<'_>| if let GeneralName::DNSName(dns) = name { Some((*dns).to_owned()) } else { None };
    names.into_iter().flatten().filter_map(dns).collect()
}

fn time(at_s: i64) -> String {
    k8s_openapi::jiff::Timestamp::from_second(at_s).map_or_else(|_| at_s.to_string(), |at| at.to_string())
}
