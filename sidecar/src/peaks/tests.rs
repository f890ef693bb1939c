//! Peaks read from files as the kernel writes them.

use super::*;
use crate::testing::FakeProc;
use std::fs;

fn status(fake: &FakeProc, pid: i32, kib: u64) {
    fs::write(fake.path(pid).join("status"), format!("Uid:\t1\t1\t1\t1\nVmHWM:\t{kib} kB\n")).unwrap();
}

fn pod() -> (FakeProc, SharedSampler) {
    let fake = FakeProc::new();
    fs::write(fake.path(1).parent().unwrap().join("uptime"), "1000.00 900.0\n").unwrap();
    fake.add(1, 0, "pause", 1, None, "/pause");
    fake.add(7, 0, "side", 2, Some("qscaler-sidecar"), "/side");
    fake.add(30, 0, "celery", 3, Some("worker"), "/w");
    fake.add(31, 30, "celery", 3, Some("worker"), "/w");
    let sampler = SharedSampler::new(fake.procs(), 7, "qscaler-sidecar");
    (fake, sampler)
}

#[test]
fn the_marks_of_living_processes_are_summed_and_the_highest_sum_stays() {
    let (fake, sampler) = pod();
    status(&fake, 30, 1000);
    status(&fake, 31, 500);
    sampler.lock().sample(1.0);
    status(&fake, 31, 200);
    sampler.lock().sample(2.0);
    let peaks = sampler.lock().peaks();
    assert_eq!(peaks.keys().collect::<Vec<_>>(), ["worker"]);
    assert_eq!(peaks["worker"].vmhwm_sum_max, Some(1500 * 1024));
    assert_eq!(peaks["worker"].access, Access::Processes);
    assert_eq!(peaks["worker"].sampled_s, Some(2.0));
}

#[test]
fn a_process_on_its_way_into_a_container_does_not_take_the_place_of_its_top_process() {
    let (fake, sampler) = pod();
    for second in 1..=4 {
        sampler.lock().sample(f64::from(second));
    }
    let before = sampler.lock().peaks()["worker"].clone();
    // As runc shows it for some milliseconds: the container's files, but not its control group yet.
    fake.add(40, 0, "runc:[2:INIT]", 99, Some("worker"), "/system");
    sampler.lock().sample(5.0);
    fake.remove(40);
    status(&fake, 30, 9000);
    sampler.lock().sample(6.0);
    let after = sampler.lock().peaks()["worker"].clone();
    assert_eq!((after.started_s, after.sampled_s), (before.started_s, Some(6.0)));
    assert!(after.vmhwm_sum_max > before.vmhwm_sum_max, "{after:?}");
}

#[test]
fn the_top_process_is_found_though_another_one_was_seen_first() {
    let (fake, sampler) = pod();
    fake.remove(30);
    fake.add(40, 0, "runc:[2:INIT]", 99, Some("worker"), "/system");
    for second in 1..=4 {
        sampler.lock().sample(f64::from(second));
    }
    fake.add(30, 0, "celery", 3, Some("worker"), "/w");
    sampler.lock().sample(5.0);
    fake.remove(40);
    status(&fake, 30, 9000);
    for second in 6..=7 {
        sampler.lock().sample(f64::from(second));
    }
    let seen = sampler.lock().peaks()["worker"].clone();
    assert_eq!(seen.sampled_s, Some(7.0));
    assert!(seen.vmhwm_sum_max >= Some(9000 * 1024), "{seen:?}");
}

