//! Comes in: Deployments that take from the same queues, what each one's pods do, figures of the queues as each of them was told. Goes out: one decision for all, and
//! each one's share of it. Leaves to others: who belongs together (the caller says it), the division (`divide`), the law itself.
//!
//! The pool is what the law decides for, where there is one: the backlog is one, the arrivals are one, every task that ends is counted, and a pod of any member is
//! capacity. Decided one by one, each member would start pods for the whole backlog, and take what the others finish for messages that went away.
//!
//! Members need not have all their queues in common. The figures of each queue are counted once all the same; and a queue that only one of them takes from is that
//! one's alone to serve, whatever the others have idle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::divide::{Part, divide};
use super::wish::count;
use super::{FleetSample, Inputs, Learned, QueueSample, ScaleConfig, ScaleDecision, decide};
use crate::config::{Paused, WorkerConfig};

/// A pool that is new waits for the first word of every member for this long, seconds: one of them may know what was learned of the queue.
const GATHER_S: f64 = 10.0;
/// A decision stands for this part of a tick: members ask one after the other, and mean the same one.
const STANDS_TICKS: f64 = 0.5;

/// What may be changed of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Takes {
    /// Its pods are added to and let go.
    #[default]
    All,
    /// None is let go.
    More,
    /// None is added.
    Fewer,
    /// It stays as it is: its pods are capacity, and what the queue needs besides is the others'.
    Nothing,
    /// The same for the others; itself it is told what it would get (`dry-run`).
    Told,
}

impl Takes {
    /// By the user's words; `left_alone`: its replicas are not ours to change (another writer, pods that cannot have the sidecar).
    #[must_use]
    pub fn of(config: &WorkerConfig, left_alone: bool) -> Self {
        match config.paused {
            _ if left_alone || !config.owns_replicas() => Self::Nothing,
            Paused::All => Self::Nothing,
            _ if config.only_explains() => Self::Told,
            Paused::ScaleDown => Self::More,
            Paused::ScaleUp => Self::Fewer,
            Paused::No => Self::All,
        }
    }
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The law's configuration of it.
    pub cfg: ScaleConfig,
    /// What may be changed of it.
    pub takes: Takes,
    /// Its pods.
    pub fleet: FleetSample,
}

impl Member {
    fn part(&self, takes: Takes, unit: u32, hold: bool, own_need: u32) -> Part {
        let has = self.fleet.useful();
        let most = self.cfg.max_replicas;
        let least = self.cfg.min_replicas.min(most).max(own_need.min(most));
        let unstarted = has.saturating_sub(self.fleet.ready);
        let idle = self.fleet.ready.saturating_sub(self.fleet.busy.unwrap_or(0)).saturating_sub(self.fleet.untold);
        let part = Part { weight: most, least, most, has, can_go: unstarted + idle, size: self.cfg.concurrency.max(1) / unit };
        // Unknown is not zero: what is there stays, and what is parked comes back.
        let stays = if hold { has.saturating_add(self.fleet.parked) } else { has };
        match takes {
            Takes::All if hold => Part { least: least.max(stays.min(most)), ..part },
            Takes::All => part,
            Takes::More => Part { least: least.max(stays), most: most.max(has), ..part },
            Takes::Fewer => Part { least: if hold { has } else { least.min(has) }, most: most.min(has), ..part },
            Takes::Nothing | Takes::Told => Part { least: has, most: has, ..part },
        }
    }
}

#[derive(Debug, Clone)]
struct Seat {
    queues: Vec<String>,
    told: Option<Member>,
    /// It has said that since the last decision.
    is_news: bool,
    share: Option<Share>,
}

#[derive(Debug, Clone, Copy)]
struct Share {
    pods: u32,
    /// Pods that it had when that was decided.
    has: u32,
    /// Its part of what has arrived was handed out.
    taken: bool,
}

