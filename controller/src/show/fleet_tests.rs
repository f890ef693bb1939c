//! What the fleet tells, by name, within its bounds, and from the same values as everything else.

use super::*;
use qscaler_core::scale::{Inputs, Rule, ScaleDecision};
use serde_json::{Value, json};

const NOW_MS: u64 = 1_800_000_000_000;

fn id(name: &str) -> WorkloadId {
    WorkloadId { namespace: "shop".into(), name: name.into() }
}

fn snapshot(name: &str, target: u32, rule: Rule) -> Snapshot {
    let decision = ScaleDecision {
        target,
        reason: format!("{target} pods"),
        rule,
        cap: None,
        inputs: Inputs::default(),
        next_wake_s: 1.0,
        hold: None,
        keep_parked: false,
    };
    Snapshot { workload: id(name).to_string(), decision: Some(decision), ..Snapshot::default() }
}

fn shown(desired: i32, troubled: bool) -> Shown {
    let condition = json!({"type": "BrokerReachable", "status": if troubled { "False" } else { "True" }, "reason": "Refused", "message": "no", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = QWorkerStatus { desired, conditions: vec![serde_json::from_value(condition).unwrap()], ..QWorkerStatus::default() };
    Shown::new(status, None)
}

fn told(fleet: &SharedFleet, find: &str) -> Value {
    serde_json::from_str(&json(fleet, find, None, time(NOW_MS).0)).unwrap()
}

fn names(told: &Value) -> Vec<&str> {
    told["shown"].as_array().unwrap().iter().map(|w| w["name"].as_str().unwrap()).collect()
}

#[test]
fn a_row_has_the_status_the_decision_and_what_is_not_as_it_should_be() {
    let fleet = SharedFleet::for_page();
    fleet.lock().leads(true);
    fleet.lock().decided(&id("orders"), snapshot("orders", 3, Rule::Rate), NOW_MS);
    fleet.lock().show(&id("orders"), shown(3, true));
    fleet.lock().show(&id("mail"), shown(0, false));
    let told = told(&fleet, "");
    assert_eq!(
        (&told["leads"], &told["workloads"], &told["troubled"], &told["found"], &told["notReady"]),
        (&json!(true), &json!(2), &json!(1), &json!(2), &Value::Null)
    );
    assert_eq!(names(&told), ["mail", "orders"]);
    let orders = &told["shown"][1];
    assert_eq!((&orders["status"]["desired"], &orders["decision"]["decision"]["target"]), (&json!(3), &json!(3)));
    let refused = json!({"condition": "BrokerReachable", "reason": "Refused", "message": "no", "since": "2026-01-01T00:00:00Z"});
    assert_eq!(orders["trouble"], json!([refused]));
    assert_eq!((&told["shown"][0]["trouble"], &told["shown"][0]["decision"]), (&json!([]), &Value::Null), "not decided yet");
}

#[test]
fn a_decision_is_remembered_when_target_or_rule_change_and_the_oldest_are_forgotten() {
    let fleet = SharedFleet::for_page();
    fleet.lock().show(&id("orders"), shown(1, false));
    for (target, rule) in [(1, Rule::Rate), (1, Rule::Rate), (2, Rule::Rate), (2, Rule::Backlog)] {
        fleet.lock().decided(&id("orders"), snapshot("orders", target, rule), NOW_MS);
    }
    let recent = |fleet: &SharedFleet| told(fleet, "")["shown"][0]["recent"].as_array().unwrap().clone();
    let words: Vec<_> = recent(&fleet).iter().map(|r| format!("{} {}", r["target"], r["rule"].as_str().unwrap())).collect();
    assert_eq!(words, ["2 backlog", "2 rate", "1 rate"]);
    assert_eq!(recent(&fleet)[0]["at"], "2027-01-15T08:00:00Z");
    (0..50).for_each(|n| fleet.lock().decided(&id("orders"), snapshot("orders", n, Rule::Rate), NOW_MS));
    assert_eq!(recent(&fleet).len(), RECENT_MAX);
}

#[test]
fn of_a_large_fleet_those_with_trouble_are_shown_and_find_narrows_it_down() {
    let fleet = SharedFleet::for_page();
    for n in 0..1_000 {
        fleet.lock().show(&id(&format!("w{n:03}")), shown(0, n % 10 == 9));
    }
    let all = told(&fleet, "");
    assert_eq!((&all["workloads"], &all["found"], &all["troubled"]), (&json!(1_000), &json!(1_000), &json!(100)));
    let shown = names(&all);
    assert_eq!((shown.len(), shown.iter().filter(|name| name.ends_with('9')).count()), (WORKLOADS_MAX, 100));
    assert!(shown.is_sorted());
    assert_eq!(names(&told(&fleet, "shop/w99")).len(), 10);
    assert_eq!(told(&fleet, "mail/")["found"], 0);
}

#[test]
fn who_leads_no_more_and_what_is_gone_is_told_of_no_more() {
    let fleet = SharedFleet::for_page();
    fleet.lock().leads(true);
    fleet.lock().show(&id("orders"), shown(1, false));
    fleet.lock().show(&id("mail"), shown(1, false));
    fleet.lock().forget(&id("mail"));
    assert_eq!(names(&told(&fleet, "")), ["orders"]);
    fleet.lock().leads(false);
    assert_eq!((&told(&fleet, "")["leads"], &told(&fleet, "")["workloads"]), (&json!(false), &json!(0)));
}

#[test]
fn without_a_page_the_last_decisions_alone_are_kept() {
    let fleet = SharedFleet::default();
    fleet.lock().decided(&id("orders"), snapshot("orders", 3, Rule::Rate), NOW_MS);
    fleet.lock().show(&id("orders"), shown(3, true));
    let decisions: Value = serde_json::from_str(&fleet.lock().decisions()).unwrap();
    assert_eq!((&decisions[0]["workload"], &decisions[0]["decision"]["target"]), (&json!("shop/orders"), &json!(3)));
    assert!(fleet.lock().workloads[&id("orders")].recent.is_empty() && !fleet.shows());
    assert_eq!(names(&told(&fleet, "")), Vec::<&str>::new());
}
