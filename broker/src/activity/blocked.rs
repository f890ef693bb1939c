//! Workers that wait for their next task in a blocking command of Redis. In: the local ports of the pod's connections, those of the sidecar left
//! out. Out: how many of these connections wait, and how many there are. Left to others: what a worker with several at once means (`sidecar`).
//!
//! A connection is the pod's own when Redis sees it from the address from which it sees us, and on one of the pod's ports: so a broker behind
//! address translation that keeps ports is fine, and one that does not gives "unknown". The list of all clients costs Redis time in proportion to
//! their number: it is read only to find the connections, which then are asked for by number (Redis 6.2 and newer).

use crate::redis::{Link, RESPONSE_TIMEOUT};
use crate::{BrokerError, Retry};
use qscaler_broker_url::RedisUrl;
use redis::{Cmd, Value, cmd};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const OPERATION: &str = "looking at the worker's connections";
/// The commands with which list workers wait.
const WAITING: &[&str] = &["brpop", "blpop", "blmove", "brpoplpush", "blmpop", "bzpopmin", "bzpopmax", "bzmpop", "xread", "xreadgroup"];
/// Connections of one pod, at most.
const CONNECTIONS_MAX: usize = 256;

/// After so many looks in a row that saw nobody wait, connections are searched for anew: a worker may open the one it waits on late (Huey).
const DRY_LOOKS: u32 = 4;

/// The pod's connections to one Redis.
pub(super) struct Blocked {
    link: Link,
    /// Numbers of the worker's connections; empty: to be searched for.
    ids: BTreeSet<u64>,
    /// Those of them that waited at the last look.
    waiting: Vec<u64>,
    /// Looks in a row at which none waited.
    dry: u32,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Connections of the worker.
    pub connections: usize,
    /// Of these, such that wait for a task.
    pub waiting: usize,
}

/// One line of `CLIENT LIST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Client<'a> {
    id: u64,
    address: SocketAddr,
    blocked: bool,
    command: &'a str,
}

impl<'a> Client<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let field = |key: &str| line.split(' ').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key).map(|(_, value)| value));
        Some(Self {
            id: field("id")?.parse().ok()?,
            address: field("addr")?.parse().ok()?,
            blocked: field("flags")?.contains('b'),
            command: field("cmd")?,
        })
    }

    fn waits(&self) -> bool {
        self.blocked && WAITING.contains(&self.command)
    }
}

impl Blocked {
    pub(super) fn new(url: RedisUrl) -> Self {
        Self { link: Link::new(url, RESPONSE_TIMEOUT), ids: BTreeSet::new(), waiting: Vec::new(), dry: 0 }
    }

    /// None: no connection of the worker is to be found.
    pub(super) async fn sample(&mut self, ports: &BTreeSet<u16>) -> Result<Option<Waiting>, BrokerError> {
        self.waiting.clear();
        if self.ids.is_empty() {
            self.ids = self.search(ports).await?;
        }
        if self.ids.is_empty() {
            return Ok(None);
        }
        let mut command = cmd("CLIENT");
        command.arg("LIST").arg("ID").arg(self.ids.iter().copied().collect::<Vec<_>>());
        let text = self.text(&command).await?;
        let clients: Vec<Client<'_>> = text.lines().filter_map(Client::parse).filter(|client| ports.contains(&client.address.port())).collect();
        if clients.len() < self.ids.len() {
            // One is gone: there may be a new one in its place.
            self.ids.clear();
        }
        self.waiting = clients.iter().filter(|client| client.waits()).map(|client| client.id).collect();
        self.dry = if self.waiting.is_empty() { self.dry + 1 } else { 0 };
        if self.dry >= DRY_LOOKS {
            self.dry = 0;
            self.ids.clear();
        }
        Ok(Some(Waiting { connections: clients.len(), waiting: self.waiting.len() }).filter(|seen| seen.connections > 0))
    }

    /// See [`super::BlockedPops::unblock`].
    pub(super) async fn unblock(&mut self) -> Result<bool, BrokerError> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut pipeline = redis::pipe();
        for id in &waiting {
            pipeline.cmd("CLIENT").arg("UNBLOCK").arg(*id);
        }
        if waiting.is_empty() {
            return Ok(false);
        }
        Ok(self.link.run_all(OPERATION, &mut pipeline).await?.iter().all(|answer| *answer == Value::Int(1)))
    }

    async fn search(&self, ports: &BTreeSet<u16>) -> Result<BTreeSet<u64>, BrokerError> {
        let own = self.text(cmd("CLIENT").arg("INFO")).await?;
        let Some(own) = Client::parse(own.trim()) else { return Ok(BTreeSet::new()) };
        let all = self.text(cmd("CLIENT").arg("LIST").arg("TYPE").arg("normal")).await?;
        let is_worker = |client: &Client<'_>| client.address.ip() == own.address.ip() && ports.contains(&client.address.port());
        Ok(all.lines().filter_map(Client::parse).filter(is_worker).map(|client| client.id).take(CONNECTIONS_MAX).collect())
    }

    async fn text(&self, command: &Cmd) -> Result<String, BrokerError> {
        let mut values = self.link.run_all(OPERATION, redis::pipe().add_command(command.clone())).await?;
        match values.pop() {
            Some(Value::BulkString(bytes)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Some(Value::VerbatimString { text, .. } | Value::SimpleString(text)) => Ok(text),
            _ => Err(BrokerError {
                operation: OPERATION,
                place: self.link.place(),
                message: "no list of clients".to_owned(),
                retry: Retry::AfterChange,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of Redis 7.0.
    const WAITS: &str = "id=12 addr=10.0.0.7:46002 laddr=10.0.0.8:6379 fd=9 name= age=4 idle=1 flags=b db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 \
        qbuf-free=0 argv-mem=10 multi-mem=0 rbs=1024 rbp=0 obl=0 oll=0 omem=0 tot-mem=1800 events=r cmd=blmove user=default redir=-1 resp=3";

    #[test]
    fn a_client_that_waits_is_told_from_one_that_works() {
        let client = Client::parse(WAITS).unwrap();
        assert_eq!((client.id, client.address.port(), client.waits()), (12, 46002, true));
        assert!(!Client::parse(&WAITS.replace("flags=b", "flags=N")).unwrap().waits());
        assert!(!Client::parse(&WAITS.replace("cmd=blmove", "cmd=wait")).unwrap().waits());
        assert_eq!(Client::parse("id=1 addr=/tmp/redis.sock:0 flags=N cmd=ping"), None);
        assert_eq!(Client::parse(""), None);
    }
}
