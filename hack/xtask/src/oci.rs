//! OCI archives without a container engine. In: layers made of folders and files, and what to run. Out: one tar file that containerd,
//! Docker and kind import. The same input gives the same bytes: names are sorted, times are zero, every file belongs to root.
//! It leaves to its callers what goes into a layer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cache::hex;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// tar writes in blocks of this many bytes.
const BLOCK: usize = 512;
/// A name longer than this does not fit the old header and gets an extended one before it.
const SHORT_NAME: usize = 100;

enum Node {
    Folder { mode: u32 },
    File { mode: u32, from: PathBuf },
    Text { mode: u32, text: String },
    Link { to: Vec<u8> },
}

/// One layer: paths without a leading slash, in order.
#[derive(Default)]
pub struct Layer(BTreeMap<Vec<u8>, Node>);

impl Layer {
    /// An empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file with the given content and mode, and the folders above it.
    #[must_use]
    pub fn text(mut self, path: &str, mode: u32, text: impl Into<String>) -> Self {
        self.parents(path.as_bytes());
        self.0.insert(path.into(), Node::Text { mode, text: text.into() });
        self
    }

    /// Adds a file of this machine, and the folders above it.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, from: &Path) -> Self {
        self.parents(path.as_bytes());
        self.0.insert(path.into(), Node::File { mode, from: from.to_path_buf() });
        self
    }

    /// Adds an empty folder with the given mode.
    #[must_use]
    pub fn folder(mut self, path: &str, mode: u32) -> Self {
        self.parents(path.as_bytes());
        self.0.insert(path.into(), Node::Folder { mode });
        self
    }

    /// Adds everything below a folder of this machine, at `prefix` (empty for the root). Devices and sockets are refused.
    ///
    /// # Errors
    /// Something in it cannot be read, or is neither a file, a folder nor a link.
    pub fn tree(mut self, prefix: &str, from: &Path) -> Result<Self> {
        if !prefix.is_empty() {
            self = self.folder(prefix, 0o755);
        }
        self.add_tree(prefix.as_bytes(), from)?;
        Ok(self)
    }

    fn add_tree(&mut self, prefix: &[u8], from: &Path) -> Result<()> {
        for entry in fs::read_dir(from).with_context(|| format!("cannot read the folder {}", from.display()))? {
            let entry = entry?;
            let (path, meta) = (entry.path(), entry.metadata()?);
            let mut name = prefix.to_vec();
            if !name.is_empty() {
                name.push(b'/');
            }
            name.extend_from_slice(entry.file_name().as_bytes());
            let mode = meta.permissions().mode() & 0o7777;
            if meta.is_dir() {
                self.0.insert(name.clone(), Node::Folder { mode });
                self.add_tree(&name, &path)?;
            } else if meta.is_symlink() {
                self.0.insert(name, Node::Link { to: fs::read_link(&path)?.as_os_str().as_bytes().to_vec() });
            } else if meta.is_file() {
                self.0.insert(name, Node::File { mode, from: path });
            } else {
                bail!("{} is neither a file, a folder nor a link: it cannot be in an image", path.display());
            }
        }
        Ok(())
    }

    /// Every path in it, and whether it is a file.
    #[cfg(test)]
    pub fn paths(&self) -> Vec<(String, bool)> {
        let is_file = |node: &Node| matches!(node, Node::File { .. } | Node::Text { .. });
        self.0.iter().map(|(path, node)| (String::from_utf8_lossy(path).into_owned(), is_file(node))).collect()
    }

    fn parents(&mut self, path: &[u8]) {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.0.entry(path[..at].to_vec()).or_insert(Node::Folder { mode: 0o755 });
        }
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        for (name, node) in &self.0 {
            match node {
                Node::Folder { mode } => header(out, &[name, &b"/"[..]].concat(), b'5', *mode, 0, b"")?,
                Node::Link { to } => header(out, name, b'2', 0o777, 0, to)?,
                Node::Text { mode, text } => {
                    header(out, name, b'0', *mode, text.len() as u64, b"")?;
                    content(out, &mut text.as_bytes(), text.len() as u64)?;
                }
                Node::File { mode, from } => {
                    let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
                    let size = file.metadata()?.len();
                    header(out, name, b'0', *mode, size, b"")?;
                    content(out, &mut BufReader::new(file), size).with_context(|| format!("cannot copy {}", from.display()))?;
                }
            }
        }
        end(out)
    }
}

