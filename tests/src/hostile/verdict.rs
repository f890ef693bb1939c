//! What came of the cases. In: what was seen of each. Out: lines, the sum as JSON, and whether all is as it should be. Left to others: seeing it (`run`).

use serde_json::{Value, json};

/// What was seen of one case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub case: String,
    /// Why the worker does not run where the same one without QScaler does; None: it runs.
    pub not_running: Option<String>,
    /// What should have been named and was not, with all that was said instead.
    pub unexplained: Option<String>,
    /// What was said, where it had to be.
    pub said: Option<String>,
    /// Runs of a task that began and did not end.
    pub cut: usize,
    /// Why the case shows nothing: the worker does not run without QScaler either, or the cluster failed.
    pub void: Option<String>,
}

impl Seen {
    /// Whether it is as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.not_running.is_none() && self.unexplained.is_none() && self.cut == 0 && self.void.is_none()
    }

    /// For people.
    #[must_use]
    pub fn line(&self) -> String {
        let mut words = vec![if self.is_good() { "ok".to_owned() } else { "NOT AS IT SHOULD BE".to_owned() }];
        words.extend(self.void.as_ref().map(|why| format!("shows nothing: {why}")));
        words.extend(self.not_running.as_ref().map(|why| format!("its worker does not run: {why}")));
        words.extend((self.cut > 0).then(|| format!("{} tasks cut", self.cut)));
        words.extend(self.unexplained.clone());
        words.extend(self.said.as_ref().map(|said| format!("said: {said}")));
        format!("{:<24} {}", self.case, words.join("; "))
    }
}

/// All of them in one object.
#[must_use]
pub fn sum(all: &[Seen]) -> Value {
    let named = |pick: fn(&Seen) -> bool| all.iter().filter(|seen| pick(seen)).map(|seen| seen.case.as_str()).collect::<Vec<_>>();
    let mut sum = json!({
        "cases": all.len(),
        "worker_not_running": named(|seen| seen.not_running.is_some()).len(),
        "unexplained": named(|seen| seen.unexplained.is_some()),
        "tasks_cut": all.iter().map(|seen| seen.cut).sum::<usize>(),
    });
    let void = named(|seen| seen.void.is_some());
    if !void.is_empty() {
        sum["void"] = json!(void);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_counts_what_may_not_be_and_names_what_was_not_said() {
        let good = Seen { case: "a".into(), said: Some("x".into()), ..Seen::default() };
        let bad = Seen {
            case: "b".into(),
            not_running: Some("Pending".into()),
            unexplained: Some("nothing names nowhere".into()),
            cut: 2,
            ..Seen::default()
        };
        assert_eq!(sum(std::slice::from_ref(&good)), json!({"cases": 1, "worker_not_running": 0, "unexplained": [], "tasks_cut": 0}));
        assert_eq!(sum(&[good.clone(), bad.clone()]), json!({"cases": 2, "worker_not_running": 1, "unexplained": ["b"], "tasks_cut": 2}));
        let void = Seen { case: "c".into(), void: Some("no node".into()), ..Seen::default() };
        assert_eq!(sum(&[void])["void"], json!(["c"]));
        assert!(good.is_good() && !bad.is_good() && bad.line().contains("Pending"));
    }
}
