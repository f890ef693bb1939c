//! The stock workers' images: Debian's interpreters, unpacked onto an empty root, and each language's pinned packages above them. In: the lists in
//! `hack/images`. Out: their archives in the cache. Nothing of this project is in them; the archive's format is left to [`crate::oci`].

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Image, RECIPE, archive, certificate_authorities};
use crate::cache::{Cache, Key};
use crate::golang::pip_install;
use crate::oci::{Layer, Run};
use crate::{debian, exec};

const PYTHON_PACKAGES: &str = include_str!("../../../images/worker-python/packages.txt");
const REQUIREMENTS: &str = include_str!("../../../images/worker-python/requirements.txt");
const REQUIREMENTS_ARQ: &str = include_str!("../../../images/worker-python/requirements-arq.txt");
const NODE_PACKAGES: &str = include_str!("../../../images/worker-node/packages.txt");
const NODE_MANIFEST: &str = include_str!("../../../images/worker-node/package.json");
const NODE_LOCK: &str = include_str!("../../../images/worker-node/package-lock.json");
const RUBY_PACKAGES: &str = include_str!("../../../images/worker-ruby/packages.txt");

/// The user of the worker images.
const WORKER: u32 = 1000;
/// The same images as others write them: without a user, which is root, and with a user that is a name.
const OTHER_USERS: [(&str, &str); 2] = [("root", ""), ("named", "worker")];
/// What pip would put into a `bin`: a program's name, its module, and the function that it calls.
const SCRIPTS: [(&str, &str, &str); 4] = [
    ("celery", "celery.__main__", "main"),
    ("rq", "rq.cli", "main"),
    ("supervisord", "supervisor.supervisord", "main"),
    ("honcho", "honcho.command", "main"),
];
/// BusyBox stands in for these where no package brings them.
const TOOLS: [&str; 18] =
    ["sh", "ls", "cat", "ps", "nslookup", "nc", "sleep", "kill", "id", "env", "wget", "tee", "tail", "setsid", "nohup", "grep", "mkdir", "touch"];

/// Python with Celery, RQ, Dramatiq, Huey, pika, supervisors; arq in a folder of its own.
pub(super) fn python(cache: &Cache) -> Result<PathBuf> {
    let key = [PYTHON_PACKAGES, REQUIREMENTS, REQUIREMENTS_ARQ];
    worker(cache, Image::WorkerPython, "Python", &key, PYTHON_PACKAGES, |work, root| {
        symlink("python3.11", root.join("usr/bin/python3")).context("cannot link python3")?;
        let mut layers = vec![Layer::new().tree("", root)?, scripts()];
        for (folder, requirements) in [("opt/site", REQUIREMENTS), ("opt/arq", REQUIREMENTS_ARQ)] {
            let target = work.join(folder.replace('/', "-"));
            let list = work.join("requirements.txt");
            write(&list, requirements)?;
            pip_pure(&target, &list)?;
            layers.push(Layer::new().tree(folder, &target)?);
        }
        Ok((layers, run("/usr/bin/python3", &["PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=/opt/site:/app"])))
    })
}

/// Programs as pip installs them, for the image's own Python: the kernel names such a process after its script.
fn scripts() -> Layer {
    SCRIPTS.iter().fold(Layer::new(), |layer, (name, module, function)| {
        let text = format!("#!/usr/bin/python3\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n");
        layer.text(&format!("usr/local/bin/{name}"), 0o755, text)
    })
}

/// Node.js with BullMQ, npm and pm2.
pub(super) fn node(cache: &Cache) -> Result<PathBuf> {
    let key = [NODE_PACKAGES, NODE_MANIFEST, NODE_LOCK];
    worker(cache, Image::WorkerNode, "Node.js", &key, NODE_PACKAGES, |work, root| {
        let site = work.join("site");
        npm_pure(&site)?;
        Ok((vec![Layer::new().tree("", root)?, Layer::new().tree("opt/site", &site)?], run("/usr/bin/node", &["NODE_PATH=/opt/site/node_modules"])))
    })
}

/// Ruby with Sidekiq, both Debian's.
pub(super) fn ruby(cache: &Cache) -> Result<PathBuf> {
    worker(cache, Image::WorkerRuby, "Ruby", &[RUBY_PACKAGES], RUBY_PACKAGES, |_, root| {
        Ok((vec![Layer::new().tree("", root)?], run("/usr/bin/ruby", &[])))
    })
}