/// What an image runs, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Program and leading arguments.
    pub entrypoint: Vec<String>,
    /// `NAME=value` lines besides `PATH`.
    pub env: Vec<String>,
    /// `uid:gid`, a name, or empty for root.
    pub user: String,
    /// Further images of the same layers in the same archive: each a tag in place of the reference's, and its user.
    pub also: Vec<(&'static str, &'static str)>,
    /// What registries show.
    pub labels: Vec<(String, String)>,
}

mod index;
pub use index::{Platform, write_index};

/// Writes the archive of an image called `reference` (`name:tag`), and of those beside it, and answers its manifest's digest.
///
/// # Errors
/// A layer's file cannot be read, or the archive cannot be written.
pub fn write_archive(out: &Path, reference: &str, layers: &[Layer], run: &Run) -> Result<String> {
    let mut blobs: Vec<(String, Blob)> = Vec::new();
    let mut descriptors = Vec::new();
    let folder = out.parent().context("an archive needs a folder")?;
    for (number, layer) in layers.iter().enumerate() {
        let file = folder.join(format!("layer-{number}.tmp"));
        let mut digest = Hashing::new(BufWriter::new(File::create(&file).with_context(|| format!("cannot make {}", file.display()))?));
        layer.write(&mut digest)?;
        let (digest, size) = digest.finish()?;
        descriptors.push(descriptor(LAYER, &digest, size));
        blobs.push((digest, Blob::File(file, size)));
    }
    let name = reference.split_once(':').map_or(reference, |(name, _)| name);
    let first = (reference.to_owned(), run.user.as_str());
    let others = run.also.iter().map(|(tag, user)| (format!("{name}:{tag}"), *user));
    let mut manifests = Vec::new();
    for (reference, user) in std::iter::once(first).chain(others) {
        let diff_ids: Vec<&str> = descriptors.iter().filter_map(|layer| layer["digest"].as_str()).collect();
        let of = Config { architecture: architecture(), user, diff_ids: &diff_ids, run };
        let mut manifest = manifest(&mut blobs, &of, &descriptors);
        manifest["annotations"] = names(&reference);
        manifests.push(manifest);
    }
    let answer = manifests[0]["digest"].as_str().unwrap_or_default().to_owned();
    write_blobs(out, &manifests, blobs)?;
    Ok(answer)
}

/// Writes an archive: its own index of these descriptors, and all that they lead to.
fn write_blobs(out: &Path, manifests: &[Value], mut blobs: Vec<(String, Blob)>) -> Result<()> {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    let file = File::create(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut archive = BufWriter::new(file);
    let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
    for (name, text) in [("oci-layout", layout), ("index.json", index.as_str())] {
        header(&mut archive, name.as_bytes(), b'0', 0o644, text.len() as u64, b"")?;
        content(&mut archive, &mut text.as_bytes(), text.len() as u64)?;
    }
    blobs.sort_by(|a, b| a.0.cmp(&b.0));
    let mut last = "";
    for (digest, blob) in &blobs {
        // Two images may share a layer.
        if let (true, Blob::File(path, _)) = (last == digest, blob) {
            fs::remove_file(path)?;
        }
        if last == digest {
            continue;
        }
        last = digest;
        let name = format!("blobs/sha256/{digest}");
        header(&mut archive, name.as_bytes(), b'0', 0o644, blob.size(), b"")?;
        match blob {
            Blob::Bytes(bytes) => content(&mut archive, &mut bytes.as_slice(), blob.size())?,
            Blob::File(path, size) => {
                content(&mut archive, &mut BufReader::new(File::open(path)?), *size)?;
                fs::remove_file(path)?;
            }
        }
    }
    end(&mut archive)?;
    archive.flush().context("cannot write the archive")
}

enum Blob {
    Bytes(Vec<u8>),
    File(PathBuf, u64),
}

impl Blob {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }
}

fn add_json(blobs: &mut Vec<(String, Blob)>, kind: &str, value: &Value) -> Value {
    let bytes = value.to_string().into_bytes();
    let digest = hex(&Sha256::digest(&bytes));
    let answer = descriptor(kind, &digest, bytes.len() as u64);
    blobs.push((digest, Blob::Bytes(bytes)));
    answer
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size})
}

