//! AdmissionReview v1 on the wire. In: bytes of a request. Out: the request, or why it is none; bytes of an answer. Left to others: the decision.
//!
//! Own types and not those of a client library: the pod stays raw JSON, the patch is base64 (a list of numbers would be four times its size), a
//! patch type is only there with a patch, and the uid is echoed in every answer, without which the API server counts the call as failed.

use crate::bounded;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Why bytes are no request; the sentence is the body of the HTTP 400.
#[derive(Debug, thiserror::Error)]
pub enum BadReview {
    /// Not JSON, or not of this shape.
    #[error("the body is no AdmissionReview: {0}")]
    Shape(#[from] serde_json::Error),
    /// Another kind or version.
    #[error("the body is a {kind:?} of {api_version:?}; valid: AdmissionReview of admission.k8s.io/v1")]
    Version {
        /// As given.
        kind: String,
        /// As given.
        api_version: String,
    },
    /// Nothing to echo.
    #[error("request.uid is empty")]
    NoUid,
}

/// The part of a request that is used; its object is a [`Whole`] value, or a [`PodText`](crate::variables::PodText).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<Object> {
    /// To be echoed.
    pub uid: String,
    /// `CREATE`, `UPDATE`, ...
    #[serde(default)]
    pub operation: String,
    /// The namespace; the object's own may be empty.
    #[serde(default)]
    pub namespace: Option<String>,
    /// `status`, `scale`, ...
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// Kind of the object.
    #[serde(default)]
    pub kind: Kind,
    /// The object, untouched.
    #[serde(default)]
    pub object: Object,
    /// What it replaces; null where it is new, or large.
    #[serde(default, deserialize_with = "bounded::small")]
    pub old_object: Value,
}

/// An object as it is; see [`bounded`].
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Whole(#[serde(deserialize_with = "bounded::value")] pub Value);

/// A kind's name.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Kind {
    /// E.g. `Pod`.
    #[serde(default)]
    pub kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "Object: DeserializeOwned + Default")]
struct Review<Object> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Request<Object>,
}

impl<Object: DeserializeOwned + Default> Request<Object> {
    /// Reads a review.
    ///
    /// # Errors
    /// When it is none, is of another version, or has no uid.
    pub fn parse(body: &[u8]) -> Result<Self, BadReview> {
        let review: Review<Object> = serde_json::from_slice(body)?;
        if review.kind != KIND || review.api_version != API_VERSION {
            return Err(BadReview::Version { kind: review.kind, api_version: review.api_version });
        }
        if review.request.uid.is_empty() {
            return Err(BadReview::NoUid);
        }
        Ok(review.request)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// The bytes of an answer; it always allows.
///
/// # Errors
/// None that a patch of ours can cause; serialisation is fallible by its type.
pub fn answer(uid: &str, patch: Option<&Patch>, warnings: &[String]) -> Result<Vec<u8>, serde_json::Error> {
    let patch = patch.filter(|p| !p.0.is_empty()).map(serde_json::to_vec).transpose()?.map(|bytes| STANDARD.encode(bytes));
    let response = Response {
        uid,
        allowed: true,
        patch_type: patch.as_ref().map(|_| "JSONPatch"),
        patch,
        warnings: warnings.iter().map(|w| format!("qscaler: {w}")).collect(),
    };
    serde_json::to_vec(&Answer { api_version: API_VERSION, kind: KIND, response })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn review(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut value = json!({"apiVersion": API_VERSION, "kind": KIND, "request": {"uid": "u-1", "operation": "CREATE", "object": {"future": [1]}}});
        change(&mut value);
        value.to_string().into_bytes()
    }

    #[test]
    fn a_review_is_read_and_its_object_kept_raw() {
        let request = Request::<Whole>::parse(&review(|_| {})).unwrap();
        assert_eq!((request.uid.as_str(), request.object.0), ("u-1", json!({"future": [1]})));
    }

    #[test]
    fn what_is_no_review_is_named() {
        for (body, says) in [
            (b"not json".to_vec(), "no AdmissionReview"),
            (b"[]".to_vec(), "no AdmissionReview"),
            (b"{}".to_vec(), "request"),
            (review(|v| v["apiVersion"] = json!("admission.k8s.io/v1beta1")), "admission.k8s.io/v1beta1"),
            (review(|v| v["request"]["uid"] = json!("")), "uid is empty"),
            (review(|v| v["request"] = json!(null)), "no AdmissionReview"),
        ] {
            let error = Request::<Whole>::parse(&body).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_patch_type_is_there_only_with_a_patch() {
        let bare: Value = serde_json::from_slice(&answer("u", None, &[]).unwrap()).unwrap();
        assert_eq!(bare["response"], json!({"uid": "u", "allowed": true}));
        let patch: Patch = serde_json::from_value(json!([{"op": "add", "path": "/a", "value": 1}])).unwrap();
        let full: Value = serde_json::from_slice(&answer("u", Some(&patch), &["w".into()]).unwrap()).unwrap();
        assert_eq!(full["response"]["patchType"], "JSONPatch");
        assert_eq!(full["response"]["warnings"], json!(["qscaler: w"]));
        let back: Patch = serde_json::from_slice(&STANDARD.decode(full["response"]["patch"].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!(back, patch);
    }
}
