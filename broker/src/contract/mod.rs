//! The suite that every adapter passes, the fake and the real ones alike. In: a broker under test, with a way to put raw bytes on it. Out: for
//! each case its name and what went wrong. Left to others: starting servers (the package of tests).
//!
//! A case waits for conditions, never for a time; its deadlines only end a run that hangs.

mod control;
mod faults;
mod figures;
mod reports;
mod signed;

use crate::signing::{PublicKeys, Signer, SigningKey};
use crate::{BrokerError, ControlReceiver, ControlSender, Delivery, QueueQuery, QueueStats, now_ms};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use qscaler_core::framework::Framework;
use qscaler_core::message::{AccessLevel, Busy, ControlKind, ControlMessage, Epoch, PodMs, Report, VERSION, WorkerState};
use qscaler_core::scale::QueueSample;
use qscaler_core::workload::{ControlAddress, WorkloadId};
use std::collections::BTreeMap;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a case says.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Ends a condition that never comes true: a busy machine is allowed to be slow.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How long a receiver listens before nothing counts as nothing. Longer than any adapter needs to see a message that is there.
pub const QUIET: Duration = Duration::from_secs(3);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(100);

/// The three ends of one broker.
pub struct Ends {
    /// Figures.
    pub stats: Arc<dyn QueueStats>,
    /// The controller's end.
    pub control: Arc<dyn ControlSender>,
    /// A sidecar's end.
    pub receiver: Box<dyn ControlReceiver>,
}

/// The signer of every controller's end under test.
#[must_use]
pub fn signer() -> Signer {
    let signer = Signer::default();
    // 32 bytes are always a seed.
    let _ = SigningKey::from_seed(&[7; 32]).map(|key| signer.set(key));
    signer
}

/// Its key, which every sidecar's end under test was given.
#[must_use]
pub fn keys() -> Option<Arc<PublicKeys>> {
    Some(Arc::new(PublicKeys::read(&signer().public().unwrap_or_default())))
}

/// One broker, and what a test may do to it.
#[async_trait]
pub trait UnderTest: Send + Sync {
    /// New ends, with [`signer`] and [`keys`]; each call gives connections of their own.
    fn ends(&self, address: &ControlAddress, pod_uid: &str) -> Result<Ends, BrokerError>;
    /// Ends at a place where no server is.
    fn ends_nowhere(&self, address: &ControlAddress) -> Result<Ends, BrokerError>;
    /// Ends with a password that the server refuses.
    fn ends_refused(&self, address: &ControlAddress) -> Result<Ends, BrokerError>;
    /// The passwords of all these URLs: no error may show one.
    fn secrets(&self) -> Vec<String>;
    /// The framework whose tasks the next functions put.
    fn framework(&self) -> &'static Framework;
    /// Puts tasks on a queue as a client of the framework does.
    async fn put_tasks(&self, queue: &str, count: u64) -> Outcome;
    /// Takes a task and holds it unacknowledged until the test ends.
    async fn hold_task(&self, queue: &str) -> Outcome;
    /// Puts bytes on the workload's control queue.
    async fn put_control(&self, address: &ControlAddress, body: &[u8]) -> Outcome;
    /// Puts bytes on the workload's report queue.
    async fn put_report(&self, address: &ControlAddress, body: &[u8]) -> Outcome;
    /// Ends the server and starts it again.
    async fn restart(&self) -> Outcome;
}

type Case = for<'a> fn(&'a dyn UnderTest) -> BoxFuture<'a, Outcome>;

macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        &[$((stringify!($case), (|broker| $module::$case(broker).boxed()) as Case)),*]
    };
}

/// Cases that run side by side: each has its own workload and queues.
const CASES: &[(&str, Case)] = cases![
    figures::a_queue_that_does_not_exist_is_empty,
    figures::the_depth_follows_what_a_client_publishes,
    figures::tasks_in_work_are_told_apart_from_waiting_ones,
    figures::counters_follow_what_a_client_publishes,
    figures::many_queues_are_measured_in_the_order_asked,
    control::a_shared_message_reaches_exactly_one_of_several,
    control::only_a_receiver_that_listens_gets_a_shared_message,
    control::a_receiver_that_stopped_listening_hands_on_what_came_late,
    control::a_directed_message_reaches_its_pod_alone,
    control::namesakes_with_other_uids_take_nothing_of_one_another,
    control::an_acknowledged_message_never_comes_again,
    control::a_message_given_back_reaches_another,
    control::a_message_of_a_dead_receiver_reaches_another,
    control::a_restarted_sidecar_gets_its_message_again,
    control::an_expired_message_reaches_nobody,
    control::purged_messages_reach_nobody,
    control::a_workload_removed_and_declared_again_is_empty,
    control::a_take_that_is_cut_off_loses_nothing,
    control::a_malformed_message_is_dropped_and_counted,
    control::a_message_that_is_too_long_is_dropped_by_whoever_meets_it_and_hides_no_other,
    signed::a_signature_survives_the_way_and_being_given_back,
    signed::what_the_controller_did_not_sign_is_told_apart,
    reports::reports_come_in_order_and_no_more_than_asked_for,
    reports::a_malformed_report_is_dropped_and_counted,
    reports::a_report_that_is_too_long_is_dropped_and_hides_no_other,
    reports::a_reading_of_reports_that_is_cut_off_loses_nothing,
    faults::an_unreachable_server_is_an_error_to_retry_later,
    faults::a_wrong_password_is_an_error_until_changed,
];

