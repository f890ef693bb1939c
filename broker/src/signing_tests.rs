//! What a forger can and cannot do with a control message on its way: a test for each sentence of SECURITY.md about it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use qscaler_core::message::{ControlKind, Epoch, VERSION};

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32]).unwrap()
}

fn signer(n: u8) -> Signer {
    let signer = Signer::default();
    signer.set(key(n));
    signer
}

fn keys(of: &[u8]) -> PublicKeys {
    PublicKeys::read(&of.iter().map(|n| key(*n).public().to_owned()).collect::<Vec<_>>().join(","))
}

fn release() -> ControlMessage {
    ControlMessage {
        version: VERSION,
        kind: ControlKind::Release,
        workload_uid: "w".into(),
        epoch: Epoch(0),
        issued_ms: 1,
        expires_ms: 60_000,
        lease_ms: 0,
        target: Some("pod".to_owned()),
    }
}

#[test]
fn a_message_that_the_controller_signed_is_believed_and_an_unsigned_one_is_not() {
    for kind in [ControlKind::SigkillQueue, ControlKind::Resume, ControlKind::Release] {
        let message = ControlMessage { kind, ..release() };
        assert_eq!(open(&signer(1).seal(&message), Some(&keys(&[1]))).unwrap(), (message.clone(), Seal::Good));
        assert_eq!(open(&message.encode(), Some(&keys(&[1]))).unwrap(), (message, Seal::Missing));
    }
    assert!(!Seal::Missing.is_believed() && !Seal::Forged.is_believed() && !Seal::UnknownKey.is_believed());
}

#[test]
fn a_message_in_which_any_byte_was_changed_is_not_believed() {
    let (sealed, keys) = (signer(1).seal(&release()), keys(&[1]));
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_ne!(keys.check(&changed), Seal::Good, "byte {at}: {}", String::from_utf8_lossy(&changed));
    }
    let text = String::from_utf8(sealed).unwrap();
    for (from, to) in [("\"pod\"", "\"dop\""), ("RELEASE", "RESUME"), ("60000", "99999"), ("{\"version\":1", "{\"version\":1,\"x\":1")] {
        let changed = text.replace(from, to);
        assert!(changed != text && keys.check(changed.as_bytes()) == Seal::Forged, "{from}");
    }
}

#[test]
fn the_signature_of_one_message_is_none_of_another() {
    let keys = keys(&[1]);
    let good = signer(1).seal(&release());
    let member = &good[good.len() - MEMBER_BYTES..];
    for other in [
        ControlMessage { workload_uid: "another".into(), ..release() },
        ControlMessage { target: Some("another".to_owned()), ..release() },
        ControlMessage { target: None, ..release() },
        ControlMessage { epoch: Epoch(1), ..release() },
        ControlMessage { lease_ms: 1, ..release() },
        ControlMessage { expires_ms: 120_000, ..release() },
    ] {
        let mut forged = other.encode();
        forged.pop();
        forged.extend_from_slice(member);
        assert_eq!(open(&forged, Some(&keys)).unwrap(), (other, Seal::Forged));
    }
}

#[test]
fn a_second_member_of_the_same_name_is_no_way_around() {
    let (keys, good) = (keys(&[1]), signer(1).seal(&release()));
    let mut twice = good.clone();
    twice.splice(1..1, br#""kind":"RESUME","#.iter().copied());
    assert_eq!(keys.check(&twice), Seal::Forged);
    let mut behind = good.clone();
    behind.splice(good.len() - 1.., br#","kind":"RESUME"}"#.iter().copied());
    assert_eq!(keys.check(&behind), Seal::Missing);
    let mut padded = good;
    padded.push(b' ');
    assert_eq!(keys.check(&padded), Seal::Missing);
}

#[test]
fn a_key_that_the_pod_was_not_given_is_told_apart_from_a_forgery() {
    assert_eq!(keys(&[1]).check(&signer(2).seal(&release())), Seal::UnknownKey);
    // Whoever copies the name of the right key has not got the key.
    let text = String::from_utf8(signer(2).seal(&release())).unwrap();
    let renamed = text.replace(control_key::name(key(2).public()), control_key::name(key(1).public()));
    assert_eq!(keys(&[1]).check(renamed.as_bytes()), Seal::Forged);
}

#[test]
fn a_pod_that_was_given_several_keys_believes_each_of_them() {
    for n in [1, 2] {
        assert_eq!(keys(&[1, 2]).check(&signer(n).seal(&release())), Seal::Good);
    }
    assert_eq!(keys(&[1, 2]).names(), [control_key::name(key(1).public()), control_key::name(key(2).public())]);
}

#[test]
fn a_pod_without_a_key_believes_every_message_and_one_with_unreadable_keys_none() {
    for bytes in [release().encode(), signer(1).seal(&release()), signer(2).seal(&release())] {
        assert_eq!(open(&bytes, None).unwrap().1, Seal::Unchecked);
        assert!(!PublicKeys::read("nonsense").check(&bytes).is_believed());
    }
    assert_eq!(PublicKeys::read("nonsense").names(), ["????????"], "a report does not say that it has none");
    assert!(Seal::Unchecked.is_believed());
}

#[test]
fn readers_of_older_releases_read_a_signed_message_as_one_without_a_signature() {
    assert_eq!(ControlMessage::decode(&signer(1).seal(&release())).unwrap(), release());
}

#[test]
fn a_field_of_a_later_release_is_signed_with_the_rest() {
    let mut later = release().encode();
    later.splice(1..1, br#""colour":"blue","#.iter().copied());
    let sealed = key(1).seal(later);
    assert_eq!(open(&sealed, Some(&keys(&[1]))).unwrap(), (release(), Seal::Good));
}

#[test]
fn what_is_too_long_is_refused_before_anything_is_made_of_it() {
    let mut long = signer(1).seal(&release());
    long.splice(1..1, std::iter::repeat_n(b' ', MESSAGE_BYTES_MAX));
    assert!(matches!(open(&long, Some(&keys(&[1]))), Err(MessageError::TooLong(_))));
    assert!(signer(1).seal(&release()).len() < MESSAGE_BYTES_MAX / 2);
}

#[test]
fn without_a_key_messages_go_out_as_they_did() {
    let signer = Signer::default();
    assert_eq!((signer.seal(&release()), signer.public()), (release().encode(), None));
    signer.set(key(1));
    assert_eq!(signer.public().as_deref(), Some(key(1).public()));
}

/// `openssl genpkey -algorithm ed25519`, and `openssl pkey -pubout -outform DER | tail -c 32 | base64` of it; made for this test.
#[test]
fn a_key_that_openssl_made_is_read_and_no_key_is_ever_shown() {
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIH3QVhfRG7bTuhv/FPfhIw7hgi4a/TJmd3W3xTqmmWkg\n-----END PRIVATE KEY-----\n";
    let made = SigningKey::from_pem(pem.as_bytes()).unwrap();
    assert_eq!(Some(made.public()), control_key::read("phURN/GRdOXF/eTUnHJODXdlrhZ4aA4E3dxIKgEjn2I=").as_deref());
    assert!(!format!("{made:?}").contains("MC4CAQAwBQYDK2VwBCIEIH3QVhfRG7bTuhv/FPfhIw7hgi4a/TJmd3W3xTqmmWkg"));
    assert!(matches!(SigningKey::from_pem(b"nonsense"), Err(KeyError::Pem)));
    let other = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(SigningKey::from_pem(other.as_bytes()), Err(KeyError::Kind)));
}
