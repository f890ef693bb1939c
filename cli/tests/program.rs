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
