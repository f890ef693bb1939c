//! The program itself: what it says and how it ends when it is not started as it should be.
// A test crate: a failed unwrap is a failed test with a line number, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qscaler-sidecar"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).output().expect("the program can be started")
}

#[test]
fn a_bad_environment_ends_in_code_64_and_one_line_that_names_every_mistake() {
    let output = run(&[], &[("QSCALER_CONFIG", "{"), ("QSCALER_BROKER_URL", "redis://:hunter2@[::1")]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(64), 1), "{text}");
    for name in ["QSCALER_CONFIG", "QSCALER_BROKER_URL", "QSCALER_POD_UID", "QSCALER_POD_NAME"] {
        assert!(text.contains(name), "{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn an_unknown_argument_ends_in_code_64_and_says_which_are_known() {
    let output = run(&["wiat"], &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(text.contains("wiat") && text.contains("run") && text.contains("wait"), "{text}");
}
