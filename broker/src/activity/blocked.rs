//! Workers that wait for their next task in a blocking command of Redis. In: the local ports of the pod's connections, those of the sidecar left
//! out. Out: how many of these connections wait, and how many there are. Left to others: what a worker with several at once means (`sidecar`), whose the
//! tasks in hand are (`owners`).
//!
//! A connection is the pod's own when Redis sees it from the address from which it sees us, and on one of the pod's ports: so a broker behind
//! address translation that keeps ports is fine, and one that does not gives "unknown". The list of all clients costs Redis time in proportion to
//! their number: it is read only to find the connections, which then are asked for by number (Redis 6.2 and newer).

use super::Whose;
use super::owners::{LockEnd, Owners};
use crate::redis::{RESPONSE_TIMEOUT, RedisLink};
use crate::{BrokerError, Retry};
use qscaler_broker_url::RedisUrl;
use redis::{Cmd, Value, cmd};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

const OPERATION: &str = "looking at the worker's connections";
/// The commands with which list workers wait.
const WAITING: &[&str] = &["brpop", "blpop", "blmove", "brpoplpush", "blmpop", "bzpopmin", "bzpopmax", "bzmpop", "xread", "xreadgroup"];
/// With what a client begins before it asks for anything of its own; a part after `|` is left out, and `NULL` is nothing yet.
const GREETINGS: &[&str] =
    &["NULL", "hello", "auth", "select", "client", "ping", "echo", "info", "command", "config", "role", "readonly", "cluster", "time", "script"];
/// Connections of one pod, at most.
const CONNECTIONS_MAX: usize = 256;

/// After so many looks in a row that saw nobody wait, connections are searched for anew: a worker may open the one it waits on late (Huey).
const DRY_LOOKS: u32 = 4;

/// Below this number the list of all clients is cheap: a fifth of a millisecond of the server's time.
const CLIENTS_FEW: usize = 64;

/// How often a list of so many clients may be asked for: it costs the server about 5 us for each client, in which it does nothing else, and every pod asks.
fn list_period(clients: usize) -> Duration {
    let more = u64::try_from(clients).unwrap_or(u64::MAX) / 100;
    Duration::from_secs(more.saturating_add(4).min(60))
}

/// The pod's connections to one Redis.
pub(super) struct Blocked {
    link: RedisLink,
    /// Numbers of the worker's connections; empty: to be searched for.
    ids: BTreeSet<u64>,
    /// Those of them that waited at the last look.
    waiting: Vec<u64>,
    /// Looks in a row at which none waited.
    dry: u32,
    /// Who has the tasks in hand, where the framework's locks tell.
    owners: Option<Owners>,
    /// When this pod's connections may be looked for again.
    search_at: Instant,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Connections of the worker.
    pub connections: usize,
    /// Of these, such that wait for a task.
    pub waiting: usize,
    /// Of these, such that have asked for nothing yet: the last that the server heard is how a client begins.
    pub greeting: usize,
}

/// One line of `CLIENT LIST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Client<'a> {
    id: u64,
    address: SocketAddr,
    blocked: bool,
    command: &'a str,
    /// Seconds since it was last heard, or answered.
    idle_s: u64,
}

impl<'a> Client<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let field = |key: &str| line.split(' ').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key).map(|(_, value)| value));
        Some(Self {
            id: field("id")?.parse().ok()?,
            address: field("addr")?.parse().ok()?,
            blocked: field("flags")?.contains('b'),
            command: field("cmd")?,
            idle_s: field("idle")?.parse().ok()?,
        })
    }

    fn waits(&self) -> bool {
        self.blocked && WAITING.contains(&self.command)
    }

    fn greets(&self) -> bool {
        GREETINGS.contains(&self.command.split('|').next().unwrap_or_default())
    }
}

impl Blocked {
    pub(super) fn new(url: RedisUrl, whose: &Whose<'_>) -> Self {
        Self {
            link: RedisLink::new(url, RESPONSE_TIMEOUT),
            ids: BTreeSet::new(),
            waiting: Vec::new(),
            dry: 0,
            owners: Owners::of(whose),
            search_at: Instant::now(),
        }
    }

