//! One archive for several processors. In: layers of each, and what to run. Out: an archive whose index leads to an index of images, as registries keep them, with
//! compressed layers. It leaves the parts of the format to [`super`].

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Blob, Config, Hashing, INDEX, Layer, Run, add_json, descriptor, manifest, names, write_blobs};

const COMPRESSED: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image for one processor.
pub struct Platform {
    /// In the words of OCI, such as `arm64`.
    pub architecture: &'static str,
    /// From the lowest.
    pub layers: Vec<Layer>,
}

/// Writes the archive of an image called `reference` (`name:tag`) and answers the digest of its index. The same input gives the same bytes.
///
/// # Errors
/// A layer's file cannot be read, `gzip` fails, or the archive cannot be written.
pub fn write_index(out: &Path, reference: &str, platforms: &[Platform], run: &Run) -> Result<String> {
    let folder = out.parent().context("an archive needs a folder")?;
    let (mut blobs, mut manifests) = (Vec::new(), Vec::new());
    for platform in platforms {
        let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
        for (number, layer) in platform.layers.iter().enumerate() {
            let plain = folder.join(format!("layer-{}-{number}.tmp", platform.architecture));
            let mut hashing = Hashing::new(BufWriter::new(File::create(&plain).with_context(|| format!("cannot make {}", plain.display()))?));
            layer.write(&mut hashing)?;
            diff_ids.push(format!("sha256:{}", hashing.finish()?.0));
            let (digest, size) = compressed(&plain)?;
            descriptors.push(descriptor(COMPRESSED, &digest, size));
            blobs.push((digest, Blob::File(plain.with_extension("gz"), size)));
            fs::remove_file(&plain)?;
        }
        let diff_ids: Vec<&str> = diff_ids.iter().map(String::as_str).collect();
        let of = Config { architecture: platform.architecture, user: &run.user, diff_ids: &diff_ids, run };
        manifests.push(manifest(&mut blobs, &of, &descriptors));
    }
    let labels: serde_json::Map<String, serde_json::Value> = run.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": labels});
    let mut index = add_json(&mut blobs, INDEX, &index);
    let digest = index["digest"].as_str().unwrap_or_default().to_owned();
    index["annotations"] = names(reference);
    write_blobs(out, &[index], blobs)?;
    Ok(digest)
}

/// Compresses a file into one beside it with the ending `gz`, without its name and time; answers digest and size.
fn compressed(plain: &Path) -> Result<(String, u64)> {
    let target = plain.with_extension("gz");
    let file = File::create(&target).with_context(|| format!("cannot make {}", target.display()))?;
    let status = Command::new("gzip").args(["-9", "-n", "-c"]).arg(plain).stdout(Stdio::from(file)).status().context("cannot run gzip")?;
    ensure!(status.success(), "gzip of {}: {status}", plain.display());
    let mut hashing = Hashing::new(std::io::sink());
    std::io::copy(&mut File::open(&target)?, &mut hashing)?;
    Ok(hashing.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platforms() -> Vec<Platform> {
        let base = || Layer::new().text("etc/passwd", 0o644, "root:x:0:0::/:\n");
        ["amd64", "arm64"].map(|architecture| Platform { architecture, layers: vec![base(), Layer::new().text("p", 0o755, architecture)] }).into()
    }

    #[test]
    fn an_index_leads_to_an_image_of_each_processor_and_its_bytes_are_the_same_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = Run { labels: vec![("org.opencontainers.image.version".to_owned(), "1".to_owned())], ..Run::default() };
        let (first, second) = (folder.path().join("a.tar"), folder.path().join("b.tar"));
        let digest = write_index(&first, "ghcr.io/q/q:1", &platforms(), &run).expect("an archive");
        assert_eq!(digest, write_index(&second, "ghcr.io/q/q:1", &platforms(), &run).expect("an archive"));
        assert!(fs::read(&first).expect("it is there") == fs::read(&second).expect("it is there"));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing is left beside the archives");
        let of = |name: &str| {
            let out = Command::new("tar").arg("-xOf").arg(&first).arg(name).output().expect("tar");
            serde_json::from_slice::<serde_json::Value>(&out.stdout).expect("JSON")
        };
        let blob = |digest: &serde_json::Value| of(&format!("blobs/{}", digest.as_str().unwrap_or_default().replace(':', "/")));
        let outer = of("index.json");
        assert_eq!((outer["manifests"].as_array().map(Vec::len), &outer["manifests"][0]["digest"]), (Some(1), &json!(digest)));
        assert_eq!(outer["manifests"][0]["annotations"]["io.containerd.image.name"], "ghcr.io/q/q:1");
        let inner = blob(&outer["manifests"][0]["digest"]);
        let images = inner["manifests"].as_array().cloned().unwrap_or_default();
        assert_eq!(images.iter().map(|m| m["platform"]["architecture"].clone()).collect::<Vec<_>>(), [json!("amd64"), json!("arm64")]);
        let manifests: Vec<_> = images.iter().map(|image| blob(&image["digest"])).collect();
        assert_eq!(manifests[0]["layers"][0], manifests[1]["layers"][0], "what both share is there once");
        assert_ne!(manifests[0]["layers"][1], manifests[1]["layers"][1]);
        for manifest in manifests {
            let config = blob(&manifest["config"]["digest"]);
            assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1");
            let layer = manifest["layers"][1]["digest"].as_str().unwrap_or_default().replace(':', "/");
            let unpacked = format!("tar -xOf '{}' blobs/{layer} | gzip -dc | sha256sum", first.display());
            let sum = crate::exec::output(Command::new("sh").args(["-c", &unpacked])).expect("a sum");
            assert_eq!(config["rootfs"]["diff_ids"][1], format!("sha256:{}", sum.split(' ').next().unwrap_or_default()));
        }
    }
}