/// With whom a Deployment shares its queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// The others.
    pub others: Vec<String>,
    /// Its pods of what the queue needs, and what that is in all, both in pods; `None` until it was decided.
    pub share: Option<(u32, u32)>,
    /// Its `max-replicas`, and those of all members.
    pub weight: (u32, u32),
    /// Some of them take from queues that others do not take from.
    pub overlaps: bool,
    /// Nothing is changed of it, so what the queue needs besides is the others'.
    pub stays: bool,
}

/// Members by `K`, which orders and names them.
#[derive(Debug, Clone)]
pub struct Pool<K> {
    seats: BTreeMap<K, Seat>,
    since_s: Option<f64>,
    learned: Learned,
    /// How much the one knew from whom `learned` came; `None`: nobody has said a word.
    knew: Option<f64>,
    figures: BTreeMap<String, (QueueSample, f64)>,
    decided: Option<(ScaleDecision, f64)>,
}

impl<K> Default for Pool<K> {
    fn default() -> Self {
        Self { seats: BTreeMap::new(), since_s: None, learned: Learned::default(), knew: None, figures: BTreeMap::new(), decided: None }
    }
}

impl<K: Ord + Clone + Display> Pool<K> {
    /// From now on these are its members, each with the names of its queues in the order of its samples. What was said and learned stays.
    pub fn set_members(&mut self, members: BTreeMap<K, Vec<String>>) {
        let mut before = std::mem::take(&mut self.seats);
        let seat = |(key, queues): (K, Vec<String>)| {
            let old = before.remove(&key);
            let (told, share, is_news) = old.map_or((None, None, false), |seat| (seat.told, seat.share, seat.is_news));
            (key, Seat { queues, told, is_news, share })
        };
        self.seats = members.into_iter().map(seat).collect();
        let queues: BTreeSet<&String> = self.seats.values().flat_map(|seat| &seat.queues).collect();
        self.figures.retain(|queue, _| queues.contains(queue));
    }

    /// Takes in what `key` says, with its samples in the order of its queues, and gives its share of the pool's decision, which is made anew once a tick. `learned` is its
    /// own memory: the pool begins with that of the member who knows most, and gives back what it knows, so that whoever is left alone goes on with it. `None`: it is
    /// no member, or others have not said a word yet. `now_s` as for [`decide`].
    pub fn decide(&mut self, key: &K, member: Member, samples: &[QueueSample], learned: &mut Learned, now_s: f64) -> Option<ScaleDecision> {
        let tick_s = member.cfg.law.tick_s;
        self.tell(key, member, samples, now_s)?;
        if self.decided.is_none() {
            let knows = learned.service.evidence() + f64::from(u8::from(learned.last_s.is_some()));
            if self.knew.is_none_or(|knew| knows > knew) {
                (self.learned, self.knew) = (learned.clone(), Some(knows));
            }
            let since_s = *self.since_s.get_or_insert(now_s);
            if self.seats.values().any(|seat| seat.told.is_none()) && (0.0..GATHER_S).contains(&(now_s - since_s)) {
                return None;
            }
        }
        let stands = self.decided.as_ref().is_some_and(|(_, at_s)| (0.0..STANDS_TICKS * tick_s).contains(&(now_s - at_s)));
        if !stands || self.seats.get(key).is_none_or(|seat| seat.share.is_none()) {
            self.look(now_s);
        }
        learned.clone_from(&self.learned);
        self.share(key)
    }

    /// With whom `key` shares; `None`: with nobody.
    #[must_use]
    pub fn shared(&self, key: &K) -> Option<Shared> {
        let seat = self.seats.get(key).filter(|_| self.seats.len() > 1)?;
        let set = |seat: &Seat| seat.queues.iter().cloned().collect::<BTreeSet<_>>();
        let weight = |seat: &Seat| seat.told.as_ref().map_or(0, |told| told.cfg.max_replicas);
        let total = self.seats.values().filter_map(|seat| seat.share).map(|share| share.pods).sum();
        Some(Shared {
            others: self.seats.keys().filter(|other| *other != key).map(ToString::to_string).collect(),
            share: seat.share.map(|share| (share.pods, total)),
            weight: (weight(seat), self.seats.values().map(weight).fold(0, u32::saturating_add)),
            overlaps: self.seats.values().any(|other| set(other) != set(seat)),
            stays: seat.told.as_ref().is_some_and(|told| matches!(told.takes, Takes::Nothing | Takes::Told)),
        })
    }

