//! Comes in: the environment. Goes out: the folder that outlives runs. Leaves to others: what is kept there.

use std::path::PathBuf;

/// `$QSCALER_CACHE`, else `$XDG_CACHE_HOME/qscaler`, else `~/.cache/qscaler`; `None` where none of the variables is set.
pub fn folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("QSCALER_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("qscaler")))
        .or_else(|| variable("HOME").map(|path| path.join(".cache/qscaler")))
}