/// Runs every case, those that disturb others last. Panics count as failures.
///
/// # Errors
/// The names of the cases that failed, each with its reason.
pub async fn run(broker: &dyn UnderTest) -> Result<(), String> {
    let one = async |(name, case): &(&str, Case)| {
        let outcome = AssertUnwindSafe(case(broker)).catch_unwind().await;
        match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{name}: {error}")),
            Err(_) => Some(format!("{name}: panicked, see above")),
        }
    };
    let mut failed: Vec<String> = join_all(CASES.iter().map(one)).await.into_iter().flatten().collect();
    let last: &[(&str, Case)] = cases![faults::everything_goes_on_after_the_server_restarts];
    for case in last {
        failed.extend(one(case).await);
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("{} of {} cases failed:\n{}", failed.len(), CASES.len() + last.len(), failed.join("\n"))) }
}

/// An address of the case's own.
fn address(case: &str) -> ControlAddress {
    ControlAddress::new(&WorkloadId { namespace: "contract".to_owned(), name: case.replace('_', "-") }, &"w".into())
}

fn order(epoch: u64) -> ControlMessage {
    let now = now_ms();
    ControlMessage {
        version: VERSION,
        kind: ControlKind::SigkillQueue,
        workload_uid: "w".into(),
        epoch: Epoch(epoch),
        issued_ms: now,
        expires_ms: now + 600_000,
        lease_ms: 60_000,
        target: None,
    }
}

fn report(address: &ControlAddress, pod_uid: &str, sequence: u64) -> Report {
    Report {
        version: VERSION,
        workload: address.workload.clone(),
        workload_uid: "w".into(),
        pod_uid: pod_uid.to_owned(),
        pod_name: format!("pod-{pod_uid}"),
        sequence,
        started_ms: PodMs(1),
        at_ms: PodMs(now_ms()),
        state: WorkerState::Open,
        epoch: Epoch(0),
        busy: Busy::Idle,
        busy_since_ms: PodMs(1),
        active_tasks: None,
        processed_total: None,
        service: None,
        peaks: BTreeMap::new(),
        template_hash: String::new(),
        access: AccessLevel::Full,
        worker_ids: None,
        cuts: 0,
        cut: None,
        last: false,
        gaps: Vec::new(),
        control_keys: Vec::new(),
        scheduler: None,
    }
}

/// Fails with a message unless the condition holds.
fn check(holds: bool, message: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(message().into()) }
}

/// Takes until a message comes.
async fn take(receiver: &mut dyn ControlReceiver, shared: bool) -> Result<Delivery, Box<dyn Error + Send + Sync>> {
    let begin = Instant::now();
    while begin.elapsed() < DEADLINE {
        if let Some(delivery) = receiver.take(shared, POLL).await? {
            return Ok(delivery);
        }
    }
    Err("no message came".into())
}

/// Takes for [`QUIET`], which must bring nothing.
async fn take_nothing(receiver: &mut dyn ControlReceiver, shared: bool) -> Outcome {
    match receiver.take(shared, QUIET).await? {
        None => Ok(()),
        Some(delivery) => Err(format!("a message came that should not: {delivery:?}").into()),
    }
}

async fn sample(stats: &dyn QueueStats, broker: &dyn UnderTest, queue: &str) -> Result<QueueSample, BrokerError> {
    let mut samples = stats.sample(&[QueueQuery::new(queue, broker.framework())]).await?;
    Ok(samples.pop().unwrap_or_default())
}

/// Samples until the figures are as they should be.
async fn sample_until(
    stats: &dyn QueueStats,
    broker: &dyn UnderTest,
    queue: &str,
    good: impl Fn(&QueueSample) -> bool + Send,
) -> Result<QueueSample, Box<dyn Error + Send + Sync>> {
    let begin = Instant::now();
    loop {
        let seen = sample(stats, broker, queue).await?;
        if good(&seen) {
            return Ok(seen);
        }
        if begin.elapsed() > DEADLINE {
            return Err(format!("the figures stay at {seen:?}").into());
        }
        tokio::time::sleep(POLL).await;
    }
}