    /// See [`super::BlockedPops::none_here`].
    pub(super) async fn none_here(&mut self, ports: &BTreeSet<u16>, to_broker: &BTreeSet<u16>) -> Result<Option<bool>, BrokerError> {
        let Some(owners) = self.owners.as_mut() else { return Ok(None) };
        let Some(look) = owners.read(&self.link).await? else { return Ok(Some(false)) };
        // Asked for after the locks: whoever has taken or renewed one of them has been heard by then.
        let mut pipeline = redis::pipe();
        look.ask_left(&mut pipeline);
        pipeline.cmd("CLIENT").arg("LIST").arg("ID").arg(self.ids.iter().copied().chain([0]).collect::<Vec<_>>()).cmd("TIME");
        let mut values = self.link.run_all(OPERATION, &mut pipeline).await?;
        let (time, clients) = (values.pop(), values.pop().and_then(text).unwrap_or_default());
        let clients: Vec<Client<'_>> = clients.lines().filter_map(Client::parse).filter(|client| self.ids.contains(&client.id)).collect();
        let known: BTreeSet<u16> = clients.iter().map(|client| client.address.port()).collect();
        let all_known = !clients.is_empty() && to_broker.is_subset(&known);
        let end = LockEnd {
            at: Instant::now(),
            server: time,
            connections: clients.iter().map(|client| client.id).collect(),
            idle_s: clients.iter().map(|client| client.idle_s).min().filter(|_| all_known),
        };
        let none_here = owners.judge(look, &values, end);
        if !all_known && self.search_at <= Instant::now() {
            self.find(ports).await?;
        }
        Ok(Some(none_here))
    }

    /// None: no connection of the worker is to be found.
    pub(super) async fn sample(&mut self, ports: &BTreeSet<u16>) -> Result<Option<Waiting>, BrokerError> {
        self.waiting.clear();
        if self.ids.is_empty() && self.search_at <= Instant::now() {
            self.find(ports).await?;
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
        let greeting = clients.iter().filter(|client| client.greets()).count();
        Ok(Some(Waiting { connections: clients.len(), waiting: self.waiting.len(), greeting }).filter(|seen| seen.connections > 0))
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

    async fn find(&mut self, ports: &BTreeSet<u16>) -> Result<(), BrokerError> {
        let (ids, clients) = self.search(ports).await?;
        self.ids = ids;
        // The first few looks come soon: a worker starts.
        self.search_at = Instant::now() + if clients < CLIENTS_FEW { Duration::ZERO } else { list_period(clients) };
        Ok(())
    }

    /// The pod's connections, and how many clients there are.
    async fn search(&self, ports: &BTreeSet<u16>) -> Result<(BTreeSet<u64>, usize), BrokerError> {
        let own = self.text(cmd("CLIENT").arg("INFO")).await?;
        let Some(own) = Client::parse(own.trim()) else { return Ok((BTreeSet::new(), 0)) };
        let all = self.text(cmd("CLIENT").arg("LIST").arg("TYPE").arg("normal")).await?;
        let is_worker = |client: &Client<'_>| client.address.ip() == own.address.ip() && ports.contains(&client.address.port());
        let ids = all.lines().filter_map(Client::parse).filter(is_worker).map(|client| client.id).take(CONNECTIONS_MAX).collect();
        Ok((ids, all.lines().count()))
    }

    async fn text(&self, command: &Cmd) -> Result<String, BrokerError> {
        let mut values = self.link.run_all(OPERATION, redis::pipe().add_command(command.clone())).await?;
        values.pop().and_then(text).ok_or_else(|| BrokerError {
            operation: OPERATION,
            place: self.link.place(),
            message: "no list of clients".to_owned(),
            retry: Retry::AfterChange,
        })
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => Some(text),
        _ => None,
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
        assert_eq!((client.id, client.address.port(), client.idle_s, client.waits()), (12, 46002, 1, true));
        assert!(!Client::parse(&WAITS.replace("flags=b", "flags=N")).unwrap().waits());
        assert!(!Client::parse(&WAITS.replace("cmd=blmove", "cmd=wait")).unwrap().waits());
        let greets = |command: &str| Client::parse(&WAITS.replace("flags=b", "flags=N").replace("cmd=blmove", command)).unwrap().greets();
        assert!(["cmd=NULL", "cmd=ping", "cmd=client|setinfo", "cmd=client", "cmd=hello", "cmd=config|get"].iter().all(|command| greets(command)));
        assert!(!["cmd=blmove", "cmd=lpop", "cmd=evalsha", "cmd=get", "cmd=xreadgroup"].iter().any(|command| greets(command)));
        assert_eq!(Client::parse("id=1 addr=/tmp/redis.sock:0 flags=N cmd=ping"), None);
        assert_eq!(Client::parse(""), None);
    }
}
