//! The line to the controller, against a scripted broker.

use super::*;
use crate::config::Settings;
use crate::config::tests::good;
use crate::line::report::Reporter;
use crate::peaks::SharedSampler;
use crate::worker::procs::ProcFs;
use async_trait::async_trait;
use qscaler_broker::DeliveryHandle;
use qscaler_broker::signing::Seal;
use qscaler_core::drain::worker::{WorkerMachine, WorkerSettings};
use qscaler_core::message::{ControlMessage, Epoch};

/// What a scripted broker has been asked.
#[derive(Debug, PartialEq)]
enum Asked {
    Take(bool),
    Ack(u64),
    GiveBack(u64),
    Report(u64),
}

/// Gives out what the test puts into `messages`, and fails as often as it says.
struct Scripted {
    asked: mpsc::UnboundedSender<Asked>,
    messages: mpsc::UnboundedReceiver<Delivery>,
    failures: usize,
    /// How the next takes fail.
    takes_fail: Vec<Retry>,
}

fn failure(retry: Retry) -> BrokerError {
    BrokerError { operation: "test", place: "nowhere".to_owned(), message: "scripted".to_owned(), retry }
}

fn number(delivery: &Delivery) -> u64 {
    match delivery.handle {
        DeliveryHandle::Memory(n) => n,
        _ => 0,
    }
}

#[async_trait]
impl ControlReceiver for Scripted {
    async fn take(&mut self, shared: bool, _wait: Duration) -> Result<Option<Delivery>, BrokerError> {
        self.asked.send(Asked::Take(shared)).unwrap();
        if let Some(retry) = self.takes_fail.pop() {
            return Err(failure(retry));
        }
        Ok(self.messages.recv().await)
    }
    async fn ack(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        self.asked.send(Asked::Ack(number(&delivery))).unwrap();
        Ok(())
    }
    async fn give_back(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        self.asked.send(Asked::GiveBack(number(&delivery))).unwrap();
        Ok(())
    }
    async fn report(&mut self, report: &Report) -> Result<(), BrokerError> {
        if self.failures > 0 {
            self.failures -= 1;
            return Err(failure(Retry::Later));
        }
        self.asked.send(Asked::Report(report.sequence)).unwrap();
        Ok(())
    }
    fn malformed(&self) -> u64 {
        0
    }
}

struct Line {
    mailbox: Arc<Mailbox>,
    inputs: mpsc::Receiver<Input>,
    asked: mpsc::UnboundedReceiver<Asked>,
    messages: mpsc::UnboundedSender<Delivery>,
    reporter: Reporter,
    gaps: crate::gaps::Gaps,
    metrics: Metrics,
}

impl Line {
    fn start(failures: usize) -> Self {
        Self::start_with(failures, Vec::new())
    }

    fn start_with(failures: usize, takes_fail: Vec<Retry>) -> Self {
        let (asked_in, asked) = mpsc::unbounded_channel();
        let (messages, messages_out) = mpsc::unbounded_channel();
        let (sender, inputs) = mpsc::channel(8);
        let mailbox = Arc::new(Mailbox::default());
        let scripted = Scripted { asked: asked_in, messages: messages_out, failures, takes_fail };
        let (gaps, metrics) = (crate::gaps::Gaps::default(), Metrics::default());
        tokio::spawn(Control::new(Box::new(scripted), Arc::clone(&mailbox), sender, metrics.clone(), gaps.clone()).run());
        let procs = ProcFs::at("/proc");
        let sampler = SharedSampler::new(procs.clone(), 1, "x");
        let reporter = Reporter::new(Settings::read(&good()), procs, sampler, gaps.clone(), 0);
        Self { mailbox, inputs, asked, messages, reporter, gaps, metrics }
    }

