//! `kubectl qscaler inject` and `uninject`: the sidecar in a manifest, for whoever wants to see it before it is there, or has no webhook. In: a file, or standard
//! input. Out: the same file, in which annotated Deployments (and pods of such) are as the webhook would make them, or were before; every other document byte for
//! byte. It needs no cluster. Left to others: what is injected (`qscaler_inject`, the webhook's own code).
//!
//! A changed document is written anew, since its comments and its style have no place in what a patch is made of; the lines that it was made from stay in it as
//! comments, which no cluster sees, and `uninject` gives them back byte for byte. Where they are gone, or the document was edited, the annotation
//! `qscaler.dev/uninject` leads back to the same values.

mod documents;
mod object;
mod yaml;

use anyhow::{Context, Result, bail};
use documents::{Document, KeptDocument, split};
use object::{Done, With};
use qscaler_inject::{Allowed, Settings};
use rand::Rng;
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct InjectArgs {
    #[command(flatten)]
    from: From,
    /// The sidecar's image [default: the release's own]
    #[arg(long)]
    image: Option<String>,
    /// Always, IfNotPresent or Never
    #[arg(long, default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pull_policy: String,
    /// A Secret of the pods' namespace by which the image may be pulled; may be repeated
    #[arg(long = "pull-secret", value_name = "NAME")]
    pull_secrets: Vec<String>,
    /// The namespace does not enforce the Pod Security level `restricted`: while the worker's user is not known the sidecar may be root with the capability KILL alone
    #[arg(long)]
    allow_root: bool,
}

#[derive(clap::Args)]
pub(crate) struct UninjectArgs {
    #[command(flatten)]
    from: From,
}

#[derive(clap::Args)]
struct From {
    /// The manifest, YAML or JSON; `-`: standard input
    #[arg(long, short)]
    filename: PathBuf,
}

impl From {
    fn read(&self) -> Result<String> {
        if self.filename == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            return Ok(text);
        }
        std::fs::read_to_string(&self.filename).with_context(|| format!("cannot read {}", self.filename.display()))
    }
}

/// What comes of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// For standard output.
    pub(crate) text: String,
    /// For standard error: a line for each object that is changed, and each warning.
    pub(crate) said: Vec<String>,
}

/// `inject`; `namespace`: of objects that name none.
///
/// # Errors
/// The file cannot be read, a document is no YAML, or an annotated workload cannot be injected: all of them at once, and nothing is written.
pub(crate) fn inject(args: &InjectArgs, namespace: Option<&str>) -> Result<Written> {
    let token = || format!("{:032x}", rand::rng().random::<u128>());
    let mut settings = Settings { pull_policy: args.pull_policy.clone(), pull_secrets: args.pull_secrets.clone(), ..Settings::default() };
    if let Some(image) = &args.image {
        settings.image.clone_from(image);
    }
    let allowed = Allowed { root: args.allow_root, ..Allowed::default() };
    injected(&args.from.read()?, &With { settings: &settings, allowed, namespace, token: &token })
}

/// `uninject`.
///
/// # Errors
/// As [`inject`]; an object has the sidecar, and nothing in it leads back.
pub(crate) fn uninject(args: &UninjectArgs) -> Result<Written> {
    uninjected(&args.from.read()?)
}

fn injected(text: &str, with: &With<'_>) -> Result<Written> {
    each(text, |document, place, out| {
        let mut value = read(document, place)?;
        let changed = out.objects(&mut value, place, "injected", &|object| object::add(object, with));
        Ok(if changed { document.kept(&yaml::write(&value)) } else { document.untouched() })
    })
}

fn uninjected(text: &str) -> Result<Written> {
    each(text, |document, place, out| {
        match document.original() {
            KeptDocument::Original(text) => {
                out.said.push(format!("{place}: as it was before, byte for byte"));
                return Ok(text);
            }
            KeptDocument::Edited => {
                out.said.push(format!("{place}: it was edited since it was injected, so its comments and style before that are not brought back"))
            }
            KeptDocument::Nothing => {}
        }
        let mut value = read(document, place)?;
        let changed = out.objects(&mut value, place, "without the sidecar", &object::remove);
        Ok(if changed { document.replaced(&yaml::write(&value)) } else { document.untouched() })
    })
}

fn read(document: &Document<'_>, place: &str) -> Result<Value, String> {
    yaml::read(document.text).map_err(|error| format!("{place} is no YAML that can be read: {error}"))
}

#[derive(Default)]
struct Out {
    said: Vec<String>,
    wrong: Vec<String>,
}

impl Out {
    /// Every object of a document: itself, or the items of a list.
    fn objects(&mut self, value: &mut Value, place: &str, did: &str, to: &dyn Fn(&mut Value) -> Done) -> bool {
        let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
        match value.get_mut("items").and_then(Value::as_array_mut).filter(|_| is_list) {
            // Each of them, whether one before it was changed or not.
            Some(items) => {
                items.iter_mut().enumerate().fold(false, |any, (i, item)| self.object(item, &format!("{place}, items[{i}]"), did, to) || any)
            }
            None => self.object(value, place, did, to),
        }
    }

    fn object(&mut self, object: &mut Value, place: &str, did: &str, to: &dyn Fn(&mut Value) -> Done) -> bool {
        let place = format!("{place} ({})", object::title(object));
        match to(object) {
            Done::Untouched(words) => {
                self.said.extend(words.map(|words| format!("{place}: {words}")));
                false
            }
            Done::Changed(warnings) => {
                self.said.push(format!("{place}: {did}"));
                self.said.extend(warnings.into_iter().map(|words| format!("{place}: warning: {words}")));
                true
            }
            Done::Failed(errors) => {
                self.wrong.extend(errors.into_iter().map(|words| format!("{place}: {words}")));
                false
            }
        }
    }
}

/// Goes through the documents; the first is number 1.
fn each(text: &str, mut of: impl FnMut(&Document<'_>, &str, &mut Out) -> Result<String, String>) -> Result<Written> {
    let (mut out, mut written) = (Out::default(), String::new());
    let documents = split(text);
    for (document, number) in documents.iter().zip(1..) {
        if document.is_empty() && document.original() == KeptDocument::Nothing {
            written += &document.untouched();
            continue;
        }
        match of(document, &format!("document {number}"), &mut out) {
            Ok(text) => written += &text,
            Err(error) => out.wrong.push(error),
        }
    }
    if !out.wrong.is_empty() {
        bail!("nothing was written:\n  {}", out.wrong.join("\n  "));
    }
    Ok(Written { text: written, said: out.said })
}

#[cfg(test)]
mod tests;
