//! The controller's end of the control channel on Redis. In: messages for the stream of a workload or of one pod. Out: reports from the workload's
//! report stream. Left to others: when to send, and what a report means.

use super::{RESPONSE_TIMEOUT, RedisLink, keys, oversized};
use crate::signing::Signer;
use crate::{BrokerError, ControlSender, Reports, now_ms};
use async_trait::async_trait;
use qscaler_broker_url::RedisUrl;
use qscaler_core::message::{ControlMessage, MESSAGE_BYTES_MAX, Report};
use qscaler_core::workload::ControlAddress;
use redis::{Value, cmd, pipe};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// See the module.
#[derive(Debug)]
pub(crate) struct RedisSender {
    link: RedisLink,
    signer: Signer,
    reports: Mutex<HashMap<ControlAddress, ReportState>>,
}

/// How far one workload's reports have been read.
#[derive(Clone, Debug, Default)]
struct ReportState {
    /// Entries that the last call returned: acknowledged by the next one, so that a call that is cut off loses none.
    returned: Vec<String>,
    /// Nothing but `returned` is pending under our name.
    clean: bool,
}

impl RedisSender {
    pub(crate) fn new(url: RedisUrl, signer: Signer) -> Self {
        Self { link: RedisLink::bounded(url, RESPONSE_TIMEOUT, MESSAGE_BYTES_MAX as u64), signer, reports: Mutex::new(HashMap::new()) }
    }

    fn state<T>(&self, with: impl FnOnce(&mut ReportState) -> T, address: &ControlAddress) -> T {
        with(self.reports.lock().unwrap_or_else(PoisonError::into_inner).entry(address.clone()).or_default())
    }
}

fn decode(entries: &[keys::Entry]) -> Reports {
    let mut taken = Reports::default();
    for entry in entries {
        match entry.json.as_deref().map(Report::decode) {
            Some(Ok(report)) => taken.reports.push(report),
            // No body: trimmed or removed before it was acknowledged, so there is nothing to count.
            None => {}
            Some(Err(_)) => taken.malformed += 1,
        }
    }
    taken
}

#[async_trait]
impl ControlSender for RedisSender {
    async fn declare(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        const OPERATION: &str = "declaring control and report streams";
        let (control, reports) = (keys::control(address), keys::reports(address));
        let mut pipeline = pipe();
        pipeline.add_command(keys::create_group(&control, keys::SIDECARS)).add_command(keys::create_group(&reports, keys::CONTROLLER));
        pipeline.add_command(keys::expire(&control, keys::STREAM_TTL_MS)).add_command(keys::expire(&reports, keys::STREAM_TTL_MS));
        for answer in &self.link.run(OPERATION, &mut pipeline).await? {
            keys::group_exists(answer).map_err(|error| self.link.error(OPERATION, &error))?;
        }
        Ok(())
    }

    async fn publish(&self, address: &ControlAddress, message: &ControlMessage) -> Result<(), BrokerError> {
        const OPERATION: &str = "sending a control message";
        let left_ms = message.expires_ms.saturating_sub(now_ms());
        if left_ms == 0 {
            return Ok(());
        }
        let (key, ttl_ms) = match &message.target {
            Some(pod) => (keys::pod(address, pod), left_ms.max(keys::POD_STREAM_TTL_MS)),
            None => (keys::control(address), left_ms.max(keys::STREAM_TTL_MS)),
        };
        let mut pipeline = pipe();
        pipeline.add_command(keys::create_group(&key, keys::SIDECARS));
        pipeline.add_command(keys::add(&key, keys::CONTROL_ENTRIES_MAX, &self.signer.seal(message))).add_command(keys::expire(&key, ttl_ms));
        for answer in &self.link.run(OPERATION, &mut pipeline).await? {
            keys::group_exists(answer).map_err(|error| self.link.error(OPERATION, &error))?;
        }
        Ok(())
    }

    async fn purge(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        let mut pipeline = pipe();
        pipeline.cmd("XTRIM").arg(keys::control(address)).arg("MAXLEN").arg(0);
        self.link.run_all("dropping control messages", &mut pipeline).await.map(drop)
    }

    async fn reports(&self, address: &ControlAddress, max: usize) -> Result<Reports, BrokerError> {
        const OPERATION: &str = "reading reports";
        let key = keys::reports(address);
        // Cut off anywhere from here on, this call leaves `clean` false: the next one begins with what is pending under our name.
        let ReportState { returned, mut clean } =
            self.state(|state| ReportState { returned: state.returned.clone(), clean: std::mem::take(&mut state.clean) }, address);
        let mut pipeline = pipe();
        if !returned.is_empty() {
            pipeline.cmd("XACK").arg(&key).arg(keys::CONTROLLER).arg(&returned).ignore().cmd("XDEL").arg(&key).arg(&returned).ignore();
        }
        loop {
            let mut read = cmd("XREADGROUP");
            read.arg("GROUP").arg(keys::CONTROLLER).arg(keys::CONTROLLER).arg("COUNT").arg(max.max(1)).arg("STREAMS").arg(&key);
            pipeline.add_command(read.arg(if clean { ">" } else { "0" }).take());
            let answers = match self.link.run(OPERATION, &mut pipeline).await {
                Ok(answers) => answers,
                // The rest comes with the next call, from the pending list.
                Err(_) if self.link.tripped() => {
                    let malformed = oversized::remove(&self.link, &key, keys::CONTROLLER, keys::CONTROLLER).await?;
                    return Ok(Reports { reports: Vec::new(), malformed });
                }
                Err(error) => return Err(error),
            };
            let entries = match answers.last() {
                Some(Value::ServerError(error)) if error.code() == "NOGROUP" => {
                    self.declare(address).await?;
                    return Ok(Reports::default());
                }
                Some(Value::ServerError(error)) => return Err(self.link.error(OPERATION, &error.clone().into())),
                answer => answer.map(keys::read_entries).unwrap_or_default(),
            };
            if entries.is_empty() && !clean {
                clean = true;
                pipeline = pipe();
                continue;
            }
            let returned = entries.iter().map(|entry| entry.id.clone()).collect();
            self.state(|state| *state = ReportState { returned, clean }, address);
            return Ok(decode(&entries));
        }
    }

    async fn remove(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
        let mut pipeline = pipe();
        pipeline.cmd("DEL").arg(keys::control(address)).arg(keys::reports(address));
        self.link.run_all("removing control and report streams", &mut pipeline).await.map(drop)
    }
}
