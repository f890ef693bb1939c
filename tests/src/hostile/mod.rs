//! What a cluster and its users do to an injector: references that lead nowhere, other injectors' containers, quotas, limits, policies, networks that are shut. In:
//! names of cases. Out: per case, whether the worker runs as it does without QScaler, whether the user can read what is wrong, and what became of its task.
//!
//! Parts: `case` has the list, `run` applies each with QScaler and without it beside, `verdict` says what may not be.

pub mod case;
pub mod run;
pub mod verdict;