/// What an image's configuration says.
struct Config<'a> {
    architecture: &'a str,
    user: &'a str,
    /// Digests of the layers before they are compressed.
    diff_ids: &'a [&'a str],
    run: &'a Run,
}

/// Adds the configuration and manifest of one image; answers the manifest's descriptor for the index.
fn manifest(blobs: &mut Vec<(String, Blob)>, of: &Config<'_>, layers: &[Value]) -> Value {
    let mut settings = json!({"Env": environment(of.run), "WorkingDir": "/", "Entrypoint": of.run.entrypoint});
    if !of.user.is_empty() {
        settings["User"] = json!(of.user);
    }
    for (key, value) in &of.run.labels {
        settings["Labels"][key] = json!(value);
    }
    let config = json!({
        "architecture": of.architecture, "os": "linux", "config": settings,
        "rootfs": {"type": "layers", "diff_ids": of.diff_ids},
        "history": vec![json!({"created_by": "cargo xtask images"}); layers.len()],
    });
    let config = add_json(blobs, CONFIG, &config);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    let mut manifest = add_json(blobs, MANIFEST, &manifest);
    manifest["platform"] = json!({"architecture": of.architecture, "os": "linux"});
    manifest
}

/// By which importers name an image.
fn names(reference: &str) -> Value {
    json!({"io.containerd.image.name": qualified(reference), "org.opencontainers.image.ref.name": tag(reference)})
}

fn environment(run: &Run) -> Vec<String> {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    std::iter::once(path).chain(run.env.iter().cloned()).collect()
}

/// This machine's processor in the words of OCI.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The full name that container runtimes give to a short one.
pub fn qualified(reference: &str) -> String {
    let first = reference.split('/').next().unwrap_or_default();
    let has_host = reference.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if has_host { reference.to_owned() } else { format!("docker.io/{reference}") }
}

fn tag(reference: &str) -> &str {
    reference.rsplit_once(':').map_or("latest", |(_, tag)| tag)
}

fn header(out: &mut impl Write, name: &[u8], kind: u8, mode: u32, size: u64, link: &[u8]) -> Result<()> {
    let mut extended = Vec::new();
    for (key, value) in [("path", name), ("linkpath", link)] {
        if value.len() > SHORT_NAME {
            extended.extend(record(key, value));
        }
    }
    if !extended.is_empty() {
        block(out, b"extended", b'x', 0o644, extended.len() as u64, b"")?;
        content(out, &mut extended.as_slice(), extended.len() as u64)?;
    }
    block(out, &name[..name.len().min(SHORT_NAME)], kind, mode, size, &link[..link.len().min(SHORT_NAME)])
}

/// An extended header record, `LENGTH KEY=VALUE\n`, whose length counts its own digits.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn block(out: &mut impl Write, name: &[u8], kind: u8, mode: u32, size: u64, link: &[u8]) -> Result<()> {
    let mut bytes = [0_u8; BLOCK];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, name);
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0"); // owner: root
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0"); // time: zero
    put(148, b"        "); // the checksum counts as blanks in itself
    put(156, &[kind]);
    put(157, link);
    put(257, b"ustar\x0000");
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&bytes).context("cannot write the archive")
}

fn content(out: &mut impl Write, from: &mut impl Read, size: u64) -> Result<()> {
    let copied = io::copy(&mut from.take(size), out).context("cannot write the archive")?;
    if copied != size {
        bail!("a file became shorter while it was read: {copied} of {size} bytes");
    }
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if rest != 0 {
        out.write_all(&[0; BLOCK][rest..]).context("cannot write the archive")?;
    }
    Ok(())
}

fn end(out: &mut impl Write) -> Result<()> {
    out.write_all(&[0; 2 * BLOCK]).context("cannot write the archive")
}

struct Hashing<W> {
    out: W,
    digest: Sha256,
    size: u64,
}

impl<W: Write> Hashing<W> {
    fn new(out: W) -> Self {
        Self { out, digest: Sha256::new(), size: 0 }
    }

    fn finish(mut self) -> io::Result<(String, u64)> {
        self.out.flush()?;
        Ok((hex(&self.digest.finalize()), self.size))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
