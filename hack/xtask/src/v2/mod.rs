//! The second lane of the cluster tests: control groups of version 2 on a machine that has version 1. In: names of tests. Out: their output and
//! counts. A kernel of its own, as a plain process ([`guest`]), boots on this machine's files, and in it the same cluster comes up from the same
//! parts, with the same images and chart, and the same test program runs ([`inside`]). The guest has one processor and starts programs slowly:
//! the load is smaller, the limits are longer.

pub mod guest;
pub mod inside;

use anyhow::Result;

use crate::brokers::Brokers;
use crate::cache::Cache;
use crate::chosen::Chosen;
use crate::cluster::parts::Parts;
use crate::images::{self, Image, Profile};
use crate::runner::Runner;
use crate::{helm, stand};
use guest::Guest;

/// What differs between the versions, the main job once, and what sizes promise: the tests of this lane by their names.
const TESTS: [&str; 8] = [
    "the_worker_s_own_files_say_its_size",
    "celery_on_redis_goes_from_0_up_and_back_to_0",
    "a_task_outlives_rollout_restart_and_delete",
    "a_task_outlives_a_drain_of_its_node",
    "a_task_of_180_mib_in_a_pod_of_96",
    "a_bigger_class_of_task_costs_few_kills",
    "a_task_that_fills_the_page_cache",
    "an_estimate_outlives_the_controller_killed_at_each_step",
];

/// Builds everything, boots, runs the tests there; what fails is counted.
pub fn run(runner: &mut Runner, guest_name: &str, only: Option<&str>, e2e: impl FnOnce() -> Result<std::path::PathBuf>) {
    match prepare(guest_name, only, e2e) {
        Ok(guest) => {
            let ok = runner.command_in("the cluster's tests on control groups version 2", &mut guest.command(), guest::start);
            if let Err(error) = guest.end(ok) {
                runner.step("nothing is left of the guest", || Err(error));
            }
        }
        Err(error) => {
            runner.step("what the guest needs", || Err(error));
        }
    }
}

/// There is no network in a guest and its disk may only be read: all that it needs is made before.
fn prepare(name: &str, only: Option<&str>, e2e: impl FnOnce() -> Result<std::path::PathBuf>) -> Result<Guest> {
    let cache = Cache::open()?;
    let kernel = guest::kernel(&cache)?;
    Parts::ensure(&cache)?;
    Brokers::ensure(&cache)?;
    helm::three(&cache)?;
    images::build(&cache, &[Image::Pause, Image::Coredns], Profile::default())?;
    let tests = only.map_or_else(|| TESTS.map(str::to_owned).to_vec(), |name| vec![name.to_owned()]);
    let program = e2e()?;
    // A name that has changed is found out here, and not by a test that is missing.
    tests.iter().try_for_each(|name| Chosen::of(&program, Some(name)).map(drop))?;
    Guest::create(&cache, kernel, name, &stand::archives(&cache, &Image::STAND_SMALL)?, &program, tests)
}
