//! What one look at a worker's memory costs. In: number of processes, as the first argument. Out: CPU time per look and its share of a core at one
//! look a second. Left to others: the bound (`cargo xtask bench sidecar`).
//!
//! The processes, their status files and the cgroup files are the kernel's own; only the folder that names them as one container's is made here.

#![allow(clippy::print_stdout, reason = "the result")]

use anyhow::{Context, Result};
use qscaler_sidecar::peaks::SharedSampler;
use qscaler_sidecar::worker::procs::ProcFs;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// Looks that are measured.
const LOOKS: u32 = 300;
/// Looks at the count of OOM kills alone, between two looks at everything.
const KILL_LOOKS: u32 = 4;
/// Between two of them: long enough for other work to cool the caches, as in a second of a pod's life.
const PAUSE: Duration = Duration::from_millis(30);

fn main() -> Result<()> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(10), |text| text.parse()).context("the number of processes")?;
    let folder = std::env::temp_dir().join(format!("qscaler-sampling-cost-{}", std::process::id()));
    let mut children = Vec::new();
    let measured = (0..count).try_for_each(|n| add(&folder, &mut children, n)).and_then(|()| measure(&folder));
    for child in &mut children {
        // Ended already: nothing to do.
        let _ = child.kill();
        let _ = child.wait();
    }
    fs::remove_dir_all(&folder).context("the made-up folder")?;
    let (us, access) = measured?;
    let percent = us / 10_000.0;
    println!(
        "{{\"processes\":{count},\"looks\":{LOOKS},\"us_per_look\":{us:.1},\"percent_of_a_core_at_1_hz\":{percent:.4},\"access\":\"{access}\"}}"
    );
    Ok(())
}

/// One more process of the container; the first is its top process.
fn add(folder: &Path, children: &mut Vec<Child>, n: u32) -> Result<()> {
    let top = children.first().map_or(0, Child::id);
    let child = Command::new("sleep").arg("600").spawn().context("sleep")?;
    let path = folder.join(child.id().to_string());
    let pid = child.id();
    children.push(child);
    fs::create_dir_all(&path)?;
    fs::write(path.join("stat"), format!("{pid} (sleep) S {top} {}{n} 0 0\n", "0 ".repeat(17)))?;
    fs::write(path.join("cgroup"), "0::/worker\n")?;
    let mount = "/var/lib/kubelet/pods/u-1/containers/worker/7c9f3a1e /dev/termination-log rw - ext4 /dev/vda rw";
    fs::write(path.join("mountinfo"), format!("701 664 254:0 {mount}\n"))?;
    symlink(format!("/proc/{pid}/status"), path.join("status"))?;
    symlink(format!("/proc/{pid}/root"), path.join("root"))?;
    Ok(())
}

/// CPU time per look (with the looks for kills that follow it), microseconds, and what could be read.
fn measure(folder: &Path) -> Result<(f64, String)> {
    let sampler = SharedSampler::new(ProcFs::at(folder), 0, "qscaler-sidecar");
    // The first looks find the processes; the steady state is what runs for days.
    for _ in 0..10 {
        sampler.lock().sample(1.0);
    }
    let mut spent_ns = 0;
    for look in 0..LOOKS {
        std::thread::sleep(PAUSE);
        let before = cpu_ns()?;
        sampler.lock().sample(f64::from(look));
        for _ in 0..KILL_LOOKS {
            sampler.lock().look_for_kills(f64::from(look));
        }
        spent_ns += cpu_ns()?.saturating_sub(before);
    }
    let access = format!("{:?}", sampler.lock().access("worker"));
    Ok((spent_ns as f64 / f64::from(LOOKS) / 1000.0, access))
}

/// CPU time of this thread so far, nanoseconds, by the scheduler's own book.
fn cpu_ns() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("the kernel keeps no scheduler statistics")?;
    text.split_whitespace().next().and_then(|word| word.parse().ok()).context("schedstat")
}
