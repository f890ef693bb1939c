//! What the next life needs of a workload. In: what was learned and counted. Out: a checkpoint when one is due. Left to others: when that is (`due`),
//! writing it (`act::checkpoint`), what people read (`show`).

use crate::due::{News, WriteRoom};
use crate::size::sizing::Sizing;
use crate::workload::Workload;
use qscaler_api::{QWorkerCheckpointSpec, SavedSize};

impl Workload {
    /// What to save, if it is time to.
    pub(crate) fn checkpoint(&mut self, saving: WriteRoom, now_ms: u64) -> Option<QWorkerCheckpointSpec> {
        let cuts = self.counters.cut != self.checkpoints.cut;
        let killed = self.sizing.as_mut().is_some_and(Sizing::take_urgent);
        let news = News { urgent: killed || cuts, sizes: self.sizing.as_ref().is_some_and(Sizing::has_changed), law: self.law_learned };
        self.checkpoints.is_due(news, saving, now_ms).then(|| self.to_save())
    }

    pub(crate) fn to_save(&self) -> QWorkerCheckpointSpec {
        let text = |value: &serde_json::Value| value.to_string();
        let one = |(container, size): (String, qscaler_api::ContainerSize)| {
            let saved = SavedSize { template_hash: size.template_hash, estimate: size.estimate.as_ref().map(text).unwrap_or_default() };
            (container, saved)
        };
        QWorkerCheckpointSpec {
            learned: serde_json::to_string(&self.learned).unwrap_or_default(),
            sizes: self.saved_sizes().into_iter().map(one).collect(),
            cut: self.counters.cut,
            cut_by: self.counters.cut_by.clone(),
            counted_cuts: self.intake.counted_cuts(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::look::*;
    use crate::testing::{T0_MS, deployment, orders, pod, replicaset, view};
    use serde_json::{Value, json};

    #[test]
    fn the_memory_of_an_older_release_is_moved_out_of_the_status_once_it_is_kept_elsewhere() {
        let old = json!({
            "learned": {"last_s": 1.5}, "countedCuts": [{"podUid": "uid-a", "startedMs": 1, "count": 2}], "counters": {"cut": 2, "drained": 9},
            "sizes": {"worker": {"templateHash": "1", "estimate": {"samples": 7}, "reason": "r"}}
        });
        let v = view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]);
        let mut w = Workload::restore(orders(), "dep".into(), serde_json::from_value(old).unwrap(), T0_MS);
        let plan = w.look(&v, &cluster(), WriteRoom { apart: false, ..ROOM }, T0_MS);
        let kept = checkpoint(&plan).expect("it is written before anything else is learned");
        let parsed = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        assert_eq!((&parsed(&kept.learned)["last_s"], &parsed(&kept.sizes["worker"].estimate)["samples"]), (&json!(1.5), &json!(7)));
        assert_eq!((kept.cut, kept.counted_cuts[0].count), (2, 2));
        let first = status(&plan);
        assert!(first.get("learned").is_none() && first.get("countedCuts").is_none(), "the only copy: {first:#}");
        assert!(first["sizes"]["worker"].get("estimate").is_none(), "{first:#}");
        all_done(&mut w, &plan, T0_MS);
        w.unwritten(None);
        let second = status(&w.look(&v, &cluster(), ROOM, T0_MS + 60_000));
        assert!(second["learned"].is_null() && second["sizes"]["worker"]["estimate"].is_null() && second["countedCuts"] == json!([]), "{second:#}");
        assert_eq!(second["counters"]["cut"], json!(2));
        assert!(second.as_object().unwrap().contains_key("learned"), "a merge patch removes only what it names");
        let mut next = Workload::restore(orders(), "dep".into(), left_by(&w, &plan), T0_MS + 70_000);
        assert_eq!(parsed(&next.to_save().learned)["last_s"], json!(1.5));
        assert!(checkpoint(&next.look(&v, &cluster(), BUSY, T0_MS + 70_000)).is_none(), "nothing is new");
    }

    #[test]
    fn the_status_is_small() {
        let v = view(&[deployment(1, &[]), replicaset("orders-1", 1), pod("a")]);
        let mut w = workload();
        w.sampled(waiting(500), T0_MS);
        let text = status(&w.look(&v, &cluster(), ROOM, T0_MS)).to_string();
        assert!(text.len() < 6_000, "{} bytes: {text}", text.len());
    }
}
