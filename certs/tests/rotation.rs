//! Years of certificates in a second: at every moment the served leaf is trusted, also by API servers and webhooks that lag.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test helper is a failed test with a line number")]

use proptest::prelude::*;
use qscaler_certs::issue::{
    AUTHORITY_LIFETIME, BACKDATE, Certificate, ControlKey, LEAF_LIFETIME, Pair, new_authority, new_leaf, service_names, valid_parts,
};
use qscaler_certs::plan::{CertificateStep, PROPAGATION, State, StoredKey, plan};
use time::{Duration, OffsetDateTime};

fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap()
}

fn names() -> Vec<String> {
    service_names("qscaler-webhook", "qscaler-system")
}

/// Stored and published, changed as `store` would.
fn settle(state: &mut State, now: OffsetDateTime) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    while let Some(planned) = plan(state, &names(), now).unwrap() {
        reasons.push(planned.reason);
        assert!(reasons.len() < 8, "{reasons:?}");
        match planned.step {
            CertificateStep::ControlKey(key) => state.control = Some(StoredKey::Good(key)),
            CertificateStep::Authorities(authorities) => state.authorities = Some(authorities),
            CertificateStep::Publish(bundle) => state.published.as_mut().unwrap().fill(bundle),
            CertificateStep::Leaf { leaf, bundle, control } => {
                state.leaf = Some(leaf);
                (state.leaf_bundle, state.leaf_control) = (bundle, control);
            }
        }
    }
    reasons
}

fn installed() -> State {
    let mut state = State { published: Some(vec![String::new(), String::new()]), ..State::default() };
    settle(&mut state, start());
    state
}

fn trusted(leaf: &Pair, bundle: &str, now: OffsetDateTime) -> bool {
    let leaf = Certificate::parse(&leaf.cert).unwrap();
    leaf.is_valid(now) && valid_parts(bundle, now).iter().any(|ca| Certificate::parse(ca).unwrap().signed(&leaf))
}

#[test]
fn a_first_install_takes_an_authority_a_bundle_and_a_leaf() {
    let mut state = State { published: Some(vec![String::new()]), ..State::default() };
    assert_eq!(
        settle(&mut state, start()),
        ["there is no key for control messages", "there is no usable authority", "the published bundle differs", "there is no usable leaf"]
    );
    assert!(trusted(state.leaf.as_ref().unwrap(), &state.published.as_ref().unwrap()[0], start()));
    assert!(settle(&mut state, start()).is_empty());
}

#[test]
fn a_leaf_has_the_services_names_and_ends_within_its_authority() {
    let authority = new_authority(start()).unwrap();
    let late = start() + AUTHORITY_LIFETIME - Duration::days(2);
    let leaf = Certificate::parse(&new_leaf(&authority, &names(), late).unwrap().cert).unwrap();
    assert_eq!(leaf.names, ["qscaler-webhook", "qscaler-webhook.qscaler-system", "qscaler-webhook.qscaler-system.svc"]);
    let ca = Certificate::parse(&authority.cert).unwrap();
    assert_eq!((ca.not_before, ca.not_after), (start() - BACKDATE, start() + AUTHORITY_LIFETIME));
    assert_eq!((leaf.not_before, leaf.not_after), (late - BACKDATE, ca.not_after));
    assert!(ca.signed(&leaf) && !leaf.signed(&ca) && ca.has_key(&authority.key));
    assert!(!Certificate::parse(&new_authority(start()).unwrap().cert).unwrap().signed(&leaf), "another authority of the same name");
}

