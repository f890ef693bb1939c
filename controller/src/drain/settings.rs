//! The user's configuration -> the settings of the drain. In: a checked configuration. Out: settings. Left to others: using them.

use qscaler_core::config::{Paused, Scaling, WorkerConfig};
use qscaler_core::drain::fleet::FleetSettings;

/// How long a drain token lives, milliseconds: long enough for a busy fleet to get to it, short enough that a forgotten one harms nobody.
pub const TOKEN_TTL_MS: u64 = 60_000;
/// How long a parked worker waits for its end before it goes back to work, milliseconds: several times what a wave takes.
const LEASE_MS: u64 = 120_000;
/// Longest wait for the ReplicaSet's echo, milliseconds; only efficiency hangs on it.
const ECHO_TIMEOUT_MS: u64 = 10_000;
/// How long a wave waits for more parked pods, milliseconds.
const GATHER_MS: u64 = 2_000;

/// The drain's settings; without a configuration nothing is scaled anyway.
#[must_use]
pub fn fleet_settings(uid: &str, config: Option<&WorkerConfig>) -> FleetSettings {
    let paused = config.map(|c| c.paused).unwrap_or_default();
    FleetSettings {
        workload_uid: uid.to_owned(),
        // A pause of raising is also one of raising to the minimum.
        min_replicas: if matches!(paused, Paused::All | Paused::ScaleUp) { 0 } else { config.map_or(0, |c| c.min_replicas) },
        max_replicas: config.map_or(u32::MAX, |c| c.max_replicas),
        token_ttl_ms: TOKEN_TTL_MS,
        lease_ms: LEASE_MS,
        echo_timeout_ms: ECHO_TIMEOUT_MS,
        gather_ms: GATHER_MS,
        paused_down: matches!(paused, Paused::All | Paused::ScaleDown),
        protect: config.is_some_and(|c| c.scaling == Scaling::Protect),
    }
}
