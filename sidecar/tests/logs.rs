//! What sidecars and controllers say at the finest level of every library, to servers that ask for a login: never the password. In: servers that note what comes and
//! answer as far as the login. Out: whether it was sent, and whether it is in a line. One test: the process has one logger.
// A test crate: a failed unwrap is a failed test with a line number, in its helpers too.
#![allow(clippy::unwrap_used)]

use qscaler_broker::signing::Signer;
use qscaler_broker::{QueueQuery, open_control, open_receiver, open_stats};
use qscaler_core::framework::framework;
use qscaler_core::workload::{ControlAddress, WorkloadId};
use qscaler_runtime::log::{Format, subscriber};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PASSWORD: &str = "wr0ng-p4ssword";
/// Every library at its finest, those by name that a filter may name.
const FILTER: &str = "trace,lapin=trace,lapin::internal_rpc=trace,lapin::frames=trace,amq_protocol_tcp=trace,redis=trace,hyper=trace";
/// RabbitMQ's first frame: version 0-9, no properties, the mechanism PLAIN, the locale en_US.
const AMQP_START: &[u8] = b"\x01\0\0\0\0\0\x1c\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US\xce";

/// A server that sends `greets` after the first bytes, and `refuses` after the next; what came is noted. Ends with the process.
fn server(greets: &'static [u8], refuses: &'static [u8]) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let (listener, came) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(Mutex::new(Vec::new())));
    let (port, noted) = (listener.local_addr().unwrap().port(), Arc::clone(&came));
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let noted = Arc::clone(&noted);
            std::thread::spawn(move || talk(connection, &[greets, refuses], &noted));
        }
    });
    (port, came)
}

fn talk(mut connection: TcpStream, answers: &[&[u8]], noted: &Mutex<Vec<u8>>) {
    let mut bytes = [0_u8; 4096];
    for answer in answers {
        let Ok(count) = connection.read(&mut bytes) else { return };
        noted.lock().unwrap().extend(&bytes[..count]);
        let _ = connection.write_all(answer);
    }
}

#[tokio::test]
async fn at_the_finest_level_of_every_library_no_line_has_a_password() {
    let lines = tempfile::NamedTempFile::new().unwrap();
    tracing::subscriber::set_global_default(subscriber(Format::Text, FILTER, Arc::new(lines.reopen().unwrap())).unwrap()).unwrap();
    let (amqp, amqp_came) = server(AMQP_START, b"");
    let (redis, redis_came) = server(b"-WRONGPASS invalid username-password pair\r\n", b"-WRONGPASS again\r\n");
    let urls = [(format!("amqp://user:{PASSWORD}@127.0.0.1:{amqp}/"), "celery"), (format!("redis://user:{PASSWORD}@127.0.0.1:{redis}/0"), "celery")];
    let address = ControlAddress::new(&WorkloadId { namespace: "shop".to_owned(), name: "orders".to_owned() }, &"d-1".into());
    let mut errors = String::new();
    for (url, worker) in &urls {
        let limit = Duration::from_secs(20);
        let query = [QueueQuery::new("orders", framework(worker).unwrap())];
        let stats = tokio::time::timeout(limit, open_stats(url).unwrap().sample(&query)).await;
        let control = tokio::time::timeout(limit, open_control(url, Signer::default()).unwrap().declare(&address)).await;
        let mut receiver = open_receiver(url, &address, "p-1").unwrap();
        let taken = tokio::time::timeout(limit, receiver.take(true, Duration::from_millis(100))).await;
        errors += &format!("{stats:?} {control:?} {taken:?}");
    }
    // The login was tried, and the loggers were on.
    let came = |bytes: &Mutex<Vec<u8>>| String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned();
    assert!(came(&amqp_came).contains(PASSWORD), "no login at the AMQP server: {errors}");
    assert!(came(&redis_came).contains(PASSWORD), "no login at the Redis server: {errors}");
    let said = std::fs::read_to_string(lines.path()).unwrap();
    assert!(said.contains("lapin"), "nothing of the libraries is logged: {said}");
    let listed = format!("{:?}", PASSWORD.as_bytes());
    for secret in [PASSWORD, listed.trim_matches(['[', ']'])] {
        let line = said.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in a line: {}", line.unwrap_or_default());
        assert!(!errors.contains(secret), "{secret} is in an error: {errors}");
    }
}
