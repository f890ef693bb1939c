//! Pods as people write them: entry points, shells, supervisors, pools, prefixes. In: shapes and trials. Out: cells, each of the same pod with QScaler and
//! without it beside it, as a table and as JSON. Left to others: frameworks and faults as such (`matrix`), the cluster (`cargo xtask shapes`).
//!
//! | module | in -> out |
//! |---|---|
//! | [`shape`] | a pod, its application, what must be known to load it |
//! | [`celery`], [`others`] | the shapes, as data |
//! | [`rows`] | parts of names -> shapes |
//! | [`trial`] | the columns |
//! | [`arm`] | one fleet and one trial -> what became of its tasks |
//! | [`said`] | a fleet -> what conditions and Events say about it |
//! | [`run`] | shapes and trials -> cells |
//! | [`cell`] | both arms -> counts, and whether they are as they should be |
//! | [`exceptions`] | cells that cannot be zero, each with its reason |
//! | [`table`] | runs and their cells -> Markdown and JSON |

pub mod arm;
pub mod celery;
pub mod cell;
pub mod exceptions;
pub mod others;
pub mod rows;
pub mod run;
pub mod said;
pub mod shape;
pub mod table;
pub mod trial;