#[test]
fn the_authoritys_certificate_says_what_it_may_do() {
    use x509_parser::prelude::*;
    let authority = new_authority(start()).unwrap();
    let leaf = new_leaf(&authority, &names(), start()).unwrap();
    let read = |pem: &str| parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
    let (ca, leaf) = (read(&authority.cert), read(&leaf.cert));
    let (ca, leaf) = (X509Certificate::from_der(&ca).unwrap().1, X509Certificate::from_der(&leaf).unwrap().1);
    assert!(ca.is_ca() && !leaf.is_ca());
    assert_eq!(ca.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
    assert!(ca.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn renewal_is_due_at_two_thirds_of_a_life() {
    let leaf = Certificate::parse(&new_leaf(&new_authority(start()).unwrap(), &names(), start()).unwrap().cert).unwrap();
    let due = leaf.not_before + (LEAF_LIFETIME + BACKDATE) * 2 / 3;
    assert!(!leaf.is_due(due - Duration::seconds(1)) && leaf.is_due(due));
    assert!(leaf.is_valid(start()) && !leaf.is_valid(leaf.not_after) && !leaf.is_valid(leaf.not_before - Duration::seconds(1)));
}

#[test]
fn the_authority_rotates_with_an_overlap() {
    let mut state = installed();
    let old = state.authorities.clone().unwrap().current.cert;
    let due = start() + AUTHORITY_LIFETIME * 2 / 3 + Duration::hours(1);
    // Leaves are kept fresh on the way, as they are by the process.
    settle(&mut state, due - Duration::days(1));
    let leaf = state.leaf.clone();
    assert_eq!(settle(&mut state, due), ["the authority is due for renewal", "the published bundle differs"]);
    assert_eq!(state.leaf, leaf, "the old leaf is served until API servers know the new authority");
    let bundle = state.published.clone().unwrap()[0].clone();
    assert!(bundle.contains(&old) && bundle.contains(&state.authorities.clone().unwrap().current.cert));
    assert!(settle(&mut state, due + PROPAGATION - Duration::seconds(1)).is_empty());
    assert_eq!(settle(&mut state, due + PROPAGATION), ["the authority has changed"]);
    assert!(state.published.clone().unwrap()[0].contains(&old), "a lagging webhook may still serve the old leaf");
    assert_eq!(settle(&mut state, due + PROPAGATION + LEAF_LIFETIME - Duration::days(2)), ["the leaf is due for renewal"]);
    let reasons = settle(&mut state, due + PROPAGATION + LEAF_LIFETIME);
    assert_eq!(reasons, ["no leaf of the old authority can be served any more", "the published bundle differs"]);
    assert!(!state.published.unwrap()[0].contains(&old));
}

#[test]
fn a_leaf_that_is_due_is_renewed_before_the_authority_is() {
    let mut state = installed();
    // The process is off until both are due.
    let due = start() + AUTHORITY_LIFETIME * 2 / 3 + Duration::hours(1);
    settle(&mut state, due - LEAF_LIFETIME * 3 / 4);
    let reasons = settle(&mut state, due);
    assert_eq!(reasons, ["the leaf is due for renewal", "the authority is due for renewal", "the published bundle differs"]);
    // And should it be off again at once, the leaf lasts.
    let later = due + LEAF_LIFETIME - Duration::hours(1);
    assert!(trusted(state.leaf.as_ref().unwrap(), &state.published.as_ref().unwrap()[0], later));
}

#[test]
fn a_cleared_bundle_is_published_again_and_a_missing_configuration_is_waited_for() {
    let mut state = installed();
    state.published.as_mut().unwrap()[1] = String::new();
    assert_eq!(settle(&mut state, start()), ["the published bundle differs"]);
    let mut before = State { control: installed().control, ..State::default() };
    assert_eq!(settle(&mut before, start()), ["there is no usable authority", "there is no usable leaf"]);
    before.published = Some(vec![String::new()]);
    assert_eq!(settle(&mut before, start()), ["the published bundle differs"]);
}

#[test]
fn a_lost_authority_does_not_distrust_the_served_leaf() {
    let mut state = installed();
    let leaf = state.leaf.clone().unwrap();
    state.authorities = None;
    let now = start() + Duration::days(1);
    assert_eq!(settle(&mut state, now), ["there is no usable authority", "the published bundle differs"]);
    assert_eq!(state.leaf.as_ref(), Some(&leaf));
    assert!(trusted(&leaf, &state.published.as_ref().unwrap()[0], now));
    assert_eq!(settle(&mut state, now + PROPAGATION), ["the authority has changed"]);
}

#[test]
fn what_is_stored_and_unusable_is_replaced() {
    let good = installed();
    let other = installed();
    for (what, break_it) in [
        ("a garbled leaf", (|s, _| s.leaf.as_mut().unwrap().cert = "x".into()) as fn(&mut State, &State)),
        ("a garbled key", |s, _| s.leaf.as_mut().unwrap().key = "x".into()),
        ("a key of another leaf", |s, o| s.leaf.as_mut().unwrap().key.clone_from(&o.leaf.as_ref().unwrap().key)),
        ("a leaf of a stranger", |s, o| s.leaf.clone_from(&o.leaf)),
        ("no leaf", |s, _| s.leaf = None),
        ("a garbled authority", |s, _| s.authorities.as_mut().unwrap().current.cert = "x".into()),
        ("a key of another authority", |s, o| s.authorities.as_mut().unwrap().current.key.clone_from(&o.authorities.as_ref().unwrap().current.key)),
    ] {
        let mut state = good.clone();
        break_it(&mut state, &other);
        assert!(!settle(&mut state, start()).is_empty(), "{what}");
        settle(&mut state, start() + PROPAGATION);
        assert!(trusted(state.leaf.as_ref().unwrap(), &state.published.as_ref().unwrap()[0], start() + PROPAGATION), "{what}");
    }
    let mut renamed = good;
    let names = service_names("other", "ns");
    assert!(matches!(plan(&renamed, &names, start()).unwrap().unwrap().step, CertificateStep::Leaf { .. }));
    assert!(settle(&mut renamed, start()).is_empty());
}

#[test]
fn the_key_of_control_messages_is_made_once_outlives_every_rotation_and_stands_beside_every_leaf() {
    let mut state = installed();
    let Some(StoredKey::Good(key)) = state.control.clone() else { panic!("{state:?}") };
    assert_eq!(state.leaf_control, key.public);
    assert_eq!(ControlKey::read(&key.private), Some(key.clone()));
    assert!(!format!("{state:?}").contains(key.private.lines().nth(1).unwrap()), "it is never shown");
    let mut now = start();
    for _ in 0..120 {
        now += Duration::days(4);
        settle(&mut state, now);
        settle(&mut state, now + PROPAGATION);
        assert_eq!((&state.control, &state.leaf_control), (&Some(StoredKey::Good(key.clone())), &key.public));
    }
    // An earlier release knows nothing of it, and writes its leaves without.
    state.leaf_control.clear();
    let leaf = state.leaf.clone();
    assert_eq!(settle(&mut state, now + PROPAGATION), ["the public key of control messages has to stand beside the leaf"]);
    assert_eq!((state.leaf, state.leaf_control.as_str()), (leaf, key.public.as_str()), "the leaf stays");
}

#[test]
fn a_lost_key_of_control_messages_is_made_anew_and_one_that_cannot_be_read_is_left_to_whoever_put_it_there() {
    let mut state = installed();
    let before = state.clone();
    state.control = None;
    assert_eq!(
        settle(&mut state, start()),
        ["there is no key for control messages", "the public key of control messages has to stand beside the leaf"]
    );
    assert!(state.control != before.control && state.leaf_control != before.leaf_control && state.leaf == before.leaf);
    let mut state = State { control: Some(StoredKey::Unreadable), ..before.clone() };
    assert!(settle(&mut state, start()).is_empty());
    let leaf = new_leaf(&before.authorities.unwrap().current, &names(), start()).unwrap();
    for no_key in ["", "x", leaf.key.as_str()] {
        assert_eq!(ControlKey::read(no_key), None, "an ECDSA key is none");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2))]

    /// API servers see a bundle, and webhooks a leaf, up to this many passes late; the process itself may be
    /// off for two days, within the last third of a leaf's life.
    #[test]
    fn the_served_leaf_is_trusted_at_every_moment(gaps in prop::collection::vec(12_i64..50, 180..220), lag in 0_usize..3) {
        let mut state = installed();
        let mut now = start();
        let mut seen = vec![(state.leaf.clone().unwrap(), state.published.clone().unwrap()[0].clone())];
        for gap in gaps {
            // A pass every few minutes at rotations, hours elsewhere: only the order of things matters to a lagging observer.
            now += Duration::hours(gap);
            for _ in 0..4 {
                settle(&mut state, now);
                let this = (state.leaf.clone().unwrap(), state.published.clone().unwrap()[0].clone());
                let before = seen.len().saturating_sub(lag);
                let news = seen[before..].iter().any(|one| *one != this) || seen.last() != Some(&this);
                seen.push(this);
                let newest = seen.len() - 1;
                let late = newest.saturating_sub(lag);
                if news {
                    prop_assert!(trusted(&seen[newest].0, &seen[late].1, now), "a late API server, {now}");
                    prop_assert!(trusted(&seen[late].0, &seen[newest].1, now), "a late webhook, {now}");
                }
                now += Duration::minutes(2);
            }
        }
        prop_assert!(now - start() > Duration::days(200));
    }
}

/// As docs/security.md has it made where somebody brings the key: `openssl genpkey -algorithm ed25519` writes no public key beside the private one, and
/// `openssl pkey -pubout -outform DER | tail -c 32 | base64` gives this one.
#[test]
fn a_key_that_openssl_has_made_is_read_and_has_the_public_key_that_openssl_says() {
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEII/gciBaUGtuvLQlQNoVWOoTR9HmicbesTpqNZWpBn7u\n-----END PRIVATE KEY-----\n";
    let key = ControlKey::read(pem).unwrap();
    assert_eq!(key.public, "mKCPJwYtpQkzPB8gSCua6-YtA6unqnPmm9Y5t4FJgZc");
}
