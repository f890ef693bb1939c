//! A sidecar's end of the control channel on Redis. In: the pod's own stream, and the workload's shared one while the caller wants it. Out: one
//! message at a time, acknowledged or given back by the caller, and reports. Left to others: what a message does.
//!
//! Both streams are read by one blocking XREADGROUP in a task of its own, on a connection of its own. The task outlives a `take` that is cut off:
//! the next one finds its result. Whatever is lost on the way (a connection, this process) is pending under this pod's name, and read again from
//! there; if the pod is gone for good, another sidecar claims it after [`ReceiverOptions::reclaim_after`].

use super::{RESPONSE_TIMEOUT, RedisLink, keys, oversized};
use crate::signing;
use crate::{BrokerError, ControlReceiver, Delivery, DeliveryHandle, ReceiverOptions, Retry, now_ms};
use async_trait::async_trait;
use keys::Entry;
use qscaler_broker_url::RedisUrl;
use qscaler_core::message::{MESSAGE_BYTES_MAX, Report};
use qscaler_core::workload::ControlAddress;
use redis::{Cmd, RedisError, Value, cmd, pipe};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// Longest time that one blocking read lasts: so long may a change from shared to not shared, or back, go unnoticed by a read that is under way.
const BLOCK: Duration = Duration::from_millis(1000);
/// The blocking connection answers at the latest after `BLOCK`; the rest is the usual allowance.
const BLOCK_RESPONSE_TIMEOUT: Duration = BLOCK.saturating_add(RESPONSE_TIMEOUT);
/// How many pending entries of this pod are read at once after a new connection; a pod has one or two.
const PENDING_MAX: usize = 64;
/// Entries waited for in the least: Redis takes 0 as "for ever".
const COUNT: usize = 1;

const REPORTING: &str = "sending a report";

/// See the module.
#[derive(Debug)]
pub(crate) struct RedisReceiver {
    commands: RedisLink,
    blocking: Arc<RedisLink>,
    shared_key: String,
    pod_key: String,
    report_key: String,
    /// The workload's name without a UID, where older releases were; None: that is where this one is, too.
    by_name: Option<ControlAddress>,
    /// What is to be said of the rights, where they are those of an older release.
    narrowed: Option<String>,
    pod_uid: String,
    options: ReceiverOptions,
    /// The blocking read under way, and whether it reads the shared stream too.
    reading: Option<(bool, JoinHandle<Result<Value, BrokerError>>)>,
    /// Entries read and not returned yet; they are pending in Redis.
    buffer: VecDeque<Entry>,
    /// Ids returned and not acknowledged yet, with their keys: not to be returned again from the pending list.
    outstanding: HashSet<(String, String)>,
    /// When groups, pending entries and other sidecars' leftovers were last looked after. None: not on this connection.
    tended: Option<Instant>,
    malformed: u64,
}

impl RedisReceiver {
    pub(crate) fn new(url: RedisUrl, address: &ControlAddress, pod_uid: &str, options: ReceiverOptions) -> Self {
        Self {
            commands: RedisLink::bounded(url.clone(), RESPONSE_TIMEOUT, MESSAGE_BYTES_MAX as u64),
            blocking: Arc::new(RedisLink::bounded(url, BLOCK_RESPONSE_TIMEOUT, MESSAGE_BYTES_MAX as u64)),
            shared_key: keys::control(address),
            pod_key: keys::pod(address, pod_uid),
            report_key: keys::reports(address),
            by_name: address.uid.is_some().then(|| address.without_uid()),
            narrowed: None,
            pod_uid: pod_uid.to_owned(),
            options,
            reading: None,
            buffer: VecDeque::new(),
            outstanding: HashSet::new(),
            tended: None,
            malformed: 0,
        }
    }

