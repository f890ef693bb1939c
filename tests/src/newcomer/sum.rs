//! The outcome. In: steps, faults, leftovers. Out: a line each, and one JSON object. Left to others: what counts as done (`run`).

use serde::Serialize;

/// One step as it went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// What the page says to do.
    pub step: String,
    /// Seconds it took.
    pub seconds: f64,
    /// What went wrong; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

impl Step {
    /// A line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let wrong = self.wrong.as_deref().map_or_else(String::new, |wrong| format!("\n       {}", wrong.replace('\n', "\n       ")));
        format!("{} {:6.1} s  {}{wrong}", if self.wrong.is_none() { "ok    " } else { "FAILED" }, self.seconds, self.step)
    }
}

/// A fault that was planted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What was broken.
    pub fault: &'static str,
    /// The failed check that named it, with its mend; absent: none did.
    pub said: Option<String>,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sum {
    /// In order.
    pub steps: Vec<Step>,
    /// Steps that went wrong.
    pub failed: Vec<String>,
    /// Faults that doctor has named.
    pub faults_found: usize,
    /// All that were planted.
    pub faults: Vec<Found>,
    /// What was not there before, and is there after the uninstallation.
    pub left_behind: Vec<String>,
}

impl Sum {
    /// One more step.
    pub fn step(&mut self, step: Step) {
        if step.wrong.is_some() {
            self.failed.push(step.step.clone());
        }
        self.steps.push(step);
    }

    /// One more fault.
    pub fn fault(&mut self, fault: &'static str, said: Option<String>) {
        self.faults_found += usize::from(said.is_some());
        self.faults.push(Found { fault, said });
    }

    /// Whether a newcomer would have got through, with `faults` planted.
    #[must_use]
    pub fn is_good(&self, faults: usize) -> bool {
        self.failed.is_empty() && self.left_behind.is_empty() && self.faults_found == faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_step_that_went_wrong_a_fault_that_nobody_named_and_a_leftover_are_each_a_failure() {
        let step = |wrong: Option<&str>| Step { step: "helm install".into(), seconds: 1.0, wrong: wrong.map(str::to_owned) };
        let mut good = Sum::default();
        good.step(step(None));
        good.fault("wrong secret", Some("broker: no Secret".into()));
        assert!(good.is_good(1) && !good.is_good(2));
        let mut wrong = good.clone();
        wrong.step(step(Some("it says no")));
        let mut silent = good.clone();
        silent.fault("webhook down", None);
        let left = Sum { left_behind: vec!["Namespace qscaler-system".into()], ..good.clone() };
        assert!(!wrong.is_good(1) && !silent.is_good(2) && !left.is_good(1));
        assert_eq!(
            serde_json::to_value(&wrong).unwrap(),
            json!({"steps": [{"step": "helm install", "seconds": 1.0}, {"step": "helm install", "seconds": 1.0, "wrong": "it says no"}], "failed": ["helm install"],
                "faults_found": 1, "faults": [{"fault": "wrong secret", "said": "broker: no Secret"}], "left_behind": []})
        );
        assert!(wrong.steps[1].line().starts_with("FAILED") && wrong.steps[1].line().contains("it says no"));
    }
}
