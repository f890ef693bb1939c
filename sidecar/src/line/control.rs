//! The line to the controller: tokens and orders in, reports out. In: the driver's wishes, in a [`Mailbox`]. Out: events for the driver. Left
//! to others: what to wish (`core::drain::worker`), how a broker carries it (`broker`).
//!
//! It never ends: a broker that is down is tried again, with growing pauses. Nothing here queues up: the mailbox holds one wish of each kind.

use crate::gaps::Gaps;
use crate::input::Input;
use crate::line::refusal::Refusals;
use crate::metrics::Metrics;
use qscaler_broker::signing::Seal;
use qscaler_broker::{BrokerError, ControlReceiver, Delivery, Retry};
use qscaler_core::drain::worker::WorkerEvent;
use qscaler_core::message::{ControlKind, GapReason, Report};
use qscaler_runtime::backoff::Backoff;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// One wait for messages. It ends early whenever the driver wishes something; it bounds how long a half-open connection goes unnoticed.
const TAKE_WAIT: Duration = Duration::from_secs(20);
/// An adapter that has not answered by then hangs on a half-open connection.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// What to do with the token that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// It is claimed.
    Ack,
    /// Another pod shall have it.
    GiveBack,
}

#[derive(Default)]
struct Wishes {
    listen: bool,
    settle: Option<Settle>,
    report: Option<Report>,
}

/// What the driver wishes. Setting never waits; a newer report takes the place of one that was not sent yet.
#[derive(Default)]
pub struct Mailbox {
    wishes: Mutex<Wishes>,
    changed: Notify,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take tokens from the shared queue, or stop.
    pub fn listen(&self, shared: bool) {
        self.lock().listen = shared;
        self.changed.notify_one();
    }

    /// Settle the token that is held.
    pub fn settle(&self, settle: Settle) {
        self.lock().settle = Some(settle);
        self.changed.notify_one();
    }

    /// Publish this.
    pub fn report(&self, report: Report) {
        self.lock().report = Some(report);
        self.changed.notify_one();
    }
}

/// The task that keeps the line.
pub struct Control {
    /// Connects when it is first used, and again after any error.
    receiver: Box<dyn ControlReceiver>,
    mailbox: Arc<Mailbox>,
    inputs: mpsc::Sender<Input>,
    metrics: Metrics,
    /// The token that the machine holds: acked or given back when it says so, over whatever connection stands then.
    token: Option<Delivery>,
    gaps: Gaps,
    /// The gap that this task has set.
    gap: Option<GapReason>,
    /// Messages that were not signed by whom they should be.
    refusals: Refusals,
    /// Why the last report was not taken: said once per kind.
    unreported: Option<String>,
    /// How long until it is tried again.
    again: Backoff,
}

enum Broken {
    /// The driver is gone.
    Gone,
    /// The broker is.
    Broker(BrokerError),
}

impl From<BrokerError> for Broken {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl Control {
    /// Not connected yet.
    #[must_use]
    pub fn new(receiver: Box<dyn ControlReceiver>, mailbox: Arc<Mailbox>, inputs: mpsc::Sender<Input>, metrics: Metrics, gaps: Gaps) -> Self {
        let refusals = Refusals::new(gaps.clone());
        Self { receiver, mailbox, inputs, metrics, token: None, gaps, gap: None, refusals, unreported: None, again: Backoff::reconnect() }
    }

    /// Runs until the driver is gone.
    pub async fn run(mut self) {
        let mut backoff = Backoff::reconnect();
        let mut complained: Option<String> = None;
        loop {
            let error = match self.step().await {
                Ok(()) => {
                    if complained.take().is_some() {
                        tracing::info!("control messages: the broker answers again");
                    }
                    self.metrics.broker_up.set(1.0);
                    let narrowed = self.receiver.narrowed().map(str::to_owned);
                    self.gap(narrowed.is_some().then_some(GapReason::BrokerRefuses), narrowed.unwrap_or_default());
                    backoff.reset();
                    continue;
                }
                Err(Broken::Gone) => return,
                Err(Broken::Broker(error)) => error,
            };
            self.metrics.broker_up.set(0.0);
            self.metrics.broker_errors.inc();
            // Once per kind of failure: an outage of hours is one line.
            let text = error.to_string();
            let reason = if error.retry == Retry::AfterChange { GapReason::BrokerRefuses } else { GapReason::BrokerUnreachable };
            self.gap(Some(reason), format!("no control messages: {text}"));
            if complained.as_ref() != Some(&text) {
                let will_heal = error.retry == Retry::Later;
                tracing::warn!(%error, will_heal, "control messages: no connection; the worker goes on, and the pod's end is held all the same");
                complained = Some(text);
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = self.inputs.closed() => return,
            }
        }
    }

