//! Explores a setting. In: a setting. Out: how many states there were, and the first invariant that broke, with the path to it.

use crate::hash::{FxSet, fingerprint};
use crate::may::Action;
use crate::setting::Setting;
use crate::state::State;
use crate::world::World;
use stateright::{Checker, HasDiscoveries, Model};
use std::time::{Duration, Instant};

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Of the setting.
    pub name: &'static str,
    /// Different states reached.
    pub states: usize,
    /// Steps taken.
    pub steps: usize,
    /// Longest path.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Invariants that broke, each with the actions that led there.
    pub broken: Vec<(&'static str, Vec<String>)>,
}

/// Explores every state.
#[must_use]
pub fn check(setting: Setting) -> Answer {
    let (name, start) = (setting.name, Instant::now());
    let checker = World::new(setting).checker().threads(1).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    answer(name, start, &checker)
}

/// Steps of one walk before it starts anew: enough for several waves of a large fleet.
const WALK_STEPS_MAX: usize = 3_000;

/// Walks at random, many steps deep, until so many states were seen or the time is over.
#[must_use]
pub fn walk(setting: Setting, seed: u64, states: usize, timeout: Duration) -> Answer {
    let (name, start) = (setting.name, Instant::now());
    let world = World::new(setting);
    let mut seen = FxSet::default();
    let mut answer = Answer { name, states: 0, steps: 0, depth: 0, took: Duration::ZERO, broken: Vec::new() };
    let mut chance = seed;
    while seen.len() < states && start.elapsed() < timeout && answer.broken.is_empty() {
        let mut path = Vec::new();
        let Some(mut state) = world.init_states().pop() else { break };
        while path.len() < WALK_STEPS_MAX && world.within_boundary(&state) && state.broken == 0 {
            let Some((action, next)) = any_step(&world, &state, &mut chance) else { break };
            path.push(action);
            state = next;
            seen.insert(fingerprint(&state));
        }
        answer.steps += path.len();
        answer.depth = answer.depth.max(path.len());
        let broken = world.properties().into_iter().filter(|property| !(property.condition)(&world, &state));
        answer.broken = broken.map(|property| (property.name, path.iter().map(|action| format!("{action:?}")).collect())).collect();
    }
    Answer { states: seen.len(), took: start.elapsed(), ..answer }
}

/// A step that changes something, each as likely as the others.
fn any_step(world: &World, state: &State, chance: &mut u64) -> Option<(Action, State)> {
    let mut actions = Vec::new();
    world.actions(state, &mut actions);
    while !actions.is_empty() {
        // A linear congruence, its high bits: good enough to choose by, and the same everywhere.
        *chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let action = actions.swap_remove((*chance >> 33) as usize % actions.len());
        if let Some(next) = world.next_state(state, action.clone()) {
            return Some((action, next));
        }
    }
    None
}

fn answer(name: &'static str, start: Instant, checker: &impl Checker<World>) -> Answer {
    let broken = checker.discoveries().into_iter().map(|(name, path)| {
        let actions = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
        (name, actions)
    });
    Answer {
        name,
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: start.elapsed(),
        broken: broken.collect(),
    }
}