#[test]
fn the_cgroup_files_are_read_as_soon_as_they_can_be_opened_and_once_more_at_the_end() {
    let (fake, sampler) = pod();
    sampler.lock().sample(1.0);
    let files = fake.path(30).join("root/sys/fs/cgroup");
    fs::create_dir_all(&files).unwrap();
    for (name, text) in [
        ("memory.current", "300\n"),
        ("memory.peak", "400\n"),
        ("memory.max", "1000\n"),
        ("memory.stat", "anon 100\nactive_file 20\ninactive_file 30\n"),
        ("memory.events", "oom 1\noom_kill 0\n"),
        ("cpu.stat", "usage_usec 77\n"),
    ] {
        fs::write(files.join(name), text).unwrap();
    }
    sampler.lock().sample(2.0);
    let before = sampler.lock().peaks().remove("worker").unwrap();
    assert_eq!((before.cgroup_peak, before.working_set_max, before.limit, before.cpu_usage_us), (Some(400), Some(250), Some(1000), Some(77)));
    fs::write(files.join("memory.peak"), "999\n").unwrap();
    fs::write(files.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
    fs::write(files.join("memory.max"), "2000\n").unwrap();
    sampler.lock().finish("worker");
    let after = sampler.lock().peaks().remove("worker").unwrap();
    assert_eq!((after.cgroup_peak, after.oom_kills, after.access), (Some(999), 1, Access::Full));
    assert_eq!((after.limit, after.oom_limit), (Some(2000), Some(1000)));
}

#[test]
fn a_limit_that_fails_in_the_last_look_is_still_known() {
    let (fake, sampler) = pod();
    cgroup(&fake, 100, 0, 0, 160);
    sampler.lock().sample(1.0);
    // The group is half gone: its limit cannot be read, its use can.
    fs::write(fake.path(30).join("root/sys/fs/cgroup/memory.max"), "").unwrap();
    sampler.lock().finish("worker");
    assert_eq!(sampler.lock().peaks()["worker"].limit, Some(160 << 20));
}

/// The worker's cgroup, version 2, with these figures in MiB.
fn cgroup(fake: &FakeProc, used: u64, file: u64, kills: u64, limit: u64) {
    let files = fake.path(30).join("root/sys/fs/cgroup");
    fs::create_dir_all(&files).unwrap();
    for (name, text) in [
        ("memory.current", format!("{}\n", (used + file) << 20)),
        ("memory.peak", format!("{}\n", limit << 20)),
        ("memory.max", format!("{}\n", limit << 20)),
        ("memory.stat", format!("anon 1\nactive_file {}\ninactive_file 0\n", file << 20)),
        ("memory.events", format!("oom 1\noom_kill {kills}\n")),
    ] {
        fs::write(files.join(name), text).unwrap();
    }
}

fn sizes(fake: &FakeProc, pid: i32, mark_mib: u64, now_mib: u64) {
    let text = format!("Uid:\t1\t1\t1\t1\nVmHWM:\t{} kB\nVmRSS:\t{} kB\n", mark_mib << 10, now_mib << 10);
    fs::write(fake.path(pid).join("status"), text).unwrap();
}

#[test]
fn a_full_page_cache_and_pages_that_a_forked_process_shares_are_no_need() {
    let (fake, sampler) = pod();
    // A program of 45 MiB and its fork: 12 MiB of each are the program's files, which are page cache, and most of the rest is shared. The cache fills
    // the limit of 128 MiB.
    let need = || qscaler_core::size::need(&sampler.lock().peaks()["worker"]).unwrap() >> 20;
    sizes(&fake, 30, 47, 45);
    sizes(&fake, 31, 41, 40);
    cgroup(&fake, 40, 88, 0, 128);
    sampler.lock().sample(1.0);
    sampler.lock().sample(2.0);
    let peaks = sampler.lock().peaks().remove("worker").unwrap();
    assert_eq!((peaks.vmhwm_sum_max, peaks.working_set_max, peaks.spike_max), (Some(88 << 20), Some(40 << 20), Some(43 << 20)));
    assert_eq!(need(), 43);
    // The fork takes 60 MiB and gives them back between two looks.
    sizes(&fake, 31, 100, 40);
    sampler.lock().sample(3.0);
    assert_eq!(need(), 102);
    // It takes and gives back without end: what it has taken at the one look and given back at the other is not there twice.
    cgroup(&fake, 100, 28, 0, 128);
    sizes(&fake, 31, 100, 100);
    sampler.lock().sample(4.0);
    assert_eq!(need(), 102);
}

#[test]
fn a_killed_process_is_told_of_once_and_with_the_limit_that_was_hit() {
    let (fake, sampler) = pod();
    cgroup(&fake, 40, 0, 0, 96);
    assert!(!sampler.lock().sample(1.0) && !sampler.lock().look_for_kills(1.2));
    cgroup(&fake, 40, 0, 1, 96);
    assert!(sampler.lock().look_for_kills(1.4) && !sampler.lock().look_for_kills(1.6));
    let peaks = sampler.lock().peaks().remove("worker").unwrap();
    assert_eq!((peaks.oom_kills, peaks.oom_limit, peaks.sampled_s), (1, Some(96 << 20), Some(1.4)));
    cgroup(&fake, 40, 0, 2, 196);
    assert!(sampler.lock().sample(2.0) && !sampler.lock().sample(3.0));
    assert_eq!(sampler.lock().peaks()["worker"].oom_kills, 2);
}

#[test]
fn why_the_cgroup_files_cannot_be_read_is_said_until_they_can() {
    let (fake, sampler) = pod();
    status(&fake, 30, 1000);
    let gap = || sampler.lock().peaks()["worker"].access_gap;
    // No root to look at: the process may be about to end, so nothing is said.
    sampler.lock().sample(1.0);
    assert_eq!(gap(), None);
    let files = fake.path(30).join("root");
    std::os::unix::fs::symlink("/nowhere", &files).unwrap();
    sampler.lock().sample(2.0);
    assert_eq!(gap(), Some(AccessGap::NoCgroup));
    fs::remove_file(&files).unwrap();
    fs::create_dir_all(files.join("sys/fs/cgroup")).unwrap();
    fs::write(files.join("sys/fs/cgroup/memory.current"), "1\n").unwrap();
    sampler.lock().sample(3.0);
    assert_eq!((gap(), sampler.lock().access("worker")), (None, Access::Full));
}

#[test]
fn a_container_says_its_id_as_soon_as_its_top_process_is_in_its_control_group() {
    let (id, node) = ("0a".repeat(32), "ff".repeat(32));
    let v1 = |path: &str| format!("12:pids:/other\n11:cpu,memory:{path}\n0::/docker/{node}\n");
    for (text, expected) in [
        (format!("0::/../cri-containerd-{id}.scope\n"), Some(&*id)),
        (format!("0::/kubepods/besteffort/pod1/{id}\n"), Some(&*id)),
        (v1(&format!("/docker/{node}/kubepods/burstable/pod1/{id}")), Some(&*id)),
        (v1("/"), None),
        ("0::/system.slice\n".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(instance_of(&text), expected, "{text}");
    }
    let (fake, sampler) = pod();
    status(&fake, 30, 1000);
    sampler.lock().sample(1.0);
    assert_eq!(sampler.lock().peaks()["worker"].instance, None);
    fs::write(fake.path(30).join("cgroup"), format!("0::/../{id}\n")).unwrap();
    sampler.lock().sample(2.0);
    assert_eq!(sampler.lock().peaks()["worker"].instance.as_deref(), Some(&*id));
}

#[test]
fn a_new_instance_starts_from_nothing() {
    let (fake, sampler) = pod();
    status(&fake, 30, 1000);
    sampler.lock().sample(1.0);
    fake.remove(30);
    fake.remove(31);
    fake.add(40, 0, "celery", 50, Some("worker"), "/w2");
    status(&fake, 40, 10);
    sampler.lock().sample(2.0);
    assert_eq!(sampler.lock().peaks()["worker"].vmhwm_sum_max, Some(10 * 1024));
    assert!(sampler.lock().peaks()["worker"].started_s.is_some());
}

#[test]
fn a_real_container_instance_of_one_process_can_be_sampled() {
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let fake = FakeProc::new();
    fake.add_real(pid, "worker", "/w");
    let sampler = SharedSampler::new(fake.procs(), 7, "qscaler-sidecar");
    // A process that has been forked and does not run its program yet has next to nothing.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let mut seen = None;
    while seen.is_none_or(|bytes| bytes < 100_000) && std::time::Instant::now() < deadline {
        sampler.lock().sample(1.0);
        seen = sampler.lock().peaks().remove("worker").and_then(|peaks| peaks.vmhwm_sum_max);
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(seen.is_some_and(|bytes| bytes >= 100_000), "{seen:?}");
}
