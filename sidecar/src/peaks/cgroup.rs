//! One container's cgroup files, version 1 or 2. In: the folder where the container sees its own cgroup. Out: figures. Left to others: keeping
//! the highest of them (`peaks`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Of version 1, what stands for "no limit": anything near the top of a signed 64-bit number of pages.
const UNLIMITED: u64 = 1 << 60;
/// `memory.stat`, the longest of the files, has 1 to 3 KiB.
const BUFFER_BYTES: usize = 8192;

/// One look at the files. None: that file cannot be read (any more).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Highest use ever, page cache included, bytes.
    pub peak: Option<u64>,
    /// Use now without file cache, bytes.
    pub working_set: Option<u64>,
    /// The limit, bytes; None also where there is none.
    pub limit: Option<u64>,
    /// Kills for want of memory since the container's start: of a process, or of the whole container at once where it is killed as a group.
    pub oom_kills: Option<u64>,
    /// CPU time used since the container's start, microseconds.
    pub cpu_usage_us: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Open files: they can be read until the runtime removes the cgroup, some milliseconds after the container's end.
#[derive(Debug)]
pub struct CgroupFiles {
    version: Version,
    usage: File,
    peak: Option<File>,
    stat: Option<File>,
    events: Option<File>,
    limit: Option<File>,
    cpu: Option<File>,
    buffer: Vec<u8>,
}

impl CgroupFiles {
    /// Opens what is there. None: nothing can be opened, for want of rights or because the container is not set up yet.
    #[must_use]
    pub fn open(folder: &Path) -> Option<Self> {
        let open = |name: &str| File::open(folder.join(name)).ok();
        let buffer = vec![0; BUFFER_BYTES];
        if let Some(usage) = open("memory.current") {
            return Some(Self {
                version: Version::V2,
                usage,
                peak: open("memory.peak"),
                stat: open("memory.stat"),
                events: open("memory.events"),
                limit: open("memory.max"),
                cpu: open("cpu.stat"),
                buffer,
            });
        }
        Some(Self {
            version: Version::V1,
            usage: open("memory/memory.usage_in_bytes")?,
            peak: open("memory/memory.max_usage_in_bytes"),
            stat: open("memory/memory.stat"),
            events: open("memory/memory.oom_control"),
            limit: open("memory/memory.limit_in_bytes"),
            cpu: open("cpuacct/cpuacct.usage").or_else(|| open("cpu,cpuacct/cpuacct.usage")),
            buffer,
        })
    }

    /// Reads everything once. None: the cgroup is gone.
    pub fn read(&mut self) -> Option<Reading> {
        let before = number(text(&self.usage, &mut self.buffer)?);
        let file_cache = self.file_cache();
        // Once more: the cache of a file that is removed between two readings is in the first figure and not in the second, and was never a need.
        let usage = before.min(number(text(&self.usage, &mut self.buffer)?));
        let buffer = &mut self.buffer;
        let mut read = |file: &Option<File>, parse: &dyn Fn(&str) -> Option<u64>| parse(text(file.as_ref()?, buffer)?);
        let cpu_usage_us = match self.version {
            Version::V1 => read(&self.cpu, &|text| Some(number(text)? / 1000)),
            Version::V2 => read(&self.cpu, &|text| field(text, "usage_usec")),
        };
        Some(Reading {
            peak: read(&self.peak, &number),
            working_set: usage.zip(file_cache).map(|(usage, cache)| usage.saturating_sub(cache)),
            limit: read(&self.limit, &number).filter(|limit| *limit < UNLIMITED),
            oom_kills: read(&self.events, &kills),
            cpu_usage_us,
        })
    }

    /// The count of processes killed alone: cheap enough to be looked at often.
    pub fn oom_kills(&mut self) -> Option<u64> {
        kills(text(self.events.as_ref()?, &mut self.buffer)?)
    }

    /// Use now without file cache, alone.
    pub fn working_set(&mut self) -> Option<u64> {
        let usage = number(text(&self.usage, &mut self.buffer)?)?;
        Some(usage.saturating_sub(self.file_cache()?))
    }

    fn file_cache(&mut self) -> Option<u64> {
        let (active, inactive) = match self.version {
            // The totals include the cgroups below, as the usage does.
            Version::V1 => ("total_active_file", "total_inactive_file"),
            Version::V2 => ("active_file", "inactive_file"),
        };
        let text = text(self.stat.as_ref()?, &mut self.buffer)?;
        Some(field(text, active)? + field(text, inactive)?)
    }
}

fn text<'a>(file: &File, buffer: &'a mut [u8]) -> Option<&'a str> {
    let length = file.read_at(buffer, 0).ok()?;
    std::str::from_utf8(&buffer[..length]).ok()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number on the line that begins with this word.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key).and_then(|(_, value)| number(value)))
}

/// How often the limit was hit and something was killed. With `memory.oom.group`, which the kubelet sets on version 2, one hit kills every process of the
/// container; `oom_kill` counts the processes and `oom_group_kill` the hits (Linux, `Documentation/admin-guide/cgroup-v2.rst`).
fn kills(events: &str) -> Option<u64> {
    field(events, "oom_group_kill").filter(|groups| *groups > 0).or_else(|| field(events, "oom_kill"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn version_1_is_read() {
        let folder = folder(&[
            ("memory/memory.usage_in_bytes", "200000\n"),
            ("memory/memory.max_usage_in_bytes", "300000\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.stat", "cache 9\nactive_file 1\ninactive_file 1\ntotal_inactive_file 50000\ntotal_active_file 30000\n"),
            ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
            ("cpu,cpuacct/cpuacct.usage", "5000999\n"),
        ]);
        let reading = CgroupFiles::open(folder.path()).unwrap().read().unwrap();
        let expected = Reading { peak: Some(300_000), working_set: Some(120_000), limit: None, oom_kills: Some(2), cpu_usage_us: Some(5000) };
        assert_eq!(reading, expected);
    }

    #[test]
    fn version_2_without_a_peak_file_and_without_a_limit_is_read() {
        let folder = folder(&[
            ("memory.current", "200000\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\nfile 90000\ninactive_file 50000\nactive_file 30000\n"),
            ("memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n"),
            ("cpu.stat", "usage_usec 123\nuser_usec 100\n"),
        ]);
        let reading = CgroupFiles::open(folder.path()).unwrap().read().unwrap();
        assert_eq!(reading, Reading { peak: None, working_set: Some(120_000), limit: None, oom_kills: Some(1), cpu_usage_us: Some(123) });
    }

    #[test]
    fn a_container_that_is_killed_as_a_group_was_killed_once() {
        assert_eq!(kills("oom 1\noom_kill 3\noom_group_kill 1\n"), Some(1));
        assert_eq!(kills("oom 2\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
    }

    #[test]
    fn an_empty_folder_gives_nothing() {
        assert!(CgroupFiles::open(folder(&[]).path()).is_none());
    }
}
