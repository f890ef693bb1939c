//! A sidecar without a broker. In: settings. Out: the line to the controller, or one on which nothing ever comes and nothing is carried; what is wrong, as
//! gaps of the hold. Left to others: the hold itself, which needs no broker.

use crate::config::Settings;
use crate::gaps::Gaps;
use async_trait::async_trait;
use qscaler_broker::{BrokerError, ControlReceiver, Delivery, ReceiverOptions, Retry};
use qscaler_core::message::{GapReason, Report};
use std::time::Duration;

/// The line to the controller; where it cannot even be set up, the settings say why, and the line is dead.
#[must_use]
pub fn receiver(settings: &mut Settings) -> Box<dyn ControlReceiver> {
    let Some(control) = &settings.control else { return Box::new(Dead) };
    let options = ReceiverOptions { keys: settings.control_keys.clone(), ..ReceiverOptions::default() };
    match qscaler_broker::open_receiver_with(control.as_str(), &settings.control_address(), &settings.pod_uid, options) {
        Ok(receiver) => receiver,
        Err(error) => {
            settings.broker_mistakes.push(error.to_string());
            settings.control = None;
            Box::new(Dead)
        }
    }
}

/// Says what is wrong with the environment: in the log at once, in the reports where they can travel, and in the termination message.
pub fn tell(settings: &Settings, gaps: &Gaps) {
    for (reason, words) in [(GapReason::BrokerUnreachable, &settings.broker_mistakes), (GapReason::Misconfigured, &settings.mistakes)] {
        for mistake in words {
            // Whole: a gap's words are bounded.
            tracing::error!(mistake, "the environment is not as it should be");
        }
        if !words.is_empty() {
            gaps.set(reason, words.join("; "));
        }
    }
}

/// Nothing comes; nothing goes.
#[derive(Clone, Copy, Debug)]
struct Dead;

#[async_trait]
impl ControlReceiver for Dead {
    async fn take(&mut self, _: bool, wait: Duration) -> Result<Option<Delivery>, BrokerError> {
        tokio::time::sleep(wait).await;
        Ok(None)
    }

    async fn ack(&mut self, _: Delivery) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn give_back(&mut self, _: Delivery) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn report(&mut self, _: &Report) -> Result<(), BrokerError> {
        Err(BrokerError {
            operation: "reporting",
            place: "no broker".to_owned(),
            message: "its URL is missing or cannot be used".to_owned(),
            retry: Retry::AfterChange,
        })
    }

    fn malformed(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;
    use crate::run::{PodWorld, run};
    use crate::testing::FakeProc;
    use crate::worker::procs::ProcFs;
    use qscaler_core::names::sidecar as names;
    use qscaler_runtime::CancellationToken;
    use std::net::SocketAddr;
    use std::process::{Command, Stdio};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const DEADLINE: Duration = Duration::from_secs(60);

    async fn get(address: SocketAddr, path: String) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// A worker that finishes its task after SIGTERM, in a pod whose sidecar gets this URL: how the probe and the hold are answered, how the worker
    /// ends, and the sidecar's last words.
    async fn held(url: Option<&str>) -> (String, String, Option<i32>, Report) {
        let mut table = good();
        table.0.remove(names::ENV_BROKER_URL);
        if let Some(url) = url {
            table.0.insert(names::ENV_BROKER_URL, url.to_owned());
        }
        let fake = FakeProc::new();
        fake.add(1, 0, "pause", 1, None, "/pause");
        fake.add(2, 0, "qscaler-sidecar", 2, Some(names::CONTAINER), "/side");
        let script = "trap 'sleep 0.3; exit 7' TERM; while :; do sleep 0.05; done";
        let mut worker = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(worker.id()).unwrap();
        let caught = || ProcFs::at("/proc").status(pid).is_some_and(|status| status.caught >> 14 & 1 == 1);
        while !caught() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fake.add_real(pid, "worker", "/w1");

        let mut settings = Settings::read(&table);
        let folder = tempfile::tempdir().unwrap();
        let termination_log = folder.path().join("termination-log");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let surroundings = PodWorld {
            procs: fake.procs(),
            own_pid: 2,
            host: "orders-abc-1".to_owned(),
            termination_log: termination_log.clone(),
            receiver: receiver(&mut settings),
        };
        let token = settings.config.hook_token.clone();
        let shutdown = CancellationToken::new();
        let sidecar = tokio::spawn(run(settings, surroundings, listener, shutdown.clone()));
        let ready = async {
            loop {
                let answer = get(address, names::PATH_READY.to_owned()).await;
                if answer.starts_with("HTTP/1.1 200") {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let ready = tokio::time::timeout(DEADLINE, ready).await.expect("never ready");
        let hold = tokio::spawn(get(address, format!("/hold/{token}?container=worker")));
        let code = tokio::time::timeout(DEADLINE, tokio::task::spawn_blocking(move || worker.wait().unwrap().code())).await.unwrap().unwrap();
        fake.remove(pid);
        let hold = tokio::time::timeout(DEADLINE, hold).await.unwrap().unwrap();
        shutdown.cancel();
        tokio::time::timeout(DEADLINE, sidecar).await.unwrap().unwrap();
        (ready, hold, code, Report::decode(&std::fs::read(termination_log).unwrap()).unwrap())
    }

    #[tokio::test]
    async fn whatever_the_url_is_the_pod_starts_the_worker_is_held_and_the_last_words_say_why_nothing_came() {
        for url in [None, Some("$(TYPO)"), Some("mysql://u:hunter2@h/x"), Some("::::")] {
            let (ready, hold, code, report) = held(url).await;
            assert!(ready.starts_with("HTTP/1.1 200") && hold.starts_with("HTTP/1.1 200"), "{url:?}: {ready} {hold}");
            assert_eq!(code, Some(7), "{url:?}: the task was finished");
            let gap = report.gaps.iter().find(|gap| gap.reason == GapReason::BrokerUnreachable).unwrap();
            assert!(gap.detail.contains("QSCALER_BROKER_URL") && !gap.detail.contains("hunter2"), "{gap:?}");
        }
    }
}
