//! The images that clusters run. In: an image and how to compile. Out: its OCI archive in the cache, made again only if what is in it
//! changed. It leaves the archive's format to [`crate::oci`] and importing to [`crate::cluster`].

mod workers;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Key};
use crate::cluster::parts;
use crate::exec;
use crate::oci::{self, Layer, Run};
use crate::step::Step;
use crate::{debian, source_root};

/// The user of QScaler's own images: the number that distroless images use for "nonroot".
const NONROOT: u32 = 65532;
/// Raised when the code here changes what an image holds although its inputs are the same.
const RECIPE: &str = "2";

/// An image that this project makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Image {
    /// Webhook, controller and certs
    Qscaler,
    /// The sidecar
    QscalerSidecar,
    /// A stock worker: Python with Celery, RQ, Dramatiq, huey, pika and arq, and nothing of this project
    WorkerPython,
    /// A stock worker: Node.js with BullMQ
    WorkerNode,
    /// A stock worker: Ruby with Sidekiq
    WorkerRuby,
    /// The first process of every pod of the local cluster
    Pause,
    /// DNS of the local cluster
    Coredns,
}

/// How this project's own programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// As they are shipped.
    #[default]
    Release,
    /// As a release, with the compiler's first optimisations alone: for clusters on this machine.
    Stand,
    /// Quicker to compile, for development.
    Dev,
}

impl Image {
    /// Every image.
    pub const ALL: [Self; 7] =
        [Self::Qscaler, Self::QscalerSidecar, Self::WorkerPython, Self::WorkerNode, Self::WorkerRuby, Self::Pause, Self::Coredns];
    /// The images of this project's own programs.
    pub const PROGRAMS: [Self; 2] = [Self::Qscaler, Self::QscalerSidecar];
    /// What a cluster with QScaler and Python's workers runs.
    pub const STAND_SMALL: [Self; 3] = [Self::Qscaler, Self::QscalerSidecar, Self::WorkerPython];
    /// What a cluster with QScaler and every worker runs.
    pub const STAND: [Self; 5] = [Self::Qscaler, Self::QscalerSidecar, Self::WorkerPython, Self::WorkerNode, Self::WorkerRuby];

    /// `name:tag`, as pods name it.
    pub fn reference(self) -> &'static str {
        match self {
            Self::Qscaler => "qscaler/qscaler:dev",
            Self::QscalerSidecar => "qscaler/qscaler-sidecar:dev",
            Self::WorkerPython => "qscaler/worker-python:dev",
            Self::WorkerNode => "qscaler/worker-node:dev",
            Self::WorkerRuby => "qscaler/worker-ruby:dev",
            Self::Pause => "qscaler/pause:dev",
            Self::Coredns => "qscaler/coredns:dev",
        }
    }

    /// Its name without registry and tag.
    pub fn name(self) -> &'static str {
        self.reference().trim_start_matches("qscaler/").trim_end_matches(":dev")
    }

    /// This project's programs in the image; each is a package of the same name.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Qscaler => &["qscaler-webhook", "qscaler-controller", "qscaler-certs"],
            Self::QscalerSidecar => &["qscaler-sidecar"],
            _ => &[],
        }
    }

    /// How one of this project's images is run: with one program it runs it; with several the pod names one.
    pub fn run(self) -> Run {
        let entrypoint = if let [program] = self.programs() { vec![format!("/usr/local/bin/{program}")] } else { Vec::new() };
        Run { entrypoint, user: format!("{NONROOT}:{NONROOT}"), ..Run::default() }
    }
}

impl Profile {
    /// Cargo's name for it, and of the folder that it fills.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Release => ("release", "release"),
            Self::Stand => ("stand", "stand"),
            Self::Dev => ("dev", "debug"),
        }
    }
}