    fn read(&self, count: usize, block: Option<Duration>, shared: bool, from: &str) -> Cmd {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(keys::SIDECARS).arg(&self.pod_uid).arg("COUNT").arg(count);
        if let Some(block) = block {
            command.arg("BLOCK").arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        command.arg("STREAMS").arg(&self.pod_key);
        if shared {
            command.arg(&self.shared_key);
        }
        command.arg(from);
        if shared {
            command.arg(from);
        }
        command
    }

    /// Groups made, the pod's stream kept alive, entries that are pending under this pod's name read again, and, while shared, one that a dead
    /// sidecar left behind claimed.
    async fn tend(&mut self, shared: bool) -> Result<(), BrokerError> {
        const OPERATION: &str = "preparing to read control messages";
        let mut pipeline = pipe();
        pipeline.add_command(keys::create_group(&self.pod_key, keys::SIDECARS)).add_command(keys::create_group(&self.shared_key, keys::SIDECARS));
        pipeline.add_command(keys::expire(&self.pod_key, keys::POD_STREAM_TTL_MS));
        pipeline.add_command(keys::expire(&self.shared_key, keys::STREAM_TTL_MS));
        pipeline.add_command(self.read(PENDING_MAX, None, true, "0"));
        if shared {
            let idle_ms = u64::try_from(self.options.reclaim_after.as_millis()).unwrap_or(u64::MAX);
            pipeline.cmd("XAUTOCLAIM").arg(&self.shared_key).arg(keys::SIDECARS).arg(&self.pod_uid).arg(idle_ms).arg("0").arg("COUNT").arg(COUNT);
        }
        let answers = self.commands.run(OPERATION, &mut pipeline).await?;
        for answer in answers.iter().take(2) {
            keys::group_exists(answer).map_err(|error| self.commands.error(OPERATION, &error))?;
        }
        let mut found = Vec::new();
        for (index, answer) in answers.iter().enumerate().skip(2) {
            match (index, answer) {
                (_, Value::ServerError(error)) => return Err(self.commands.error(OPERATION, &error.clone().into())),
                (4, answer) => found.extend(keys::read_entries(answer)),
                (5, answer) => found.extend(keys::claimed_entries(&self.shared_key, answer)),
                _ => {}
            }
        }
        for entry in found {
            self.keep(entry);
        }
        self.tended = Some(Instant::now());
        Ok(())
    }

    fn keep(&mut self, entry: Entry) {
        let known =
            self.outstanding.contains(&(entry.key.clone(), entry.id.clone())) || self.buffer.iter().any(|b| b.key == entry.key && b.id == entry.id);
        if !known {
            self.buffer.push_back(entry);
        }
    }

    /// The next good entry of the buffer. Dead and malformed ones are acknowledged; shared ones are given back when they are not wanted.
    async fn next_buffered(&mut self, shared: bool) -> Result<Option<Delivery>, BrokerError> {
        const OPERATION: &str = "reading control messages";
        loop {
            // The pod's own come first, whatever their place.
            let place = self.buffer.iter().position(|entry| entry.key == self.pod_key).or(if self.buffer.is_empty() { None } else { Some(0) });
            let Some(entry) = place.and_then(|place| self.buffer.get(place)).cloned() else { return Ok(None) };
            let decoded = entry.json.as_deref().map(|json| signing::open(json, self.options.keys.as_deref()));
            let mut pipeline = pipe();
            match decoded {
                Some(Ok((message, seal))) if message.expires_ms > now_ms() => {
                    if shared || entry.key == self.pod_key {
                        self.forget(&entry);
                        self.outstanding.insert((entry.key.clone(), entry.id.clone()));
                        let handle = DeliveryHandle::Redis { key: entry.key, id: entry.id, body: entry.json.unwrap_or_default() };
                        return Ok(Some(Delivery { message, seal, handle }));
                    }
                    pipeline.add_command(keys::add(&entry.key, keys::CONTROL_ENTRIES_MAX, entry.json.as_deref().unwrap_or_default()));
                }
                Some(Err(error)) => {
                    self.malformed += 1;
                    if self.malformed == 1 {
                        tracing::warn!(key = %entry.key, id = %entry.id, %error, "a malformed control message is dropped; further ones are only counted");
                    }
                }
                Some(Ok(_)) | None => {}
            }
            done(&mut pipeline, &entry.key, &entry.id);
            self.forget(&entry);
            self.commands.run_all(OPERATION, &mut pipeline).await?;
        }
    }

    fn forget(&mut self, entry: &Entry) {
        self.buffer.retain(|b| b.key != entry.key || b.id != entry.id);
    }

    /// One read of the shared stream that does not wait: for a caller that has just begun to want it, while the blocking read does not have it yet.
    async fn read_shared_now(&mut self) -> Result<(), BrokerError> {
        const OPERATION: &str = "reading control messages";
        let read = self.read(COUNT, None, true, ">");
        let answers = self.commands.run(OPERATION, pipe().add_command(read)).await?;
        self.take_answer(OPERATION, answers.into_iter().next())
    }

    fn take_answer(&mut self, operation: &'static str, answer: Option<Value>) -> Result<(), BrokerError> {
        match answer {
            // The stream or its group has gone (expired, removed, a server without its data): made again by the next round.
            Some(Value::ServerError(error)) if matches!(error.code(), "NOGROUP" | "UNBLOCKED") => self.tended = None,
            Some(Value::ServerError(error)) => return Err(self.commands.error(operation, &error.into())),
            Some(answer) => keys::read_entries(&answer).into_iter().for_each(|entry| self.keep(entry)),
            None => {}
        }
        Ok(())
    }

    fn start_reading(&mut self, shared: bool) {
        let command = self.read(COUNT, Some(BLOCK), shared, ">");
        let link = Arc::clone(&self.blocking);
        let task = tokio::spawn(async move {
            let answers = link.run("waiting for control messages", pipe().add_command(command)).await?;
            Ok(answers.into_iter().next().unwrap_or(Value::Nil))
        });
        self.reading = Some((shared, task));
    }

    /// Waits for the blocking read; false: not done by the deadline.
    async fn finish_reading(&mut self, deadline: Instant) -> Result<bool, BrokerError> {
        const OPERATION: &str = "waiting for control messages";
        let Some((_, task)) = &mut self.reading else { return Ok(true) };
        let Ok(joined) = timeout_at(deadline, task).await else { return Ok(false) };
        self.reading = None;
        let answer = joined.unwrap_or_else(|error| {
            Err(BrokerError { operation: OPERATION, place: self.commands.place(), message: error.to_string(), retry: Retry::Later })
        });
        let taken = answer.and_then(|answer| self.take_answer(OPERATION, Some(answer)));
        if taken.is_err() {
            self.tended = None;
        }
        taken.map(|()| true)
    }

    fn entry_of(&self, delivery: Delivery) -> Result<(Vec<u8>, String, String), BrokerError> {
        match delivery.handle {
            DeliveryHandle::Redis { key, id, body } => Ok((body, key, id)),
            _ => Err(self.commands.refused("acknowledging a control message", "the delivery is of another broker".to_owned())),
        }
    }
}

impl RedisReceiver {
    async fn take_within(&mut self, shared: bool, wait: Duration) -> Result<Option<Delivery>, BrokerError> {
        let deadline = Instant::now() + wait;
        loop {
            // Half the reclaim time: so a leftover is found soon, at little cost.
            let due = self.tended.is_none_or(|at| at.elapsed() >= self.options.reclaim_after / 2);
            if due {
                self.tend(shared).await?;
            }
            if let Some(delivery) = self.next_buffered(shared).await? {
                return Ok(Some(delivery));
            }
            match self.reading {
                None => self.start_reading(shared),
                Some((reads_shared, _)) if shared && !reads_shared => {
                    self.read_shared_now().await?;
                    if !self.buffer.is_empty() {
                        continue;
                    }
                }
                Some(_) => {}
            }
            if !self.finish_reading(deadline).await? {
                return Ok(None);
            }
        }
    }
}

impl RedisReceiver {
    /// Adds a report to a stream; what the server refuses of it, if anything.
    async fn send(&self, key: &str, report: &Report) -> Result<Option<RedisError>, BrokerError> {
        let mut pipeline = pipe();
        pipeline.add_command(keys::add(key, keys::REPORT_ENTRIES_MAX, &report.encode()));
        // A pod that ends after its workload makes this stream again: it shall not stay for ever.
        pipeline.add_command(keys::expire(key, keys::STREAM_TTL_MS));
        let answers = self.commands.run(REPORTING, &mut pipeline).await?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            Value::ServerError(error) => Some(error.into()),
            _ => None,
        }))
    }

    /// From now on this pod is where older releases are, with reports and messages both: the controller sends messages to where it hears a pod. What is pending at the
    /// other name comes to another pod, or expires.
    fn go_by_name(&mut self, name: &ControlAddress) {
        self.narrowed = Some(format!(
            "the user of {} may not write {}, so this pod reports by the workload's name alone, as older releases do, which a workload of the same name in another cluster \
             shares: add the key pattern ~{}:*",
            self.commands.place(),
            self.report_key,
            keys::reports(name)
        ));
        (self.shared_key, self.pod_key, self.report_key) = (keys::control(name), keys::pod(name, &self.pod_uid), keys::reports(name));
        (self.by_name, self.tended) = (None, None);
        self.buffer.clear();
        if let Some((_, task)) = self.reading.take() {
            task.abort();
        }
    }
}

