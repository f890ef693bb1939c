//! What to do next about certificates, and about the key of control messages. In: what is stored, what is published, the time. Out: one step with its content,
//! or nothing. Left to others: carrying it out (`store`); a step leaves no choices.
//!
//! Rotation of the authority never has a moment in which a served leaf is not trusted:
//! 1. at two thirds of its life a new authority takes its place, and the old certificate stays in the bundle;
//! 2. the bundle with both is published, and read back at the next pass;
//! 3. once every API server has had time to see it, the next leaf is signed by the new authority;
//! 4. the old certificate leaves the bundle when no leaf of it can be served any more.
//!
//! The old authority's key is forgotten in step 1: the leaf in use has days left then.
//!
//! The key of control messages is made once, before the first leaf, and never changed: pods that were made with it know no other. Its public half stands beside
//! the leaf, where the webhook reads it.

use crate::issue::{Certificate, ControlKey, IssueError, LEAF_LIFETIME, Pair, new_authority, new_leaf, valid_parts};
use time::{Duration, OffsetDateTime};

/// How long after a new authority its first leaf may be served: API servers watch their webhook configurations, and a lagging one is seconds behind.
pub const PROPAGATION: Duration = Duration::minutes(5);

const LEAF_DUE: &str = "the leaf is due for renewal";
const AUTHORITY_DUE: &str = "the authority is due for renewal";

/// The stored authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    /// Signs leaves.
    pub current: Pair,
    /// Certificates that may still have signed the served leaf, in PEM; often empty.
    pub previous: String,
    /// When `current` was made.
    pub since: OffsetDateTime,
}

impl Authorities {
    /// What API servers should trust.
    #[must_use]
    pub fn bundle(&self) -> String {
        format!("{}{}", self.previous, self.current.cert)
    }
}

/// Everything that is stored, as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// None: there is none, or it cannot be read.
    pub authorities: Option<Authorities>,
    /// None: there is none.
    pub leaf: Option<Pair>,
    /// The bundle that was stored beside the leaf.
    pub leaf_bundle: String,
    /// The key of control messages; None: there is none.
    pub control: Option<StoredKey>,
    /// Its public half, as it is stored beside the leaf.
    pub leaf_control: String,
    /// The bundle of each entry of the webhook configuration; None: there is no configuration.
    pub published: Option<Vec<String>>,
}

/// What is stored as the key of control messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredKey {
    /// A key.
    Good(ControlKey),
    /// Something else, which somebody has put there: it is left as it is.
    Unreadable,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateStep {
    /// Store this key of control messages, where there is none.
    ControlKey(ControlKey),
    /// Store these authorities.
    Authorities(Authorities),
    /// Publish this bundle.
    Publish(String),
    /// Store this leaf beside this bundle.
    Leaf {
        /// The leaf.
        leaf: Pair,
        /// The bundle.
        bundle: String,
        /// The public key of control messages; empty: not known.
        control: String,
    },
}

/// A step and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub step: CertificateStep,
    /// Why.
    pub reason: &'static str,
}

/// The next step, or None when everything is as it should be.
///
/// # Errors
/// When a certificate cannot be made.
pub fn plan(state: &State, names: &[String], now: OffsetDateTime) -> Result<Option<Planned>, IssueError> {
    let did = |step, reason| Ok(Some(Planned { step, reason }));
    // First of all: the webhook is ready with its first leaf, and the first pod shall have the key.
    let control = match &state.control {
        None => return did(CertificateStep::ControlKey(ControlKey::new()?), "there is no key for control messages"),
        Some(StoredKey::Good(key)) => key.public.clone(),
        Some(StoredKey::Unreadable) => state.leaf_control.clone(),
    };
    let usable = state.authorities.as_ref().and_then(|a| Some((a, usable(&a.current, now)?)));
    let rotated = || {
        // Whatever may have signed the served leaf stays trusted.
        let old = state.authorities.as_ref().map_or_else(|| state.leaf_bundle.clone(), Authorities::bundle);
        new_authority(now).map(|current| CertificateStep::Authorities(Authorities { current, previous: valid_parts(&old, now).concat(), since: now }))
    };
    let Some((authorities, authority)) = usable else {
        let reason = if state.authorities.is_none() { "there is no usable authority" } else { AUTHORITY_DUE };
        return did(rotated()?, reason);
    };
    let bundle = authorities.bundle();
    let leaf = state.leaf.as_ref().and_then(|leaf| usable_leaf(leaf, &bundle, names, now));
    let signed = leaf.as_ref().is_some_and(|leaf| authority.signed(leaf));
    let leaf_due = leaf.as_ref().is_some_and(|leaf| leaf.is_due(now));
    let renewed =
        |bundle, reason| did(CertificateStep::Leaf { leaf: new_leaf(&authorities.current, names, now)?, bundle, control: control.clone() }, reason);
    if signed && leaf_due {
        // Before the authority, should both be due: a new one signs only once it is known everywhere. Until then, and should this process be off right after,
        // the leaf has to last.
        return renewed(bundle, LEAF_DUE);
    }
    if authority.is_due(now) {
        return did(rotated()?, AUTHORITY_DUE);
    }
    if state.published.as_ref().is_some_and(|all| all.iter().any(|one| *one != bundle)) {
        return did(CertificateStep::Publish(bundle), "the published bundle differs");
    }
    if leaf.is_none() {
        return renewed(bundle, "there is no usable leaf");
    }
    if let (Some(leaf), true) = (&state.leaf, state.leaf_control != control) {
        let (leaf, bundle) = (leaf.clone(), state.leaf_bundle.clone());
        return did(
            CertificateStep::Leaf { leaf, bundle, control: control.clone() },
            "the public key of control messages has to stand beside the leaf",
        );
    }
    if !signed && now >= authorities.since + PROPAGATION {
        return renewed(bundle, if leaf_due { LEAF_DUE } else { "the authority has changed" });
    }
    if !authorities.previous.is_empty() && signed && now >= authorities.since + PROPAGATION + LEAF_LIFETIME {
        return did(
            CertificateStep::Authorities(Authorities { previous: String::new(), ..authorities.clone() }),
            "no leaf of the old authority can be served any more",
        );
    }
    Ok(None)
}

/// The certificate of a pair that is valid now and whose key is its own.
fn usable(pair: &Pair, now: OffsetDateTime) -> Option<Certificate> {
    Certificate::parse(&pair.cert).ok().filter(|c| c.is_valid(now) && c.has_key(&pair.key))
}

/// A usable leaf that has these names and was signed by someone in the bundle.
fn usable_leaf(leaf: &Pair, bundle: &str, names: &[String], now: OffsetDateTime) -> Option<Certificate> {
    let certificate = usable(leaf, now)?;
    let named = names.iter().all(|name| certificate.names.contains(name));
    let trusted = valid_parts(bundle, now).iter().any(|ca| Certificate::parse(ca).is_ok_and(|ca| ca.signed(&certificate)));
    (named && trusted).then_some(certificate)
}

/// When leaf and authority expire, seconds since the Unix epoch, for the gauges; None where there is none.
#[must_use]
pub fn expiries(state: &State) -> (Option<f64>, Option<f64>) {
    // A time is far below 2^52 seconds.
    let end = |pair: &Pair| Certificate::parse(&pair.cert).ok().map(|c| c.not_after.unix_timestamp() as f64);
    (state.leaf.as_ref().and_then(end), state.authorities.as_ref().and_then(|a| end(&a.current)))
}