/// Makes the archives of several images and answers their paths, in order. This project's programs are compiled in one go.
///
/// # Errors
/// A program does not compile, or a part cannot be fetched.
pub fn build(cache: &Cache, images: &[Image], profile: Profile) -> Result<Vec<PathBuf>> {
    let programs: Vec<(&str, &str)> = images.iter().flat_map(|image| image.programs().iter().map(|name| (*name, *name))).collect();
    let folder = if programs.is_empty() { PathBuf::new() } else { compile(&programs, profile)? };
    images.iter().map(|image| build_one(cache, *image, &folder)).collect()
}

fn build_one(cache: &Cache, image: Image, programs: &Path) -> Result<PathBuf> {
    match image {
        Image::Qscaler | Image::QscalerSidecar => program_image(cache, image, programs),
        Image::WorkerPython => workers::python(cache),
        Image::WorkerNode => workers::node(cache),
        Image::WorkerRuby => workers::ruby(cache),
        Image::Pause => single(cache, image, "pause", &parts::init(cache)?),
        Image::Coredns => single(cache, image, "coredns", &parts::coredns(cache)?),
    }
}

/// Compiles programs, each a package and a binary of it, as static binaries, and answers the folder they are in.
///
/// The packages of the images are named too, whatever is compiled: cargo gives a dependency the features that the named packages ask for together, and with others
/// it would compile most of them a second time.
///
/// # Errors
/// One does not compile.
pub fn compile(programs: &[(&str, &str)], profile: Profile) -> Result<PathBuf> {
    let names: Vec<&str> = programs.iter().map(|(_, name)| *name).collect();
    let step = Step::start(format!("compiling {}", names.join(", ")));
    let (mut command, folder) = cargo_static(profile);
    command.args(selection(programs));
    exec::output(&mut command)?;
    step.done();
    Ok(folder)
}

/// The packages and programs as arguments of cargo.
pub(crate) fn selection<'n>(programs: &[(&'n str, &'n str)]) -> Vec<&'n str> {
    let of_images = Image::PROGRAMS.iter().flat_map(|image| image.programs()).copied();
    let packages: BTreeSet<&str> = of_images.chain(programs.iter().map(|(package, _)| *package)).collect();
    packages.into_iter().flat_map(|package| ["--package", package]).chain(programs.iter().flat_map(|(_, name)| ["--bin", name])).collect()
}

/// `cargo build` of static programs, still without packages, and the folder that it fills.
#[must_use]
pub fn cargo_static(profile: Profile) -> (Command, PathBuf) {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let (profile_name, folder) = profile.names();
    let mut command = exec::cargo(&["build", "--quiet", "--locked", "--target", &target, "--profile", profile_name]);
    // For this target only, so that build scripts and the developer's own builds are left alone.
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.replace('-', "_").to_uppercase());
    command.env_remove("RUSTFLAGS").env(flags, "-C target-feature=+crt-static").env("CARGO_PROFILE_DEV_STRIP", "symbols");
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source_root().join("target"), PathBuf::from);
    (command, built.join(target).join(folder))
}

fn program_image(cache: &Cache, image: Image, folder: &Path) -> Result<PathBuf> {
    let authorities = certificate_authorities(cache)?;
    let mut key = Key::new().with(RECIPE).with(image.reference()).with(&authorities);
    let mut programs = Layer::new();
    for program in image.programs() {
        let file = folder.join(program);
        key = key.file(&file)?;
        programs = programs.file(&format!("usr/local/bin/{program}"), 0o755, &file);
    }
    archive(cache, image, key, || Ok((vec![static_base(&authorities), programs], image.run())))
}

/// What a static program on an empty root looks for: who it is, how names resolve, whom to trust.
pub(crate) fn static_base(authorities: &str) -> Layer {
    Layer::new()
        .text("etc/passwd", 0o644, format!("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/:/sbin/nologin\n"))
        .text("etc/group", 0o644, format!("root:x:0:\nnonroot:x:{NONROOT}:\n"))
        .text("etc/nsswitch.conf", 0o644, "hosts: files dns\n")
        .text("etc/ssl/certs/ca-certificates.crt", 0o644, authorities)
        .folder("tmp", 0o1777)
}