    /// Says in what the line is broken, or that it is not any more. A gap that another part has set stays.
    fn gap(&mut self, reason: Option<GapReason>, words: String) {
        if let Some(old) = self.gap.take_if(|old| Some(*old) != reason) {
            self.gaps.clear(old);
        }
        if let Some(reason) = reason {
            self.gaps.set(reason, words);
            self.gap = Some(reason);
        }
    }

    /// Carries out what is wished, then waits for a message or another wish.
    async fn step(&mut self) -> Result<(), Broken> {
        let mailbox = Arc::clone(&self.mailbox);
        let (listen, settle) = {
            let mut wishes = mailbox.lock();
            (wishes.listen, wishes.settle.take())
        };
        if let Some(settle) = settle
            && let Some(token) = self.token.take()
        {
            match settle {
                Settle::Ack => within(self.receiver.ack(token)).await?,
                Settle::GiveBack => {
                    self.metrics.given_back.inc();
                    within(self.receiver.give_back(token)).await?;
                }
            }
        }
        let report = mailbox.lock().report.take();
        if let Some(report) = report {
            match within(self.receiver.report(&report)).await {
                Ok(()) => {
                    self.unreported = None;
                    self.again.reset();
                    self.metrics.reports.inc();
                    tell(&self.inputs, Input::Published(Box::new(report))).await?;
                }
                // It is said a little later, unless a newer one is there by then. Orders go on coming: a report that is refused, or a server that takes no
                // messages for a while, is no broken connection, and where it is one the wait for messages finds it.
                Err(error) => {
                    mailbox.lock().report.get_or_insert(report);
                    self.metrics.broker_errors.inc();
                    let text = error.to_string();
                    if self.unreported.as_ref() != Some(&text) {
                        tracing::warn!(%error, "a report was not taken; it is tried again");
                        self.unreported = Some(text);
                    }
                }
            }
        }
        self.refusals.look();
        let again = if self.unreported.is_some() { self.again.next_delay() } else { TAKE_WAIT };
        tokio::select! {
            biased;
            () = mailbox.changed.notified() => Ok(()),
            () = self.inputs.closed() => Err(Broken::Gone),
            () = tokio::time::sleep(again), if self.unreported.is_some() => Ok(()),
            // One token at a time.
            taken = self.receiver.take(listen && self.token.is_none() && !self.refusals.stands_aside(), TAKE_WAIT) => match taken? {
                Some(delivery) => self.taken(delivery).await,
                None => Ok(()),
            },
        }
    }

    async fn taken(&mut self, delivery: Delivery) -> Result<(), Broken> {
        self.metrics.control_messages.inc();
        if !delivery.seal.is_believed() {
            return self.refuse(delivery).await;
        }
        let message = delivery.message.clone();
        tracing::info!(kind = ?message.kind, epoch = message.epoch.0, "control message");
        let event = match message.kind {
            // One at a time. A second one that names this pod would come back at once, for as long as the first is held: it is a hint that the controller
            // repeats, and is let go.
            ControlKind::SigkillQueue if self.token.is_some() && message.target.is_some() => return Ok(within(self.receiver.ack(delivery)).await?),
            ControlKind::SigkillQueue if self.token.is_some() => return Ok(within(self.receiver.give_back(delivery)).await?),
            ControlKind::SigkillQueue => {
                self.token = Some(delivery);
                WorkerEvent::Token(message)
            }
            // Orders are repeated by the controller until they show: nothing to claim.
            ControlKind::Resume | ControlKind::Release => {
                within(self.receiver.ack(delivery)).await?;
                if message.kind == ControlKind::Resume { WorkerEvent::Resume(message) } else { WorkerEvent::Release(message) }
            }
        };
        tell(&self.inputs, Input::Worker(event)).await
    }

    /// Nothing is done by a message that is not believed. One by a key that this pod does not know may be another pod's: that one shall have it.
    async fn refuse(&mut self, delivery: Delivery) -> Result<(), Broken> {
        self.metrics.refused_messages.inc();
        self.refusals.refused(&delivery);
        let is_anothers = delivery.seal == Seal::UnknownKey && delivery.message.target.is_none();
        if is_anothers {
            within(self.receiver.give_back(delivery)).await?;
        } else {
            within(self.receiver.ack(delivery)).await?;
        }
        Ok(())
    }
}

async fn tell(inputs: &mpsc::Sender<Input>, input: Input) -> Result<(), Broken> {
    inputs.send(input).await.map_err(|_| Broken::Gone)
}

/// An adapter's own time-outs come first; this is for one that has none.
async fn within<T>(operation: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
    let message = format!("no answer within {} s", OPERATION_TIMEOUT.as_secs());
    let late = |_| BrokerError { operation: "waiting", place: "the control broker".to_owned(), message, retry: Retry::Later };
    tokio::time::timeout(OPERATION_TIMEOUT, operation).await.map_err(late)?
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
