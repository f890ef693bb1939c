//! The control group that all pods of a box are below. In: its name. Out: the group in every hierarchy of version 1, or in the one of
//! version 2 with its controllers passed on. Removing it is the box's own cleanup script's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";
/// What the kubelet and runc use of version 2, where the kernel has it.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

/// Makes the group.
///
/// # Errors
/// This process may not, or no hierarchy is mounted.
pub fn create(name: &str) -> Result<()> {
    create_below(Path::new(ROOT), name)
}

fn create_below(root: &Path, name: &str) -> Result<()> {
    let available = root.join("cgroup.controllers");
    if available.exists() {
        return version_2(root, name, &fs::read_to_string(available)?);
    }
    let mut made = 0;
    for entry in fs::read_dir(root).with_context(|| format!("cannot read {}: control groups are not mounted", root.display()))?.flatten() {
        let controller = entry.path();
        // Links are second names (cpu -> cpu,cpuacct); "unified" is version 2 beside version 1, without controllers.
        if !entry.file_type()?.is_dir() || entry.file_name() == "unified" || !controller.join("cgroup.procs").exists() {
            continue;
        }
        let group = controller.join(name);
        fs::create_dir_all(&group).with_context(|| format!("cannot make the control group {}: are you root?", group.display()))?;
        for setting in ["cpuset.cpus", "cpuset.mems"] {
            // A new cpuset is empty and takes no process before it has these.
            if let Ok(value) = fs::read(controller.join(setting)) {
                fs::write(group.join(setting), value).with_context(|| format!("cannot set {setting} of {}", group.display()))?;
            }
        }
        made += 1;
    }
    anyhow::ensure!(made > 0, "no control group hierarchy is mounted in {}", root.display());
    Ok(())
}

fn version_2(root: &Path, name: &str, available: &str) -> Result<()> {
    let group = root.join(name);
    fs::create_dir_all(&group).with_context(|| format!("cannot make the control group {}: are you root?", group.display()))?;
    let wanted: Vec<String> =
        available.split_whitespace().filter(|controller| CONTROLLERS.contains(controller)).map(|controller| format!("+{controller}")).collect();
    // First the root passes controllers to the group, then the group to its children.
    for parent in [root, &group] {
        let file = parent.join("cgroup.subtree_control");
        fs::write(&file, wanted.join(" ")).with_context(|| {
            format!(
                "cannot write {wanted:?} to {}: in a container, move its processes out of the root group first (mkdir {ROOT}/init, then echo each pid into its cgroup.procs)",
                file.display()
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_version_1_every_controller_gets_the_group_and_a_cpuset_its_processors() {
        let root = tempfile::tempdir().unwrap();
        for controller in ["cpuset", "memory", "unified"] {
            fs::create_dir(root.path().join(controller)).unwrap();
            fs::write(root.path().join(controller).join("cgroup.procs"), "").unwrap();
        }
        fs::write(root.path().join("cpuset/cpuset.cpus"), "0-1\n").unwrap();
        create_below(root.path(), "g").unwrap();
        assert_eq!(fs::read_to_string(root.path().join("cpuset/g/cpuset.cpus")).unwrap(), "0-1\n");
        assert!(root.path().join("memory/g").is_dir() && !root.path().join("unified/g").exists());
    }

    #[test]
    fn on_version_2_the_root_and_the_group_pass_on_what_the_kernel_has() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpu io memory pids rdma\n").unwrap();
        create_below(root.path(), "g").unwrap();
        for parent in ["", "g"] {
            assert_eq!(fs::read_to_string(root.path().join(parent).join("cgroup.subtree_control")).unwrap(), "+cpu +io +memory +pids");
        }
    }

    #[test]
    fn without_any_hierarchy_the_place_is_named() {
        let root = tempfile::tempdir().unwrap();
        assert!(create_below(root.path(), "g").unwrap_err().to_string().contains(root.path().to_str().unwrap()));
    }
}
