//! The program as a user starts it: what it prints, and its exit code.

use std::io::Write;
use std::process::{Command, Stdio};

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

#[test]
fn a_manifest_goes_in_and_comes_back_through_pipes_and_one_with_a_mistake_writes_nothing() {
    let run = |command: &str, text: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-qscaler"))
            .args([command, "-f", "-", "-n", "shop"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let text = "# by hand\nkind: Deployment\nmetadata:\n  name: orders\n  annotations: {qscaler.dev/queue: q, qscaler.dev/broker: env:URL, qscaler.dev/max-replicas: '5'}\n\
                spec: {template: {spec: {containers: [{name: worker, image: w}]}}}";
    let (code, made, said) = run("inject", text);
    assert_eq!(code, Some(0), "{said}");
    assert!(made.contains("- name: qscaler-sidecar\n") && said.contains("document 1 (Deployment orders): injected"), "{made}{said}");
    assert_eq!(run("uninject", &made), (Some(0), text.to_owned(), "document 1: as it was before, byte for byte\n".to_owned()));
    let (code, made, said) = run("inject", &text.replace("'5'", "many"));
    assert_eq!((code, made.as_str()), (Some(1), ""));
    assert!(said.contains("document 1 (Deployment orders): qscaler.dev/max-replicas: \"many\""), "{said}");
}
