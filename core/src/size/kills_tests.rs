//! Every order in which two tellers, a save and a crash can follow each other: no kill counts twice, and none is lost.

use super::*;

/// The node's clock at the kill.
const KILL_S: f64 = 1_800_000_000.4;
const START_S: f64 = KILL_S - 100.0;

/// The sidecar's counter, of an instance that started then.
fn counter(started_s: f64, kills: u64, sampled_s: f64) -> Peaks {
    Peaks { oom_kills: kills, started_s: Some(started_s), sampled_s: Some(sampled_s), ..Peaks::default() }
}

fn seen(instance: &str, started_s: f64, ended_s: f64, child: bool) -> OomSeen {
    let whole = |s: f64| s as u64 * 1000;
    OomSeen { instance: instance.to_owned(), child, started_ms: Some(whole(started_s)), at_ms: whole(ended_s) }
}

fn next_life(of: &Kills) -> Kills {
    Kills::restore(serde_json::from_value(serde_json::to_value(of.saved()).unwrap()).unwrap())
}

/// What a life is told or does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Kubelet,
    Sidecar,
    /// What was told so far is saved.
    Save,
    /// The next life starts from what was saved last.
    Crash,
}

/// Kills in the estimate that the last life has, where one container instance was killed once.
fn counted(steps: &[Step]) -> u32 {
    let mut saved = (Kills::default().saved(), 0);
    let (mut kills, mut count) = (Kills::default(), 0);
    for step in steps {
        match step {
            Step::Kubelet => count += u32::from(kills.kubelet("a", &seen("c1", START_S + 2.0, KILL_S, false), false)),
            Step::Sidecar => count += u32::from(kills.sidecar("a", &counter(START_S, 1, KILL_S + 0.1), KILL_S + 400.0).1),
            Step::Save => saved = (serde_json::from_value(serde_json::to_value(kills.saved()).unwrap()).unwrap(), count),
            Step::Crash => (kills, count) = (Kills::restore(saved.0.clone()), saved.1),
        }
    }
    count
}

#[test]
fn one_kill_counts_once_in_every_order_of_tellers_saves_and_crashes() {
    use Step::{Crash, Kubelet, Save, Sidecar};
    let all = [Kubelet, Sidecar, Save, Crash];
    let mut orders = 0;
    for n in 0..4_u32.pow(6) {
        let mut steps: Vec<Step> = (0..6).map(|i| all[(n / 4_u32.pow(i) % 4) as usize]).collect();
        // The kubelet goes on telling, and whoever was heard and forgotten tells again: the pod's status is listed anew, the counter stays in every report.
        steps.push(if n % 2 == 0 { Kubelet } else { Sidecar });
        assert_eq!(counted(&steps), 1, "{steps:?}");
        orders += 1;
    }
    assert_eq!(orders, 4096);
}

/// Container IDs, as runtimes make them.
fn id(of: u32) -> String {
    format!("{of:064x}")
}

fn named(of: u32, peaks: Peaks) -> Peaks {
    Peaks { instance: Some(id(of)), ..peaks }
}

/// What the kubelet shows of that container.
fn shown(of: u32, started_s: f64, ended_s: f64) -> OomSeen {
    seen(&format!("containerd://{}", id(of)), started_s, ended_s, false)
}

#[test]
fn tellers_who_know_the_container_s_id_need_no_clocks() {
    // A slow machine: the runtime notes the start long after the process has it, and the end long after the kill.
    let late = shown(1, START_S + 9.0, KILL_S + 3.0);
    let report = named(1, counter(START_S, 1, KILL_S));
    for sidecar_first in [true, false] {
        let mut kills = Kills::default();
        let told = if sidecar_first {
            let first = kills.sidecar("a", &report, KILL_S).1;
            kills = next_life(&kills);
            [first, kills.kubelet("a", &late, false)]
        } else {
            let first = kills.kubelet("a", &late, false);
            kills = next_life(&kills);
            [first, kills.sidecar("a", &report, KILL_S + 4.0).1]
        };
        assert_eq!(told, [true, false], "the sidecar first: {sidecar_first}");
        assert!(!kills.kubelet("a", &late, false) && !kills.sidecar("a", &report, KILL_S + 9.0).1);
    }
    // Two instances within a second: by their times they would be one.
    let mut kills = Kills::default();
    assert!(kills.sidecar("a", &named(1, counter(START_S, 1, START_S + 0.2)), START_S).1);
    assert!(kills.sidecar("a", &named(2, counter(START_S + 0.5, 1, START_S + 0.7)), START_S).1);
    assert!(!kills.kubelet("a", &shown(1, START_S, START_S + 0.2), false) && !kills.kubelet("a", &shown(2, START_S, START_S + 0.7), false));
}

#[test]
fn what_is_no_id_counts_by_the_clocks() {
    let mut kills = Kills::default();
    let odd = Peaks { instance: Some("0".repeat(10_000)), ..counter(START_S, 1, KILL_S) };
    assert!(kills.sidecar("a", &odd, KILL_S).1 && !kills.kubelet("a", &shown(1, START_S, KILL_S), false));
    // The kubelet's ID is known from then on.
    assert!(!kills.sidecar("a", &named(1, counter(START_S + 9.0, 1, KILL_S)), KILL_S).1);
    assert!(serde_json::to_string(&kills.saved()).unwrap().len() < 400);
}