    /// Messages that it has counted as arrived.
    #[must_use]
    pub fn counted(&self) -> f64 {
        self.learned.counters.counted()
    }

    fn tell(&mut self, key: &K, mut member: Member, samples: &[QueueSample], now_s: f64) -> Option<()> {
        let seat = self.seats.get_mut(key)?;
        if let Some(before) = seat.told.take() {
            member.fleet.add_events(before.fleet);
        }
        (seat.told, seat.is_news) = (Some(member), true);
        for (queue, sample) in seat.queues.iter().zip(samples) {
            // What one was told a moment ago is better than what another was not told; it gets old, and the law says so.
            if sample.ready.is_some() || !self.figures.contains_key(queue) {
                self.figures.insert(queue.clone(), (sample.clone(), now_s));
            }
        }
        Some(())
    }

    fn look(&mut self, now_s: f64) {
        for seat in self.seats.values_mut().filter(|seat| !seat.is_news) {
            let (Some(member), Some(share)) = (seat.told.as_mut(), seat.share.as_ref()) else { continue };
            // What it was given is on its way until it says something else.
            if member.takes != Takes::Told {
                member.fleet.spec_replicas = member.fleet.spec_replicas.saturating_add(share.pods.saturating_sub(member.fleet.useful()));
            }
        }
        let members: Vec<(&K, &Vec<String>, &Member)> =
            self.seats.iter().filter_map(|(key, seat)| Some((key, &seat.queues, seat.told.as_ref()?))).collect();
        let unit = members.iter().fold(0, |unit, (_, _, member)| common(unit, member.cfg.concurrency.max(1))).max(1);
        let figures: Vec<QueueSample> = members
            .iter()
            .flat_map(|(_, queues, _)| queues.iter())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|queue| self.figures.get(queue).map_or_else(QueueSample::default, |figure| aged(figure, now_s)))
            .collect();
        let sizes: Vec<u32> = members.iter().map(|(_, _, member)| member.cfg.concurrency.max(1) / unit).collect();
        let fleet = FleetSample::together(members.iter().zip(&sizes).map(|((_, _, member), size)| (&member.fleet, *size)));
        let free: Vec<Part> = members.iter().map(|(_, _, member)| member.part(member.takes, unit, false, 0)).collect();
        let cfg = merged(members.iter().map(|(_, _, member)| &member.cfg), &free, unit);
        let decision = decide(&cfg, &mut self.learned, &figures, &fleet, now_s);
        let hold = decision.hold.is_some();
        let needs: Vec<u32> = members.iter().map(|(_, queues, member)| self.own_need(queues, member, decision.inputs.service_s)).collect();
        let parts = |shown: Option<usize>| -> Vec<Part> {
            let takes = |at: usize, member: &Member| if shown == Some(at) { Takes::All } else { member.takes };
            members.iter().zip(&needs).enumerate().map(|(at, ((_, _, member), need))| member.part(takes(at, member), unit, hold, *need)).collect()
        };
        let shares = divide(decision.target, &parts(None));
        let share = |(at, (key, _, member)): (usize, &(&K, &Vec<String>, &Member))| {
            let pods = if member.takes == Takes::Told { divide(decision.target, &parts(Some(at)))[at] } else { shares[at] };
            ((*key).clone(), Share { pods, has: member.fleet.useful(), taken: false })
        };
        let shares: Vec<(K, Share)> = members.iter().enumerate().map(share).collect();
        for (key, share) in shares {
            if let Some(seat) = self.seats.get_mut(&key) {
                seat.share = Some(share);
            }
        }
        for seat in self.seats.values_mut() {
            seat.is_news = false;
            seat.told.iter_mut().for_each(|member| member.fleet.forget_events());
        }
        self.decided = Some((decision, now_s));
    }

    /// Pods that `member` needs for what waits in queues that nobody else takes from: so many that with each doing one task after the other all of it has started within the
    /// aimed-at part of the promise. Idle pods of others do not help there, so the pool's need alone could leave such a queue to nobody.
    fn own_need(&self, queues: &[String], member: &Member, service_s: f64) -> u32 {
        let takers = |queue: &String| self.seats.values().filter(|seat| seat.queues.contains(queue)).count();
        let waiting =
            queues.iter().filter(|queue| takers(queue) == 1).filter_map(|queue| self.figures.get(queue)?.0.ready).fold(0, u64::saturating_add);
        if waiting == 0 || takers_are_alike(&self.seats) {
            return 0;
        }
        let aim_s = member.cfg.law.wait_share * member.cfg.max_wait_s;
        let workers = waiting as f64 / (1.0 + (aim_s / service_s.max(1e-3)).floor());
        let busy = f64::from(member.fleet.busy.unwrap_or(0));
        count(((busy + workers) / f64::from(member.cfg.concurrency.max(1))).ceil())
    }

    fn share(&mut self, key: &K) -> Option<ScaleDecision> {
        let (decision, _) = self.decided.as_ref()?;
        let others: Vec<String> = self.seats.keys().filter(|other| *other != key).map(ToString::to_string).collect();
        let total: u32 = self.seats.values().filter_map(|seat| seat.share).map(|share| share.pods).fold(0, u32::saturating_add);
        let seats = u32::try_from(self.seats.len()).unwrap_or(u32::MAX).max(1);
        let seat = self.seats.get_mut(key)?;
        let (member, share) = (seat.told.as_ref()?, seat.share.as_mut()?);
        let useful = member.fleet.useful();
        // What only says "no more than there are" starts no pod in place of one that has left since.
        // Nor does what said "more" take back what has come since.
        let target = if share.pods > share.has {
            share.pods.max(useful.min(member.cfg.max_replicas))
        } else {
            share.pods.min(useful.max(member.cfg.min_replicas))
        };
        let part = if total > 0 { f64::from(share.pods) / f64::from(total) } else { 1.0 / f64::from(seats) };
        let part = if std::mem::replace(&mut share.taken, true) { 0.0 } else { part };
        let stays = match member.takes {
            Takes::Nothing => ", and this one is left as it is",
            Takes::Told => ", and this one is a dry run",
            _ => "",
        };
        Some(ScaleDecision {
            target,
            reason: format!("{target} of {}; the queue is shared with {}{stays}", decision.reason, others.join(", ")),
            inputs: Inputs {
                useful,
                starting: (member.fleet.starting.len() as u32).saturating_add(member.fleet.restarting).saturating_add(member.fleet.uncreated()),
                unschedulable: member.fleet.pending_unschedulable,
                parked: member.fleet.parked,
                arrived: decision.inputs.arrived * part,
                late: decision.inputs.late * part,
                ..decision.inputs.clone()
            },
            ..decision.clone()
        })
    }
}

