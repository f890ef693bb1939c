//! Another writer of the replica count that no scaler object tells of: a GitOps controller or a script that applies `replicas` again and again. In:
//! what we wrote, what is there, and who the API server says wrote it (managedFields). Out: whether to go on. Left to others: reading (`controller`).
//!
//! One write by somebody else is a person, or a deployment of a manifest that has the field, and is simply answered. Several within minutes are a
//! contest that nobody wins: pods are started and stopped in turn. Then we stop, say who it is, and try again now and then whether it is over.

use std::collections::VecDeque;

/// So many of our counts undone within [`WINDOW_MS`] are a contest.
const ROUNDS: usize = 3;
/// See [`ROUNDS`], milliseconds.
const WINDOW_MS: u64 = 600_000;
/// How long we leave the count alone the first time, milliseconds; twice as long each time that it is undone again.
const REST_MS: u64 = 600_000;
/// The longest rest, milliseconds.
const REST_MOST_MS: u64 = 3_600_000;

/// What is known of other writers of one workload's count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contest {
    /// What we wrote last, and nobody has undone yet.
    wrote: Option<u32>,
    /// When ours was undone.
    undone: VecDeque<u64>,
    /// The rest under way.
    rest: Option<Rest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rest {
    writer: String,
    theirs: u32,
    times: u32,
    until_ms: u64,
}

impl Contest {
    /// We wrote this count.
    pub fn wrote(&mut self, count: u32) {
        self.wrote = Some(count);
    }

    /// What is there after our last write, and who wrote it; None: we did, or it is not known.
    pub fn saw(&mut self, count: u32, writer: Option<&str>, now_ms: u64) {
        let (Some(ours), Some(writer)) = (self.wrote, writer) else { return };
        if count == ours {
            return;
        }
        self.wrote = None;
        self.undone.retain(|at| now_ms < at.saturating_add(WINDOW_MS));
        self.undone.push_back(now_ms);
        let before = self.rest.as_ref().map_or(0, |rest| rest.times);
        if before > 0 || self.undone.len() >= ROUNDS {
            let times = before.saturating_add(1);
            let rest = REST_MS.saturating_mul(1 << (times - 1).min(8)).min(REST_MOST_MS);
            self.undone.clear();
            self.rest = Some(Rest { writer: writer.to_owned(), theirs: count, times, until_ms: now_ms.saturating_add(rest) });
        }
    }

    /// Why the count is left alone, and the ways out, in one sentence.
    #[must_use]
    pub fn conflict(&self, now_ms: u64) -> Option<String> {
        let rest = self.rest.as_ref().filter(|rest| now_ms < rest.until_ms)?;
        Some(format!(
            "{} sets replicas to {} again and again, so replicas are left alone; take spec.replicas out of what it applies (Argo CD: ignoreDifferences \
             with RespectIgnoreDifferences=true, Flux and Helm: no replicas in the manifest), or set the annotation {} to protect (scaling: protect)",
            rest.writer,
            rest.theirs,
            crate::names::annotation::SCALING
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_rounds_and_then_it_is_left_alone_and_named_and_tried_again_more_and_more_seldom() {
        let (mut contest, mut writes) = (Contest::default(), Vec::new());
        for second in 0..20_000_u64 {
            let now = second * 1_000;
            if contest.wrote.is_none() && contest.conflict(now).is_none() {
                contest.wrote(9);
                writes.push(second);
            } else if second % 5 == 0 {
                contest.saw(1, Some("argocd-controller"), now);
            }
        }
        assert!(writes.len() <= 10 && writes[..3].last() < Some(&60), "{writes:?}");
        let why = contest.conflict(19_999_000).unwrap();
        assert!(["argocd-controller", "ignoreDifferences", "scaling: protect", "replicas to 1"].iter().all(|word| why.contains(word)), "{why}");
    }

    #[test]
    fn a_person_now_and_then_is_answered_and_our_own_count_is_no_contest() {
        let mut contest = Contest::default();
        for hour in 0..20 {
            contest.wrote(9);
            contest.saw(9, Some("helm"), hour * 3_600_000);
            contest.saw(3, None, hour * 3_600_000);
            contest.saw(3, Some("kubectl"), hour * 3_600_000);
            assert_eq!(contest.conflict(hour * 3_600_000), None);
        }
    }
}
