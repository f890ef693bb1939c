//! Comes in: how many pods a queue needs, and the Deployments that take from it. Goes out: how many pods each has of them. Leaves to others: how many are needed.
//!
//! The method of highest averages with odd divisors (Sainte-Laguë, Webster) within bounds: pod by pod, to whoever is furthest below its part. Unlike largest
//! remainders it never takes a pod from one because there is one more to give, so a pool that grows or shrinks by one moves one member alone. What is there stays
//! where it is: nobody is lowered to raise another.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One Deployment, in pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Its part against the others'; 0 counts as 1.
    pub weight: u32,
    /// Fewest pods that it may be given.
    pub least: u32,
    /// Most; wins over `least`.
    pub most: u32,
    /// Pods that it has: ready or on their way.
    pub has: u32,
    /// Of those, the ones that can go at once: idle, or not started.
    pub can_go: u32,
    /// What one of its pods counts in the total, at least 1: more where members run different numbers of tasks in a pod.
    pub size: u32,
}

/// A pod that one of them might get or lose. The greatest is the one that is given first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat {
    part: Part,
    /// Its place among the pods of its member, from 0.
    at: u32,
    member: usize,
}

impl Ord for Seat {
    fn cmp(&self, other: &Self) -> Ordering {
        // weight / (2 at + 1), without a division. Members that are alike in all are told apart by their order.
        let claim = |of: &Self, by: &Self| u64::from(of.part.weight.max(1)) * (2 * u64::from(by.at) + 1);
        claim(self, other).cmp(&claim(other, self)).then_with(|| self.part.cmp(&other.part)).then_with(|| other.member.cmp(&self.member))
    }
}