/// All of them take from the same queues.
fn takers_are_alike<K>(seats: &BTreeMap<K, Seat>) -> bool {
    let mut sets = seats.values().map(|seat| seat.queues.iter().collect::<BTreeSet<_>>());
    let first = sets.next();
    sets.all(|set| Some(&set) == first.as_ref())
}

/// The greatest common divisor; of 0 and a number, that number.
fn common(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common(b, a % b) }
}

fn aged((sample, at_s): &(QueueSample, f64), now_s: f64) -> QueueSample {
    let since_s = (now_s - at_s).max(0.0);
    QueueSample { age_s: sample.age_s + since_s, ..sample.clone() }
}

/// The strictest of what they promise, the bounds of all together; in pods of `unit` tasks. A fixed number of messages per pod holds where all of them have one.
fn merged<'a>(cfgs: impl Iterator<Item = &'a ScaleConfig> + Clone, free: &[Part], unit: u32) -> ScaleConfig {
    let sum = |pick: fn(&Part) -> u32| free.iter().map(|part| pick(part).saturating_mul(part.size.max(1))).fold(0, u32::saturating_add);
    let first = cfgs.clone().next().cloned().unwrap_or_else(|| ScaleConfig::new(0, 0, 60.0));
    let per_unit = |cfg: &ScaleConfig| cfg.messages_per_worker.map(|length| (length / (cfg.concurrency.max(1) / unit)).max(1));
    let keen = |a: &'a ScaleConfig, b: &'a ScaleConfig| if b.law.miss_weight > a.law.miss_weight { b } else { a };
    ScaleConfig {
        min_replicas: sum(|part| part.least),
        max_replicas: sum(|part| part.most),
        max_wait_s: cfgs.clone().map(|cfg| cfg.max_wait_s).fold(f64::INFINITY, f64::min),
        messages_per_worker: cfgs.clone().map(per_unit).reduce(|a, b| a.zip(b).map(|(a, b)| a.min(b))).flatten(),
        concurrency: unit,
        max_parallel: cfgs.clone().filter_map(|cfg| cfg.max_parallel).min(),
        acknowledges_early: cfgs.clone().all(|cfg| cfg.acknowledges_early),
        law: cfgs.reduce(keen).map_or_else(|| first.law.clone(), |cfg| cfg.law.clone()),
        ..first
    }
}

