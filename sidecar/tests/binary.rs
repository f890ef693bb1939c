//! The program itself: what it says and how it ends when it is not started as it should be.
// A test crate: a failed unwrap is a failed test with a line number, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qscaler-sidecar"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).output().expect("the program can be started")
}

/// Only this test binds the sidecar's port.
#[test]
fn a_bad_environment_is_no_reason_not_to_start_and_the_log_names_every_mistake() {
    let config = r#"{"version": 1, "shareProcesses": false, "busy": "telepathy"}"#;
    let mut sidecar = Command::new(env!("CARGO_BIN_EXE_qscaler-sidecar"))
        .env_clear()
        .envs([("QSCALER_CONFIG", config), ("QSCALER_BROKER_URL", "redis://:hunter2@[::1")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let waited = run(&["wait"], &[]);
    let (pid, mut said) = (sidecar.id(), String::new());
    let stopped = Command::new("kill").arg(pid.to_string()).status().unwrap().success();
    let ended = sidecar.wait().unwrap();
    sidecar.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    sidecar.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(waited.status.success() && stopped && ended.success(), "{said}");
    for name in ["BrokerUnreachable", "Misconfigured", "busy", "hookToken", "QSCALER_BROKER_URL", "QSCALER_POD_UID", "QSCALER_POD_NAME"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn an_unknown_argument_ends_in_code_64_and_says_which_are_known() {
    let output = run(&["wiat"], &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(text.contains("wiat") && text.contains("run") && text.contains("wait"), "{text}");
}
