//! The fake keeps the contract that the real adapters keep. In: the suite. Out: its verdict. The real ones are in the package of tests.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use async_trait::async_trait;
use qscaler_broker::contract::{Ends, Outcome, UnderTest, keys, run, signer};
use qscaler_broker::memory::Memory;
use qscaler_broker::{BrokerError, Retry};
use qscaler_core::framework::{Framework, framework};
use qscaler_core::workload::ControlAddress;
use std::sync::Arc;

struct Fake(Memory);

fn ends(memory: &Memory, address: &ControlAddress, pod_uid: &str) -> Ends {
    let receiver = memory.receiver(address, pod_uid).verifying(keys().unwrap());
    Ends { stats: Arc::new(memory.clone()), control: Arc::new(memory.signing(signer())), receiver: Box::new(receiver) }
}

#[async_trait]
impl UnderTest for Fake {
    fn ends(&self, address: &ControlAddress, pod_uid: &str) -> Result<Ends, BrokerError> {
        Ok(ends(&self.0, address, pod_uid))
    }

    fn ends_nowhere(&self, address: &ControlAddress) -> Result<Ends, BrokerError> {
        let memory = Memory::new();
        memory.fail(Some(Retry::Later));
        Ok(ends(&memory, address, "p"))
    }

    fn ends_refused(&self, address: &ControlAddress) -> Result<Ends, BrokerError> {
        let memory = Memory::new();
        memory.fail(Some(Retry::AfterChange));
        Ok(ends(&memory, address, "p"))
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    fn framework(&self) -> &'static Framework {
        framework("celery").unwrap()
    }

    async fn put_tasks(&self, queue: &str, count: u64) -> Outcome {
        self.0.put_tasks(queue, count);
        Ok(())
    }

    async fn hold_task(&self, queue: &str) -> Outcome {
        self.0.take_tasks(queue, 1);
        Ok(())
    }

    async fn put_control(&self, address: &ControlAddress, body: &[u8]) -> Outcome {
        self.0.put_control(address, body);
        Ok(())
    }

    async fn put_report(&self, address: &ControlAddress, body: &[u8]) -> Outcome {
        self.0.put_report(address, body);
        Ok(())
    }

    async fn restart(&self) -> Outcome {
        self.0.fail(Some(Retry::Later));
        self.0.fail(None);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_memory_broker_keeps_the_contract() {
    run(&Fake(Memory::new())).await.unwrap();
}