fn done(pipeline: &mut redis::Pipeline, key: &str, id: &str) {
    pipeline.cmd("XACK").arg(key).arg(keys::SIDECARS).arg(id).cmd("XDEL").arg(key).arg(id);
}

#[async_trait]
impl ControlReceiver for RedisReceiver {
    async fn take(&mut self, shared: bool, wait: Duration) -> Result<Option<Delivery>, BrokerError> {
        let taken = self.take_within(shared, wait).await;
        if taken.is_err() && (self.commands.tripped() | self.blocking.tripped()) {
            self.tended = None;
            for key in [self.pod_key.clone(), self.shared_key.clone()] {
                let removed = oversized::remove(&self.commands, &key, keys::SIDECARS, &self.pod_uid).await?;
                self.malformed += removed;
            }
            return Ok(None);
        }
        taken
    }

    async fn ack(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        let (_, key, id) = self.entry_of(delivery)?;
        let mut pipeline = pipe();
        done(&mut pipeline, &key, &id);
        // Whether it failed or not, the message is out of the caller's hands: if it is still pending, it comes again.
        self.outstanding.remove(&(key, id));
        self.commands.run_all("acknowledging a control message", &mut pipeline).await.map(drop)
    }

    async fn give_back(&mut self, delivery: Delivery) -> Result<(), BrokerError> {
        let (body, key, id) = self.entry_of(delivery)?;
        // Redis cannot return an entry to its group: a copy, byte for byte, is added before the original goes, so that it may be doubled and is never lost.
        let mut pipeline = pipe();
        pipeline.add_command(keys::add(&key, keys::CONTROL_ENTRIES_MAX, &body));
        // Where the workload went meanwhile, that has made its stream again.
        pipeline.add_command(keys::expire(&key, if key == self.pod_key { keys::POD_STREAM_TTL_MS } else { keys::STREAM_TTL_MS }));
        done(&mut pipeline, &key, &id);
        self.outstanding.remove(&(key, id));
        self.commands.run_all("giving a control message back", &mut pipeline).await.map(drop)
    }

    async fn report(&mut self, report: &Report) -> Result<(), BrokerError> {
        let Some(refused) = self.send(&self.report_key, report).await? else { return Ok(()) };
        // Rights that were given to an older release, key by key, do not have the name with the UID.
        if refused.code() == Some("NOPERM")
            && let Some(name) = self.by_name.clone()
            && self.send(&keys::reports(&name), report).await?.is_none()
        {
            self.go_by_name(&name);
            return Ok(());
        }
        Err(self.commands.error(REPORTING, &refused))
    }

    fn narrowed(&self) -> Option<&str> {
        self.narrowed.as_deref()
    }

    fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl Drop for RedisReceiver {
    fn drop(&mut self) {
        if let Some((_, task)) = self.reading.take() {
            task.abort();
        }
    }
}