    fn report(&mut self) -> Report {
        let settings = WorkerSettings {
            pod_uid: String::new(),
            workload_uid: Default::default(),
            signals: Vec::new(),
            has_gate: false,
            kill_behind_gate: false,
            max_task_duration_ms: 1,
            deadline_policy: qscaler_core::config::DeadlinePolicy::Wait,
            patience_ms: 1,
            give_back_ms: 1,
        };
        self.reporter.build(&WorkerMachine::new(settings, 0), None, false, 0)
    }

    fn message(&self, kind: ControlKind, n: u64) {
        self.directed(kind, n, None);
    }

    fn directed(&self, kind: ControlKind, n: u64, target: Option<String>) {
        let message =
            ControlMessage { version: 1, kind, workload_uid: "w".into(), epoch: Epoch(n), issued_ms: 0, expires_ms: u64::MAX, lease_ms: 1, target };
        self.send(message, Seal::Unchecked);
    }

    fn sealed(&self, kind: ControlKind, n: u64, target: Option<&str>, seal: Seal) {
        let target = target.map(str::to_owned);
        self.send(
            ControlMessage { version: 1, kind, workload_uid: "w".into(), epoch: Epoch(n), issued_ms: 0, expires_ms: u64::MAX, lease_ms: 1, target },
            seal,
        );
    }

    fn send(&self, message: ControlMessage, seal: Seal) {
        let handle = DeliveryHandle::Memory(message.epoch.0);
        self.messages.send(Delivery { message, seal, handle }).unwrap();
    }