impl PartialOrd for Seat {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The pods of each, in the order of `parts`. Together they count `total`, or as near to it as the bounds allow; where the sizes of pods differ, no less than
/// `total` and less than one pod more. Those who can go at once go first. Time grows with the pods that are given or taken.
#[must_use]
pub fn divide(total: u32, parts: &[Part]) -> Vec<u32> {
    let mut shares: Vec<u32> = parts.iter().map(|part| part.has.max(part.least).min(part.most)).collect();
    let total = u64::from(total);
    let mut sum: u64 = parts.iter().zip(&shares).map(|(part, share)| size(part) * u64::from(*share)).sum();
    if sum < total {
        let seat = |member: usize, at: u32| (at < parts[member].most).then(|| Seat { part: parts[member], at, member });
        let mut next: BinaryHeap<Seat> = shares.iter().enumerate().filter_map(|(member, share)| seat(member, *share)).collect();
        while sum < total
            && let Some(given) = next.pop()
        {
            shares[given.member] += 1;
            sum += size(&given.part);
            next.extend(seat(given.member, shares[given.member]));
        }
        return shares;
    }
    let at_once = |part: &Part| part.least.max(part.has.saturating_sub(part.can_go));
    for floor in [&at_once as &dyn Fn(&Part) -> u32, &|part: &Part| part.least] {
        let seat = |member: usize, share: u32| {
            (share > floor(&parts[member]).min(parts[member].most)).then(|| std::cmp::Reverse(Seat { part: parts[member], at: share - 1, member }))
        };
        let mut last: BinaryHeap<_> = shares.iter().enumerate().filter_map(|(member, share)| seat(member, *share)).collect();
        while sum > total
            && let Some(std::cmp::Reverse(taken)) = last.pop()
        {
            // A pod that counts more than what is over stays; a smaller one of another may go.
            if sum - size(&taken.part) >= total {
                shares[taken.member] -= 1;
                sum -= size(&taken.part);
                last.extend(seat(taken.member, shares[taken.member]));
            }
        }
    }
    shares
}

fn size(part: &Part) -> u64 {
    u64::from(part.size.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(weight: u32, has: u32) -> Part {
        Part { weight, least: 0, most: 1000, has, can_go: has, size: 1 }
    }

    #[test]
    fn what_is_needed_is_divided_by_weight_and_counted_once() {
        assert_eq!(divide(12, &[part(30, 0), part(10, 0)]), [9, 3]);
        assert_eq!(divide(10, &[part(30, 0), part(10, 0)]), [8, 2], "7.5 and 2.5: the larger one first");
        assert_eq!(divide(3, &[part(1, 0), part(1, 0), part(1, 0)]), [1, 1, 1]);
        assert_eq!(divide(1, &[part(1, 0), part(1, 0)]), [1, 0], "one message starts one pod");
        assert_eq!(divide(10, &[]), Vec::<u32>::new());
    }

    #[test]
    fn what_one_cannot_take_goes_to_the_others_and_minimums_are_kept() {
        let small = Part { most: 2, ..part(30, 0) };
        assert_eq!(divide(10, &[small, part(10, 0)]), [2, 8]);
        let fixed = Part { least: 4, most: 4, ..part(10, 4) };
        assert_eq!(divide(10, &[fixed, part(10, 0)]), [4, 6], "paused pods are capacity");
        assert_eq!(divide(2, &[fixed, part(10, 0)]), [4, 0]);
        assert_eq!(divide(1, &[Part { least: 2, ..part(1, 0) }, Part { least: 1, ..part(1, 0) }]), [2, 1]);
        let lowered = Part { most: 3, ..part(10, 9) };
        assert_eq!(divide(9, &[lowered, part(10, 0)]), [3, 6], "a maximum that was lowered moves pods");
    }

    #[test]
    fn nobody_is_lowered_to_raise_another_and_who_idles_goes_first() {
        assert_eq!(divide(10, &[part(1, 10), part(1, 0)]), [10, 0], "a new member gets what comes, not what is there");
        assert_eq!(divide(12, &[part(1, 10), part(1, 0)]), [10, 2]);
        assert_eq!(divide(8, &[part(1, 5), part(1, 5)]), [4, 4]);
        let busy = Part { can_go: 0, ..part(1, 5) };
        assert_eq!(divide(8, &[busy, part(1, 5)]), [5, 3]);
        assert_eq!(divide(3, &[busy, part(1, 5)]), [3, 0], "asked to leave after their tasks, once the idle ones are gone");
    }

    #[test]
    fn pods_of_different_sizes_cover_the_total() {
        let large = Part { size: 4, ..part(1, 0) };
        assert_eq!(divide(5, &[large, part(1, 0)]), [1, 1]);
        assert_eq!(divide(6, &[large, part(1, 0)]), [2, 1], "no less, and less than one pod more");
        assert_eq!(divide(5, &[Part { has: 2, can_go: 2, ..large }, part(1, 2)]), [1, 1]);
    }

    fn any_parts() -> impl Strategy<Value = Vec<Part>> {
        let one = (0u32..50, 0u32..8, 0u32..40, 0u32..50, 0u32..50).prop_map(|(weight, least, more, has, can_go)| Part {
            weight,
            least,
            most: least + more,
            has,
            can_go: can_go.min(has),
            size: 1,
        });
        proptest::collection::vec(one, 1..7)
    }

    proptest! {
        #[test]
        fn the_sum_is_the_need_within_all_bounds(parts in any_parts(), total in 0u32..300) {
            let shares = divide(total, &parts);
            prop_assert!(parts.iter().zip(&shares).all(|(part, share)| (part.least..=part.most).contains(share)), "{:?}", shares);
            let bounds: (u32, u32) = (parts.iter().map(|p| p.least).sum(), parts.iter().map(|p| p.most).sum());
            prop_assert_eq!(shares.iter().sum::<u32>(), total.max(bounds.0).min(bounds.1));
        }

        #[test]
        fn one_more_moves_one_and_takes_from_nobody(parts in any_parts(), total in 0u32..300) {
            let (before, after) = (divide(total, &parts), divide(total + 1, &parts));
            prop_assert!(before.iter().zip(&after).all(|(before, after)| before <= after), "{:?} {:?}", before, after);
            prop_assert!(after.iter().sum::<u32>() - before.iter().sum::<u32>() <= 1);
        }

        #[test]
        fn what_is_there_and_right_stays_where_it_is(parts in any_parts()) {
            let held: Vec<Part> = parts.iter().map(|p| Part { has: p.has.max(p.least).min(p.most), ..*p }).collect();
            let total = held.iter().map(|p| p.has).sum();
            prop_assert_eq!(divide(total, &held), held.iter().map(|p| p.has).collect::<Vec<_>>());
        }

        #[test]
        fn up_lowers_nobody_and_down_raises_nobody(parts in any_parts(), total in 0u32..300) {
            let held: Vec<Part> = parts.iter().map(|p| Part { has: p.has.max(p.least).min(p.most), ..*p }).collect();
            let there: u32 = held.iter().map(|p| p.has).sum();
            let shares = divide(total, &held);
            let moved = |way: fn(&u32, &u32) -> bool| held.iter().zip(&shares).any(|(part, share)| way(share, &part.has));
            let wrong = if total >= there { moved(|share, has| share < has) } else { moved(|share, has| share > has) };
            prop_assert!(!wrong, "{:?}", shares);
        }

        #[test]
        fn their_order_does_not_matter(parts in any_parts(), total in 0u32..300, turn in 0usize..7) {
            let mut turned = parts.clone();
            turned.rotate_left(turn % parts.len());
            turned.reverse();
            let sorted = |parts: &[Part]| {
                let mut all: Vec<(Part, u32)> = parts.iter().copied().zip(divide(total, parts)).collect();
                all.sort_unstable();
                all
            };
            prop_assert_eq!(sorted(&parts), sorted(&turned));
        }
    }
}