fn run(program: &str, env: &[&str]) -> Run {
    let env = env.iter().chain(&["LANG=C.UTF-8"]).map(|pair| (*pair).to_owned()).collect();
    Run { entrypoint: vec![program.to_owned()], env, user: format!("{WORKER}:{WORKER}"), also: OTHER_USERS.to_vec(), labels: Vec::new() }
}

/// Unpacks the packages onto a root, lets `parts` add to it, and puts it all into an archive.
fn worker(
    cache: &Cache,
    image: Image,
    language: &str,
    key: &[&str],
    packages: &str,
    parts: impl FnOnce(&Path, &Path) -> Result<(Vec<Layer>, Run)>,
) -> Result<PathBuf> {
    let key = key.iter().fold(Key::new().with(RECIPE).with(image.reference()), |key, part| key.with(part));
    let work = cache.path(&format!("{}-parts", image.name()));
    let answer = archive(cache, image, key, || {
        debian::require(&format!("{language} for the worker image"), "nothing else: the image is made of Debian's packages")?;
        remove(&work)?;
        let root = work.join("root");
        unpack(cache, packages, &root)?;
        parts(&work, &root)
    })?;
    remove(&work)?;
    Ok(answer)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Installs pinned, pure Python packages for the image's Python, whichever Python runs pip.
fn pip_pure(target: &Path, requirements: &Path) -> Result<()> {
    let list = requirements.display().to_string();
    let mut arguments = vec!["--no-deps", "--require-hashes", "--only-binary=:all:", "--platform=any", "--implementation=py", "--abi=none"];
    arguments.extend(["--python-version=3.11", "-r", &list]);
    pip_install(target, &arguments)?;
    // Scripts name the machine's Python; the image runs modules (`python3 -m celery`).
    remove(&target.join("bin"))
}

/// Installs the pinned packages of the lock file, each checked against its hash; no package runs anything, and none is compiled.
fn npm_pure(target: &Path) -> Result<()> {
    let Some(npm) = exec::which("npm") else { bail!("npm is missing: install npm, which fetches the packages of the Node.js worker image") };
    fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
    write(&target.join("package.json"), NODE_MANIFEST)?;
    write(&target.join("package-lock.json"), NODE_LOCK)?;
    let mut command = Command::new(npm);
    command.current_dir(target).args(["ci", "--ignore-scripts", "--omit=dev", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error"]);
    exec::output(&mut command).map(drop)
}

fn unpack(cache: &Cache, packages: &str, root: &Path) -> Result<()> {
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    for (link, folder) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        fs::create_dir_all(root.join(folder))?;
        symlink(folder, root.join(link)).with_context(|| format!("cannot link {link}"))?;
    }
    for folder in ["etc", "proc", "sys", "dev", "run", "app", "home"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for folder in ["tmp", "var/tmp"] {
        fs::create_dir_all(root.join(folder))?;
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o1777))?;
    }
    let packages: Vec<String> = lines(packages).map(str::to_owned).collect();
    debian::unpack(cache, &packages, root)?;
    for tool in TOOLS {
        if fs::symlink_metadata(root.join("usr/bin").join(tool)).is_err() {
            symlink("busybox", root.join("usr/bin").join(tool))?;
        }
    }
    let passwd = format!("root:x:0:0:root:/:/bin/sh\nworker:x:{WORKER}:{WORKER}:worker:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
    fs::write(root.join("etc/passwd"), passwd)?;
    fs::write(root.join("etc/group"), format!("root:x:0:\nworker:x:{WORKER}:\nnogroup:x:65534:\n"))?;
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    fs::create_dir_all(root.join("etc/ssl/certs"))?;
    fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), certificate_authorities(cache)?)?;
    for unused in ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bug", "usr/share/ri", "usr/include"] {
        remove(&root.join(unused))?;
    }
    Ok(())
}

/// Names without comments and empty lines.
fn lines(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_python_package_is_pinned_with_its_hash() {
        for line in lines(REQUIREMENTS).chain(lines(REQUIREMENTS_ARQ)) {
            assert!(line.contains("==") && line.contains(" --hash=sha256:"), "{line}");
        }
    }

    #[test]
    fn every_node_package_is_pinned_with_its_hash_and_names_no_place() {
        let lock: serde_json::Value = serde_json::from_str(NODE_LOCK).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        assert!(packages.contains_key("node_modules/bullmq") && packages.contains_key("node_modules/ioredis"));
        // What another package brings along is covered by that one's hash.
        for (name, package) in packages.iter().filter(|(name, package)| !name.is_empty() && package["inBundle"] != true) {
            assert!(package["integrity"].as_str().is_some_and(|hash| hash.starts_with("sha512-")), "{name}");
            assert!(package.get("resolved").is_none(), "{name}");
        }
    }
}