    /// Waits until the broker is asked this, passing over takes of the other kind.
    async fn asked(&mut self, expected: Asked) {
        loop {
            let asked = self.asked.recv().await.unwrap();
            if asked == expected {
                return;
            }
            assert!(matches!(asked, Asked::Take(_)), "{asked:?} instead of {expected:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_held_until_the_machine_says_what_to_do_with_it() {
    let mut line = Line::start(0);
    line.mailbox.listen(true);
    line.asked(Asked::Take(true)).await;
    line.message(ControlKind::SigkillQueue, 1);
    assert!(matches!(line.inputs.recv().await, Some(Input::Worker(WorkerEvent::Token(m))) if m.epoch == Epoch(1)));
    line.asked(Asked::Take(false)).await;
    line.mailbox.settle(Settle::GiveBack);
    line.asked(Asked::GiveBack(1)).await;
    line.asked(Asked::Take(true)).await;
}

#[tokio::test(start_paused = true)]
async fn orders_are_acked_at_once_and_reach_the_machine() {
    let mut line = Line::start(0);
    line.message(ControlKind::Resume, 4);
    line.asked(Asked::Ack(4)).await;
    assert!(matches!(line.inputs.recv().await, Some(Input::Worker(WorkerEvent::Resume(_)))));
    line.message(ControlKind::Release, 5);
    line.asked(Asked::Ack(5)).await;
    assert!(matches!(line.inputs.recv().await, Some(Input::Worker(WorkerEvent::Release(order))) if order.epoch == Epoch(5)));
}

#[tokio::test(start_paused = true)]
async fn a_second_token_goes_back_while_one_is_held() {
    let mut line = Line::start(0);
    line.message(ControlKind::SigkillQueue, 1);
    line.message(ControlKind::SigkillQueue, 2);
    line.asked(Asked::GiveBack(2)).await;
    line.mailbox.settle(Settle::Ack);
    line.asked(Asked::Ack(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_token_that_names_this_pod_does_not_come_back_for_ever_while_one_is_held() {
    let mut line = Line::start(0);
    line.message(ControlKind::SigkillQueue, 1);
    line.directed(ControlKind::SigkillQueue, 2, Some("p-uid".to_owned()));
    line.asked(Asked::Ack(2)).await;
    line.mailbox.settle(Settle::Ack);
    line.asked(Asked::Ack(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_survives_a_broken_connection_and_is_replaced_by_a_newer_one() {
    let mut line = Line::start(3);
    let (first, second) = (line.report(), line.report());
    line.mailbox.report(first);
    line.asked(Asked::Report(1)).await;
    assert!(matches!(line.inputs.recv().await, Some(Input::Published(report)) if report.sequence == 1));
    line.mailbox.report(second.clone());
    line.mailbox.report(Report { sequence: 9, ..second });
    line.asked(Asked::Report(9)).await;
}

#[tokio::test(start_paused = true)]
async fn orders_come_though_no_report_is_taken() {
    let mut line = Line::start(usize::MAX);
    let report = line.report();
    line.mailbox.report(report);
    line.message(ControlKind::Resume, 1);
    line.asked(Asked::Ack(1)).await;
    assert!(matches!(line.inputs.recv().await, Some(Input::Worker(WorkerEvent::Resume(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_refuses_or_is_away_is_a_gap_until_it_answers() {
    for (retry, reason) in [(Retry::AfterChange, GapReason::BrokerRefuses), (Retry::Later, GapReason::BrokerUnreachable)] {
        let mut line = Line::start_with(0, vec![retry; 2]);
        while line.gaps.list().first().map(|gap| gap.reason) != Some(reason) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(line.gaps.list()[0].detail.contains("scripted"));
        line.message(ControlKind::Resume, 1);
        line.asked(Asked::Ack(1)).await;
        while !line.gaps.list().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_forged_order_or_token_is_dropped_counted_and_said_and_one_that_is_signed_is_believed() {
    let mut line = Line::start(0);
    line.mailbox.listen(true);
    let mut n = 0;
    for seal in [Seal::Missing, Seal::Forged, Seal::UnknownKey] {
        for kind in [ControlKind::Release, ControlKind::Resume, ControlKind::SigkillQueue] {
            n += 1;
            line.sealed(kind, n, Some("p-uid"), seal);
            line.asked(Asked::Ack(n)).await;
        }
    }
    let gaps = line.gaps.list();
    assert!(gaps[0].reason == GapReason::MessagesRefused && gaps[0].detail.contains("a key that this pod was not given"), "{gaps:?}");
    assert!(line.inputs.try_recv().is_err(), "the machine has heard nothing");
    line.sealed(ControlKind::Release, 99, Some("p-uid"), Seal::Good);
    assert!(matches!(line.inputs.recv().await, Some(Input::Worker(WorkerEvent::Release(order))) if order.epoch == Epoch(99)));
    assert!(line.metrics.render().contains("qscaler_sidecar_refused_messages_total 9\n"), "{}", line.metrics.render());
    // It is not said for ever.
    while !line.gaps.list().is_empty() {
        tokio::time::sleep(Duration::from_secs(30)).await;
        line.sealed(ControlKind::Resume, 100, None, Seal::Good);
        line.inputs.recv().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_by_a_key_that_this_pod_does_not_know_is_left_to_others_for_a_while() {
    let mut line = Line::start(0);
    line.mailbox.listen(true);
    line.asked(Asked::Take(true)).await;
    line.sealed(ControlKind::SigkillQueue, 1, None, Seal::UnknownKey);
    line.asked(Asked::GiveBack(1)).await;
    // An order to this pod is heard meanwhile.
    assert_eq!(line.asked.recv().await, Some(Asked::Take(false)));
    line.sealed(ControlKind::Resume, 2, Some("p-uid"), Seal::Good);
    line.asked(Asked::Ack(2)).await;
    tokio::time::sleep(Duration::from_secs(21)).await;
    line.sealed(ControlKind::Resume, 3, Some("p-uid"), Seal::Good);
    line.asked(Asked::Ack(3)).await;
    line.asked(Asked::Take(true)).await;
    // What is not signed at all is nobody's: it is dropped, and does not go round.
    line.sealed(ControlKind::SigkillQueue, 4, None, Seal::Missing);
    line.asked(Asked::Ack(4)).await;
}

#[tokio::test(start_paused = true)]
async fn the_line_ends_with_the_driver() {
    let mut line = Line::start(0);
    line.asked(Asked::Take(false)).await;
    drop(line.inputs);
    while line.asked.recv().await.is_some() {}
}