#[test]
fn each_kill_of_a_process_is_news_and_a_repeated_report_is_not() {
    let mut kills = Kills::default();
    let mut tell = |n| kills.sidecar("a", &counter(START_S, n, KILL_S), KILL_S);
    assert_eq!([tell(0), tell(1), tell(1), tell(2), tell(5)], [(None, false), (None, true), (Some(1), false), (Some(1), true), (Some(2), true)]);
    let mut next = next_life(&kills);
    // A sidecar that was started again reads the boot time anew.
    assert_eq!(next.sidecar("a", &counter(START_S + 0.3, 5, KILL_S), KILL_S), (Some(5), false));
    assert_eq!(next.sidecar("a", &counter(START_S + 0.3, 6, KILL_S), KILL_S), (Some(5), true));
}

#[test]
fn a_container_that_ends_by_itself_long_after_a_kill_in_it_is_no_second_kill() {
    for (child, leaving) in [(true, false), (true, true), (false, true)] {
        let mut kills = Kills::default();
        assert!(kills.sidecar("a", &counter(START_S, 1, KILL_S), KILL_S).1);
        let mut kills = next_life(&kills);
        assert!(!kills.kubelet("a", &seen("c1", START_S, KILL_S + 7_200.0, child), leaving));
    }
    // Where nobody reads the counter, the kubelet's word is all there is: once.
    let mut kills = Kills::default();
    let end = seen("c1", START_S, KILL_S, true);
    assert!(kills.kubelet("a", &end, true) && !kills.kubelet("a", &end, true) && !next_life(&kills).kubelet("a", &end, true));
}

#[test]
fn a_process_and_later_the_container_are_two_kills_whoever_tells_of_the_second() {
    for counter_first in [true, false] {
        let mut kills = Kills::default();
        assert!(kills.sidecar("a", &counter(START_S, 1, KILL_S - 60.0), KILL_S).1);
        let end = seen("c1", START_S, KILL_S, false);
        let told = if counter_first {
            [kills.sidecar("a", &counter(START_S, 2, KILL_S), KILL_S).1, kills.kubelet("a", &end, false)]
        } else {
            [kills.kubelet("a", &end, false), kills.sidecar("a", &counter(START_S, 2, KILL_S), KILL_S).1]
        };
        assert_eq!(told, [true, false], "the counter first: {counter_first}");
        // The counter could not be read once more.
        let mut kills = Kills::default();
        assert!(kills.sidecar("a", &counter(START_S, 1, KILL_S - 60.0), KILL_S).1 && kills.kubelet("a", &end, false));
        // Two at once, of which the kubelet shows the one.
        assert!(kills.sidecar("a", &counter(START_S, 3, KILL_S), KILL_S).1);
    }
}

#[test]
fn a_container_that_is_killed_again_and_again_counts_each_time() {
    let mut kills = Kills::default();
    for i in 0..6_u32 {
        let start = START_S + 3.0 * f64::from(i);
        let (end, name) = (start + 1.5, format!("c{i}"));
        let told = if i % 2 == 0 {
            [kills.sidecar("a", &counter(start, 1, end), end).1, kills.kubelet("a", &seen(&name, start, end, false), false)]
        } else {
            [kills.kubelet("a", &seen(&name, start, end, false), false), kills.sidecar("a", &counter(start, 1, end), end).1]
        };
        assert_eq!(told, [true, false], "instance {i}");
        kills = next_life(&kills);
        // The one before is still shown.
        assert!(!kills.kubelet("a", &seen(&name, start, end, false), false));
        assert!(!kills.sidecar("a", &counter(start, 1, end), end).1);
    }
}

#[test]
fn a_kill_in_one_pod_does_not_hide_an_earlier_one_in_another() {
    let mut kills = Kills::default();
    assert!(kills.sidecar("b", &counter(START_S, 1, KILL_S + 5.0), KILL_S + 5.0).1);
    let mut kills = next_life(&kills);
    assert!(kills.kubelet("a", &seen("c1", START_S, KILL_S, false), false));
    let gone = HashSet::from(["a"]);
    kills.retain(&gone);
    assert_eq!(kills.saved().counted.len(), 1);
}

#[test]
fn of_many_pods_the_newest_are_saved_and_the_others_are_not_counted_again() {
    let mut kills = Kills::default();
    for i in 0..200_u32 {
        assert!(kills.sidecar(&format!("p{i}"), &counter(START_S, 1, KILL_S + f64::from(i)), KILL_S).1);
    }
    let mut next = next_life(&kills);
    assert!(next.saved().counted.len() == SAVED_MAX && serde_json::to_string(&next.saved()).unwrap().len() < 8_192);
    let again = (0..200_u32).filter(|i| next.sidecar(&format!("p{i}"), &counter(START_S, 1, KILL_S + f64::from(*i)), KILL_S).1).count();
    assert_eq!(again, 0);
    assert!(next.sidecar("p0", &counter(START_S, 2, KILL_S + 300.0), KILL_S).1, "another one");
    assert!(next.sidecar("new", &counter(KILL_S + 250.0, 1, KILL_S + 300.0), KILL_S).1, "a new pod's");
}

#[test]
fn more_kills_are_expected_for_half_a_minute_after_one() {
    assert_eq!(
        [(0, 5_000), (1_000, 1_000), (1_000, 30_999), (1_000, 31_000)].map(|(killed, now)| expects_kills(killed, now)),
        [false, true, true, false]
    );
}
