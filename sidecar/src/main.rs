//! `qscaler-sidecar run` (the default) is the sidecar; `qscaler-sidecar wait` waits until it answers, for the postStart hook. In: arguments and
//! environment. Out: an exit code; 64 for unknown arguments. A bad environment is no reason to end: the pod would wait for ever.

use anyhow::Context;
use qscaler_core::names::sidecar as names;
use qscaler_runtime::{listen, log, shutdown};
use qscaler_sidecar::blind;
use qscaler_sidecar::config::{EXIT_USAGE, ProcessEnvironment, Settings};
use qscaler_sidecar::hold::server::PATH_LIVE;
use qscaler_sidecar::run::{PodWorld, run};
use qscaler_sidecar::worker::procs::ProcFs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `wait` gives up after this long: the kubelet then restarts the sidecar, which is the right thing when it does not come up.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two tries of `wait`: the worker's start waits for it.
const WAIT_PAUSE: Duration = Duration::from_millis(20);
/// An answer on loopback takes less than a millisecond.
const WAIT_ANSWER: Duration = Duration::from_secs(1);
/// Where the kubelet looks for the last words, by default.
const TERMINATION_LOG: &str = "/dev/termination-log";

fn main() -> ExitCode {
    // The worker may run as the same user: it shall not read the broker's password in this process's environment.
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        complain(&format!("cannot hide the environment from processes of the same user: {error}"));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["run"] => start(),
        ["--version"] => {
            let _ = writeln!(std::io::stdout(), "qscaler-sidecar {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["wait"] => wait(SocketAddr::from((Ipv4Addr::LOCALHOST, names::PORT))),
        _ => {
            complain(&format!("unknown arguments {arguments:?}; valid: run (the default), wait, --version"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn start() -> ExitCode {
    match serve(Settings::read(&ProcessEnvironment)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(mut settings: Settings) -> anyhow::Result<()> {
    log::init(log::Format::Json, log::FILTER_DEFAULT)?;
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("a TLS provider is installed already");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let shutdown = shutdown::on_signals().context("cannot listen for signals")?;
        let listener =
            listen::bind((Ipv6Addr::UNSPECIFIED, names::PORT).into()).await.with_context(|| format!("cannot listen on port {}", names::PORT))?;
        let surroundings = PodWorld {
            procs: ProcFs::at("/proc"),
            own_pid: i32::try_from(std::process::id()).context("a process number outside the kernel's range")?,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            termination_log: PathBuf::from(TERMINATION_LOG),
            receiver: blind::receiver(&mut settings),
        };
        run(settings, surroundings, listener, shutdown).await;
        Ok(())
    })
}

/// Waits until the sidecar answers at this address.
fn wait(address: SocketAddr) -> ExitCode {
    let deadline = Instant::now() + WAIT_MAX;
    while Instant::now() < deadline {
        if answers(address).is_some() {
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(WAIT_PAUSE);
    }
    complain(&format!("the sidecar did not answer on {address} within {} s", WAIT_MAX.as_secs()));
    ExitCode::FAILURE
}

fn answers(address: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT_ANSWER).ok()?;
    stream.set_read_timeout(Some(WAIT_ANSWER)).ok()?;
    write!(stream, "GET {PATH_LIVE} HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    (&head == b"HTTP/1.1 200").then_some(())
}
