//! The program as a user starts it: what it prints, and its exit code.

use std::process::Command;

#[test]
fn a_trace_with_a_bad_line_is_refused_in_one_line_that_says_what_is_valid() {
    let folder = std::env::temp_dir().join(format!("qscaler-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let trace = folder.join("bad.csv");
    std::fs::write(&trace, "arrival_s,duration_s\n1,2\nx,3\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-qscaler"));
    let output = command.args(["simulate", "--trace"]).arg(&trace).env("RUST_BACKTRACE", "1").output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.starts_with("error: ") && text.lines().count() == 1, "{text}");
    assert!(text.contains("line 3") && text.contains("\"x,3\"") && text.contains("valid is"), "{text}");
}

#[test]
fn a_context_that_is_none_is_refused_with_those_that_are() {
    let path = std::env::temp_dir().join(format!("qscaler-cli-{}.kubeconfig", std::process::id()));
    let config = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "blue", "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "blue", "context": {"cluster": "c", "user": "u"}}, {"name": "green", "context": {"cluster": "c", "user": "u"}}]}"#;
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-qscaler"));
    let output = command.args(["status", "-A", "-o", "json", "--context", "grey", "--kubeconfig"]).arg(&path).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("valid: one of blue, green") && text.lines().count() == 1, "{text}");
}
