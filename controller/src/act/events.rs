//! Events on Deployments and pods. In: notices and whom they are about. Out: `events.k8s.io` objects: one per distinct note, counted up when the
//! same is said again soon. Left to others: what is worth an Event (`conditions`, `drain`, `sizing`).

use crate::act::plan::Notice;
use crate::clock;
use crate::words::shorten;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Kubernetes refuses longer notes.
const NOTE_MAX: usize = 1_000;
/// The same note within this is one Event with a count, as `kubectl get events` expects.
const SERIES: Duration = Duration::from_secs(360);
/// Notes remembered for that; beyond it the oldest ones would only be told as new ones.
const REMEMBERED_MAX: usize = 10_000;

/// Writes Events; clones are the same writer.
#[derive(Clone)]
pub struct Events {
    client: Client,
    instance: String,
    told: Arc<Mutex<HashMap<EventKey, Told>>>,
}

/// UID of whom it is about, reason, note.
type EventKey = (String, &'static str, String);

#[derive(Clone)]
struct Told {
    name: String,
    count: i32,
    at: Instant,
}

impl Events {
    /// Under this instance's name.
    #[must_use]
    pub fn new(client: Client, instance: &str) -> Self {
        Self { client, instance: instance.to_owned(), told: Arc::default() }
    }

    /// Tells a notice.
    ///
    /// # Errors
    /// When the API server refuses; nobody's work depends on it.
    pub async fn tell(&self, notice: &Notice, about: &ObjectReference) -> Result<(), kube::Error> {
        let mut note = notice.note.clone();
        shorten(&mut note, NOTE_MAX);
        let now = MicroTime(clock::now());
        let namespace = about.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let key: EventKey = (about.uid.clone().unwrap_or_default(), notice.reason, note.clone());
        let told = self.again(&key, about.name.as_deref().unwrap_or_default(), now.0);
        if told.count > 1 {
            let series = EventSeries { count: told.count, last_observed_time: now.clone() };
            let patch = Patch::Merge(serde_json::json!({ "series": series }));
            match api.patch(&told.name, &PatchParams::default(), &patch).await {
                // It has outlived the server's own time for Events: told anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other.map(|_| ()),
            }
        }
        let event = Event {
            metadata: ObjectMeta { name: Some(told.name), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() },
            action: Some(notice.reason.to_owned()),
            reason: Some(notice.reason.to_owned()),
            note: Some(note),
            type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
            event_time: Some(now),
            regarding: Some(about.clone()),
            reporting_controller: Some("qscaler-controller".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        api.create(&PostParams::default(), &event).await.map(|_| ())
    }

    /// Counts the note up, or starts to count it.
    fn again(&self, key: &EventKey, name: &str, now: Timestamp) -> Told {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, t| t.at.elapsed() < SERIES);
        if told.len() >= REMEMBERED_MAX {
            told.clear();
        }
        let at = Instant::now();
        let entry = told.entry(key.clone()).or_insert_with(|| Told { name: format!("{name}.{:x}", now.as_nanosecond()), count: 0, at });
        (entry.count, entry.at) = (entry.count.saturating_add(1), at);
        entry.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::api_by;

    #[tokio::test(start_paused = true)]
    async fn each_note_is_an_event_of_its_own_and_the_same_one_soon_again_is_counted() {
        let (client, script) = api_by(|call| (200, call.body.clone()));
        let events = Events::new(client, "test");
        let about =
            ObjectReference { namespace: Some("shop".into()), name: Some("orders".into()), uid: Some("dep".into()), ..ObjectReference::default() };
        for (note, wait) in [("a", 0), ("b", 0), ("a", 10), ("a", 10), ("a", 400)] {
            tokio::time::advance(Duration::from_secs(wait)).await;
            events.tell(&Notice::warning("InvalidConfig", note), &about).await.unwrap();
        }
        let calls = script.calls();
        let methods: Vec<&str> = calls.iter().map(|c| c.method.as_str()).collect();
        assert_eq!(methods, ["POST", "POST", "PATCH", "PATCH", "POST"]);
        assert_eq!((&calls[3].body["series"]["count"], &calls[1].body["note"]), (&serde_json::json!(3), &serde_json::json!("b")));
        assert!(calls[2].path.ends_with(calls[0].body["metadata"]["name"].as_str().unwrap()));
    }
}