impl FleetSample {
    /// The pods of several Deployments, each with what one of its pods counts.
    fn together<'a>(fleets: impl Iterator<Item = (&'a Self, u32)>) -> Self {
        let mut all = Self { broker_down: true, ..Self::default() };
        for (fleet, size) in fleets {
            let of = |pods: u32| pods.saturating_mul(size);
            all.spec_replicas = all.spec_replicas.saturating_add(of(fleet.spec_replicas));
            all.ready = all.ready.saturating_add(of(fleet.ready));
            all.restarting = all.restarting.saturating_add(of(fleet.restarting));
            all.pending_unschedulable = all.pending_unschedulable.saturating_add(of(fleet.pending_unschedulable));
            all.parked = all.parked.saturating_add(of(fleet.parked));
            all.terminating = all.terminating.saturating_add(of(fleet.terminating));
            let each = |ages: &[f64]| ages.iter().flat_map(|age| std::iter::repeat_n(*age, size as usize)).collect::<Vec<f64>>();
            all.settling.extend(each(&fleet.settling));
            all.starting.extend(each(&fleet.starting));
            // Of a member none of whose pods tells, all are silent.
            let silent = if fleet.busy.is_some() { fleet.untold } else { fleet.ready };
            all.untold = all.untold.saturating_add(of(silent));
            all.busy = plus(all.busy, fleet.busy.filter(|_| fleet.ready > 0));
            all.begun = plus(all.begun, fleet.begun);
            all.found = all.found.saturating_add(fleet.found);
            all.busy_ages_s.extend(&fleet.busy_ages_s);
            all.completions.extend(&fleet.completions);
            all.started_latencies_s.extend(&fleet.started_latencies_s);
            all.broker_down &= fleet.broker_down;
        }
        // Where nobody is there, nobody works.
        all.busy = all.busy.or((all.ready == 0).then_some(0));
        all
    }

    /// Adds what happened before this sample and nobody has taken in yet.
    fn add_events(&mut self, before: Self) {
        self.begun = plus(self.begun, before.begun);
        self.found = self.found.saturating_add(before.found);
        self.completions.splice(0..0, before.completions);
        self.started_latencies_s.splice(0..0, before.started_latencies_s);
    }

    /// What happened has been taken in.
    fn forget_events(&mut self) {
        self.begun = self.begun.map(|_| 0);
        self.found = 0;
        self.completions.clear();
        self.started_latencies_s.clear();
    }
}

fn plus(a: Option<u32>, b: Option<u32>) -> Option<u32> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (one, None) | (None, one) => one,
    }
}