/// The public certificate authorities: Debian's package where it can be had, so that the image does not carry this machine's own.
pub(crate) fn certificate_authorities(cache: &Cache) -> Result<String> {
    if debian::require("ca-certificates", "ca-certificates").is_err() {
        for file in ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"] {
            if let Ok(text) = fs::read_to_string(file) {
                return Ok(text);
            }
        }
        bail!("no certificate authorities on this machine: install ca-certificates");
    }
    let folder = cache.once("ca-certificates", &Key::new().with(RECIPE).finish(), |folder| {
        debian::unpack(cache, &["ca-certificates".to_owned()], &folder.join("root"))
    })?;
    let mozilla = folder.join("root/usr/share/ca-certificates/mozilla");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&mozilla).with_context(|| format!("cannot read {}", mozilla.display()))?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut all = String::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        all.push_str(text.trim_end());
        all.push('\n');
    }
    Ok(all)
}

fn single(cache: &Cache, image: Image, name: &str, program: &Path) -> Result<PathBuf> {
    let key = Key::new().with(RECIPE).with(image.reference()).file(program)?;
    archive(cache, image, key, || {
        let run = Run { entrypoint: vec![format!("/{name}")], ..Run::default() };
        Ok((vec![Layer::new().file(name, 0o755, program)], run))
    })
}

fn archive(cache: &Cache, image: Image, key: Key, parts: impl FnOnce() -> Result<(Vec<Layer>, Run)>) -> Result<PathBuf> {
    let file = format!("{}.tar", image.name());
    let folder = cache.once(&format!("image-{}", image.name()), &key.with(oci::architecture()).finish(), |folder| {
        let step = Step::start(format!("making the image {}", image.reference()));
        let (layers, run) = parts()?;
        let digest = oci::write_archive(&folder.join(&file), image.reference(), &layers, &run)?;
        fs::write(folder.join("digest"), digest)?;
        step.done();
        Ok(())
    })?;
    Ok(folder.join(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_a_reference_and_a_file_name_of_its_own() {
        let mut names: Vec<_> = Image::ALL.iter().map(|image| image.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Image::ALL.len());
        assert_eq!(Image::QscalerSidecar.name(), "qscaler-sidecar");
    }

    /// By what cargo itself says that it would compile, in the tree as it is.
    #[test]
    fn the_demo_compiles_no_dependency_a_second_time() {
        let features = |programs: &[(&str, &str)]| -> BTreeSet<String> {
            let mut tree = exec::cargo(&["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p} {f}"]);
            tree.args(["--target", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)]);
            let words = selection(programs).into_iter().collect::<Vec<_>>();
            tree.args(words.chunks(2).filter(|pair| pair[0] == "--package").flatten());
            exec::output(&mut tree).expect("cargo tree").lines().map(|line| line.trim_end_matches(" (*)").trim().to_owned()).collect()
        };
        let images: Vec<(&str, &str)> = Image::PROGRAMS.iter().flat_map(|image| image.programs()).map(|name| (*name, *name)).collect();
        let (of_images, of_demo) = (features(&images), features(&[("qscaler-tests", "demo")]));
        assert!(of_images.len() > 100, "{of_images:?}");
        // Without its features a crate is a name and a version. One that the demo alone needs is compiled once, by it.
        let crate_of = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let shared: BTreeSet<String> = of_images.iter().map(|line| crate_of(line)).collect();
        let other: Vec<&String> = of_demo.difference(&of_images).filter(|line| shared.contains(&crate_of(line))).collect();
        assert!(other.is_empty(), "these have other features than in the images, and all that depends on them is compiled twice: {other:?}");
    }

    #[test]
    fn an_image_of_ours_has_programs_authorities_and_names_alone_and_runs_as_nobody() {
        for image in Image::PROGRAMS {
            assert_eq!(image.run().user, "65532:65532", "{image:?}");
        }
        let files: Vec<String> = static_base("authorities").paths().into_iter().filter(|(_, is_file)| *is_file).map(|(path, _)| path).collect();
        assert_eq!(files, ["etc/group", "etc/nsswitch.conf", "etc/passwd", "etc/ssl/certs/ca-certificates.crt"], "no shell, no package manager");
    }
}
