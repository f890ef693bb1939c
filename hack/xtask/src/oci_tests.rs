//! Tests of [`super`]: determinism, and that another tar reads what is written.

use super::*;
use std::process::Command;

fn sample(folder: &Path) -> Layer {
    fs::create_dir_all(folder.join("deep/deeper")).unwrap();
    fs::write(folder.join("deep/deeper/file"), "hello").unwrap();
    fs::write(folder.join("deep").join("n".repeat(150)), "long").unwrap();
    let link = folder.join("deep/link");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink("deeper/file", link).unwrap();
    Layer::new().text("etc/passwd", 0o644, "root:x:0:0::/:\n").folder("tmp", 0o1777).tree("opt", folder).unwrap()
}

fn archive(out: &Path, layer: Layer) -> (Vec<u8>, String) {
    let run =
        Run { entrypoint: vec!["/a".into()], env: vec!["B=1".into()], user: "65532:65532".into(), also: vec![("root", "")], labels: Vec::new() };
    let digest = write_archive(out, "qscaler/test:dev", &[layer], &run).unwrap();
    (fs::read(out).unwrap(), digest)
}

#[test]
fn the_same_files_give_the_same_bytes_whatever_their_times_are() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("s"), folder.path().join("o.tar"));
    let first = archive(&out, sample(&source));
    fs::write(source.join("deep/deeper/file"), "hello").unwrap();
    let again = archive(&out, sample(&source));
    assert!(first == again);
    fs::write(source.join("deep/deeper/file"), "other").unwrap();
    let layer = Layer::new().text("etc/passwd", 0o644, "root:x:0:0::/:\n").folder("tmp", 0o1777).tree("opt", &source).unwrap();
    assert_ne!(first.1, archive(&out, layer).1);
}

#[test]
fn another_tar_reads_long_names_links_and_modes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("layer.tar");
    sample(&folder.path().join("s")).write(&mut File::create(&file).unwrap()).unwrap();
    let listed = Command::new("tar").arg("-tvf").arg(&file).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).unwrap();
    for wanted in ["drwxrwxrwt", "etc/passwd", "opt/deep/deeper/file", "opt/deep/link -> deeper/file", &"n".repeat(150)] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
}

#[test]
fn the_archive_names_itself_for_every_importer() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, digest) = archive(&folder.path().join("o.tar"), Layer::new().text("a", 0o755, "x"));
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("docker.io/qscaler/test:dev") && text.contains("imageLayoutVersion"));
    assert!(text.contains("docker.io/qscaler/test:root"), "the same layers under another tag, with another user");
    assert_eq!(text.matches("\"User\"").count(), 1);
    assert!(text.contains(&format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"))));
}

#[test]
fn a_record_s_length_counts_its_own_digits() {
    for size in 85..115 {
        let bytes = record("path", &vec![b'x'; size]);
        let length: usize = String::from_utf8(bytes.clone()).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(length, bytes.len());
    }
}

#[test]
fn a_name_with_a_host_is_left_as_it_is() {
    assert_eq!(qualified("qscaler/qscaler:dev"), "docker.io/qscaler/qscaler:dev");
    assert_eq!(qualified("registry.k8s.io/pause:3"), "registry.k8s.io/pause:3");
    assert_eq!(qualified("localhost/x:1"), "localhost/x:1");
    assert_eq!(tag("a/b:c"), "c");
}
