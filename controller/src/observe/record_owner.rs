//! What all records have in common. In: an object's metadata. Out: its owner, and the texts of many objects once in memory. Left to others: the objects
//! (`record`, `record_pod`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

/// A text that many records share.
pub type Word = Arc<str>;

/// The UID of the owner that controls this object, if its kind is `kind`.
pub(crate) fn owner(meta: &ObjectMeta, kind: &str) -> Option<String> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true) && o.kind == kind).map(|o| o.uid.clone())
}
