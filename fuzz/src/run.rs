//! The loop. In: a target, a seed, a number of inputs. Out: what was tried, or a broken promise with its input in a file. Left to others: what a target promises.
//!
//! A panic ends the process (release builds abort), so the input is written by the panic hook.

use crate::corpus;
use crate::mutate::{Random, change};
use crate::targets::{TARGETS, Target};
use anyhow::{Context, Result, bail};
use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Inputs that are kept to be changed further; beyond, one of them makes room.
const KEPT_MAX: usize = 4096;
/// Distinct answers that are remembered.
const ANSWERS_MAX: usize = 200_000;
/// Changes of one input before another is taken from those that are kept.
const CHAIN: u64 = 4;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// Inputs.
    pub inputs: u64,
    /// Those of the form that is read first.
    pub read: u64,
    /// Distinct answers.
    pub answers: usize,
    /// The longest time that one input took.
    pub slowest: Duration,
}

thread_local! {
    /// What is being tried.
    static CURRENT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// From now on a panic writes its input to this folder.
pub fn save_panics(folder: PathBuf) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // A panic in the middle of the change of the input itself cannot be saved.
        let input = CURRENT.with(|current| current.try_borrow().map(|input| input.clone()).unwrap_or_default());
        if let Ok(file) = save(&folder, &input) {
            #[allow(clippy::print_stdout, reason = "the result")]
            {
                println!("a panic; its input is {}", file.display());
            }
        }
        before(info);
    }));
}

fn save(folder: &Path, input: &[u8]) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let file = folder.join(format!("{:016x}", hasher.finish()));
    std::fs::write(&file, input)?;
    Ok(file)
}

/// Tries the corpus, and then inputs made of it, until there were `inputs`.
///
/// # Errors
/// A promise is broken; the error names the file with the input.
pub fn run(target: &Target, seed: u64, inputs: u64, folder: &Path) -> Result<Tried> {
    let mut kept = corpus::of(target.name);
    if kept.is_empty() {
        bail!("the corpus of {} is empty", target.name);
    }
    let (mut random, mut tried, mut answers) = (Random::new(seed), Tried::default(), HashSet::new());
    let mut state = (target.state)();
    // Whether the answer is a new one; None: there was none.
    let mut attempt = |input: &[u8], tried: &mut Tried| -> Result<Option<bool>> {
        CURRENT.with(|current| {
            let mut current = current.borrow_mut();
            current.clear();
            current.extend_from_slice(input);
        });
        let begin = Instant::now();
        let answer = state(input);
        tried.slowest = tried.slowest.max(begin.elapsed());
        tried.inputs += 1;
        match answer {
            Ok(None) => Ok(None),
            Ok(Some(answer)) => {
                tried.read += 1;
                let mut hasher = DefaultHasher::new();
                answer.hash(&mut hasher);
                let new = answers.len() < ANSWERS_MAX && answers.insert(hasher.finish());
                tried.answers = answers.len();
                Ok(Some(new))
            }
            Err(broken) => {
                let file = save(folder, input).with_context(|| format!("cannot write to {}", folder.display()))?;
                bail!("{}: {broken}; the input is {}", target.name, file.display())
            }
        }
    };
    for input in kept.clone() {
        attempt(&input, &mut tried)?;
    }
    let (mut input, mut left) = (Vec::new(), 0);
    while tried.inputs < inputs {
        if left == 0 {
            input.clone_from(&kept[random.below(kept.len())]);
            left = CHAIN;
        }
        let other = random.below(kept.len());
        change(&mut input, &kept[other], target.words, &mut random);
        let new = attempt(&input, &mut tried)?;
        left = if new.is_some() { left - 1 } else { 0 };
        if new == Some(true) {
            if kept.len() < KEPT_MAX {
                kept.push(input.clone());
            } else {
                let at = random.below(KEPT_MAX);
                kept[at].clone_from(&input);
            }
        }
    }
    Ok(tried)
}

/// Every target whose name contains `part`.
#[must_use]
pub fn chosen(part: &str) -> Vec<&'static Target> {
    TARGETS.iter().filter(|target| target.name.contains(part)).collect()
}
