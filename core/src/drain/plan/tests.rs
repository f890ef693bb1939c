//! The shapes of containers that people run, one by one.

use super::holder::SUPERVISOR_LEAVES_MS;
use super::*;
use crate::drain::worker::Telling;

const TERM: Signal = Signal::Term;

/// A process that was executed: with an image of its own.
fn run(pid: i32, parent: i32, argv: &str) -> Process {
    let argv: Vec<String> =
        if argv.contains('|') { argv.split('|').map(str::to_owned).collect() } else { argv.split(' ').map(str::to_owned).collect() };
    Process {
        id: ProcessId { pid, start_ticks: 1000 + u64::try_from(pid).unwrap() },
        parent,
        comm: argv[0].rsplit('/').next().unwrap().chars().take(15).collect(),
        argv,
        image: Some((u64::try_from(pid).unwrap() * 4096, 7)),
        caught: 0,
        ignored: 0,
        blocked: 0,
        uid: 1000,
        permitted: true,
        age_ms: Some(10 * STARTING_MS),
        descriptors: Some(Descriptors::default()),
        remaps_term: false,
    }
}

impl Process {
    fn hear(mut self, signals: &[Signal]) -> Self {
        self.caught = signals.iter().fold(self.caught, |set, signal| set | 1 << (signal.number() - 1));
        self
    }
    /// With a connection to the broker of this inode.
    fn broker(mut self, inode: u64) -> Self {
        let descriptors = self.descriptors.get_or_insert_default();
        descriptors.broker.insert(inode);
        descriptors.connected = true;
        self
    }
    /// Forked from this one: the same image, arguments, handlers, descriptors.
    fn forked(from: &Self, pid: i32) -> Self {
        let id = ProcessId { pid, start_ticks: from.id.start_ticks + 1 };
        Self { id, parent: from.id.pid, ..from.clone() }
    }
    /// As another user shows it: no descriptors, no image.
    fn opaque(mut self) -> Self {
        (self.image, self.descriptors) = (None, None);
        self
    }
    fn young(mut self) -> Self {
        self.age_ms = Some(500);
        self
    }
}

fn plan_of(processes: &[Process], top: i32, framework: &str, signals: &[Signal]) -> HoldPlan {
    plan(processes, top, framework, signals, Before::NOTHING).unwrap()
}

fn told(processes: &[Process], top: i32, framework: &str) -> Vec<i32> {
    plan_of(processes, top, framework, &[TERM]).told().map(|worker| worker.id.pid).collect()
}

/// A Celery parent with its pool, whose processes have inherited its connection and its handlers.
fn celery(pid: i32, parent: i32) -> Vec<Process> {
    let main = run(pid, parent, "/usr/bin/python3 /usr/local/bin/celery -A a worker")
        .hear(&[TERM, Signal::Int, Signal::Quit])
        .broker(70 + u64::try_from(pid).unwrap());
    let children = [Process::forked(&main, pid + 1), Process::forked(&main, pid + 2).broker(900 + u64::try_from(pid).unwrap())];
    std::iter::once(main).chain(children).collect()
}

fn with(mut first: Vec<Process>, more: Vec<Process>) -> Vec<Process> {
    first.extend(more);
    first
}

fn opaque(processes: Vec<Process>) -> Vec<Process> {
    processes.into_iter().map(Process::opaque).collect()
}

/// Ways to start Celery as process 20, pool 21 and 22, in which it alone is told.
fn starts() -> Vec<(&'static str, Vec<Process>)> {
    let shell = |argv: &str| run(10, 0, argv);
    vec![
        ("directly", celery(20, 0)),
        ("an entrypoint script", with(vec![shell("/bin/sh /app/entrypoint.sh")], celery(20, 10))),
        ("an entrypoint script that is given the command", with(vec![shell("/bin/bash /entrypoint.sh celery -A a worker")], celery(20, 10))),
        ("a script that traps", with(vec![shell("/bin/bash /entrypoint.sh celery -A a worker").hear(&[TERM])], celery(20, 10))),
        (
            "beside an exporter",
            with(vec![shell("bash|-c|python -m http.server & celery -A a worker; wait"), run(11, 10, "python -m http.server")], celery(20, 10)),
        ),
        ("into a pipe", with(vec![shell("sh|-c|celery -A a worker 2>&1 | tee log"), run(11, 10, "tee log")], celery(20, 10))),
        (
            "an init program and a script",
            with(vec![Process { blocked: u64::MAX, ..shell("tini -- /entry.sh") }, run(11, 10, "/bin/sh /entry.sh")], celery(20, 11)),
        ),
        ("busybox", with(vec![shell("/bin/busybox sh /entry.sh")], celery(20, 10))),
        ("a supervisor of the same interpreter", with(vec![shell("/usr/bin/python3 /usr/bin/supervisord -n").hear(&[TERM])], celery(20, 10))),
        ("a launcher that names the program", with(vec![shell("uv run celery -A a worker").hear(&[TERM])], celery(20, 10))),
        ("a reloader", with(vec![shell("/usr/bin/python3 /usr/local/bin/watchmedo auto-restart -- celery worker").hear(&[TERM])], celery(20, 10))),
        ("detached behind a tail", with(vec![shell("tail -f /var/log/celery.log")], celery(20, 1))),
        ("a task with a program of its own", with(celery(20, 0), vec![run(30, 21, "node render.js").hear(&[TERM])])),
        ("a task whose program uses the broker", with(celery(20, 0), vec![run(30, 21, "node render.js").hear(&[TERM]).broker(5)])),
        (
            "beside a health check that is executed into it",
            with(celery(20, 0), vec![run(30, 0, "celery inspect ping").hear(&[TERM]).broker(6), run(31, 30, "celery inspect").hear(&[TERM])]),
        ),
        (
            "beside an exporter that reads the broker and has no handler",
            with(vec![shell("sh start.sh"), run(11, 10, "python exporter.py").broker(8)], celery(20, 10)),
        ),
    ]
}

#[test]
fn however_a_worker_is_started_it_alone_is_told_and_its_pool_never() {
    for (name, processes) in starts() {
        assert_eq!(told(&processes, processes[0].id.pid, "celery"), [20], "{name}");
        let spared = plan_of(&processes, processes[0].id.pid, "celery", &[TERM]).spared;
        assert!(spared.iter().any(|id| id.pid == 21) && spared.iter().any(|id| id.pid == 22), "{name}: {spared:?}");
    }
}

#[test]
fn where_no_descriptors_can_be_read_the_program_tells() {
    for (name, processes) in starts() {
        let processes = opaque(processes);
        assert_eq!(told(&processes, processes[0].id.pid, "celery"), [20], "{name}");
    }
}

#[test]
fn a_program_of_no_known_name_is_known_by_its_connection_and_else_by_its_handler() {
    let work = || vec![run(10, 0, "/bin/bash /entry.sh").hear(&[TERM]), run(20, 10, "python jobs.py").hear(&[TERM]).broker(1)];
    assert_eq!(told(&work(), 10, "custom"), [20]);
    assert_eq!(told(&opaque(work()), 10, "custom"), [20]);
    let supervised = with(vec![run(9, 0, "/usr/bin/python3 /usr/bin/supervisord").hear(&[TERM])], vec![run(20, 9, "python jobs.py").hear(&[TERM])]);
    assert_eq!(told(&opaque(supervised), 9, "custom"), [20]);
    // A manager that nobody knows, by its handler alone: as the kubelet would.
    let managed = vec![run(9, 0, "manage").hear(&[TERM]), run(20, 9, "work").hear(&[TERM])];
    assert_eq!(told(&managed, 9, "custom"), [9]);
}

#[test]
fn a_framework_that_is_not_named_after_its_program_is_known_by_that() {
    let all = opaque(vec![run(10, 0, "start jobs").hear(&[TERM]), run(20, 10, "python -m taskiq worker jobs:broker").hear(&[TERM])]);
    assert_eq!(told(&all, 10, "taskiq-stream"), [20]);
    assert_eq!(told(&all, 10, "custom"), [10]);
}

#[test]
fn a_master_without_a_connection_is_told_and_not_its_forks_that_have_one() {
    let master = run(20, 0, "python -m dramatiq tasks").hear(&[TERM]);
    let forks = vec![Process::forked(&master, 21).broker(1), Process::forked(&master, 22).broker(2)];
    assert_eq!(told(&with(vec![master.clone()], forks), 20, "dramatiq"), [20]);
    let spawned = |pid| Process {
        parent: 20,
        ..run(pid, 20, "/usr/bin/python3|-c|from multiprocessing.spawn import spawn_main|--multiprocessing-fork").hear(&[TERM]).broker(3)
    };
    assert_eq!(told(&with(vec![master], vec![spawned(23)]), 20, "dramatiq"), [20]);
}

#[test]
fn a_work_horse_is_never_told_even_when_its_worker_is_gone() {
    let worker = run(20, 0, "rq worker q").hear(&[TERM]).broker(1);
    let horse = Process { caught: 0, ..Process::forked(&worker, 21).broker(2) };
    let shell = run(10, 0, "sh loop.sh");
    let mut holder = Holder::new("rq".to_owned(), vec![TERM]);
    holder.release();
    let all = vec![shell.clone(), Process { parent: 10, ..worker }, horse.clone()];
    let first = holder.look(&all, 10, 0);
    assert!(
        first.contains(&HoldAction::Signal(all[1].id, TERM)) && !first.iter().any(|a| matches!(a, HoldAction::Signal(id, _) if id.pid == 21)),
        "{first:?}"
    );
    let orphan = Process { parent: 1, caught: 1 << 14, ..horse };
    assert_eq!(holder.look(&[shell, orphan], 10, 60_000), [], "its task runs on");
}

#[test]
fn two_workers_are_both_told_each_once() {
    let all = with(with(vec![run(10, 0, "sh|-c|celery -A a worker & celery -A b worker; wait")], celery(20, 10)), celery(30, 10));
    assert_eq!(told(&all, 10, "celery"), [20, 30]);
    let mut holder = Holder::new("celery".to_owned(), vec![TERM]);
    assert_eq!(holder.look(&all, 10, 0), [], "no hold, no signal");
    holder.release();
    let signals = |actions: Vec<HoldAction>| actions.into_iter().filter(|a| matches!(a, HoldAction::Signal(..))).count();
    assert_eq!(signals(holder.look(&all, 10, 0)), 2);
    assert_eq!(signals(holder.look(&all, 10, 250)), 0);
}

#[test]
fn a_shell_that_loops_is_suspended_and_ends_before_it_starts_a_worker_again() {
    let shell = run(10, 0, "bash|-c|while true; do rq worker; done");
    let worker = run(20, 10, "rq worker q").hear(&[TERM]).broker(1);
    let mut holder = Holder::new("rq".to_owned(), vec![TERM]);
    holder.release();
    let (loops, first) = (shell.id, worker.id);
    let begin = holder.look(&[shell.clone(), worker], 10, 0);
    assert_eq!(begin, [HoldAction::Say(Telling::Told), HoldAction::Suspend(loops), HoldAction::Signal(first, TERM)]);
    assert_eq!(holder.look(std::slice::from_ref(&shell), 10, 250), [HoldAction::Signal(loops, TERM), HoldAction::Resume(loops)]);
    // It has not ended of it: what it starts has only just started, can have nothing yet, and ends before it takes a task.
    let again = run(21, 10, "rq worker q").young();
    let second = again.id;
    assert_eq!(holder.look(&[shell.clone(), again], 10, 500), [HoldAction::Suspend(loops), HoldAction::Signal(second, TERM)]);
    assert_eq!(holder.look(std::slice::from_ref(&shell), 10, 750), [HoldAction::Kill(loops)]);
    assert_eq!(holder.look(&[shell], 10, 750 + SUPERVISOR_LEAVES_MS), [HoldAction::Left]);
}

#[test]
fn what_stood_above_a_worker_that_is_gone_is_told_and_waited_for_no_longer_than_a_supervisor() {
    let outer = run(9, 0, "sh|-c|init bash -c 'worker; true'; true");
    let init = run(10, 9, "init bash -c").hear(&[TERM]);
    let inner = run(11, 10, "bash|-c|worker; true");
    let worker = run(20, 11, "python jobs.py").hear(&[TERM]).broker(1);
    let mut holder = Holder::new("custom".to_owned(), vec![TERM]);
    holder.release();
    let begin = holder.look(&[outer.clone(), init.clone(), inner.clone(), worker.clone()], 9, 0);
    assert_eq!(begin, [HoldAction::Say(Telling::Told), HoldAction::Suspend(inner.id), HoldAction::Signal(worker.id, TERM)]);
    // The init waits for the inner shell, which is suspended: that one goes on, too.
    let gone = holder.look(&[outer.clone(), init.clone(), inner.clone()], 9, 250);
    assert_eq!(gone, [HoldAction::Signal(inner.id, TERM), HoldAction::Resume(inner.id), HoldAction::Signal(init.id, TERM)]);
    assert_eq!(holder.look(&[outer.clone(), init.clone()], 9, 250 + SUPERVISOR_LEAVES_MS), [HoldAction::Left]);
    // One that has become the worker itself is one, and is held.
    let mut holder = Holder::new("custom".to_owned(), vec![TERM]);
    holder.release();
    holder.look(&[init.clone(), Process { parent: 10, ..worker.clone() }], 10, 0);
    let became = Process { comm: "jobs".to_owned(), ..run(10, 0, "jobs").hear(&[TERM]) };
    assert_eq!(holder.look(std::slice::from_ref(&became), 10, 250), [HoldAction::Signal(became.id, TERM)]);
    assert_eq!(holder.look(&[became], 10, 600_000), [], "it may have a task");
}

#[test]
fn a_loop_around_a_shell_starts_nothing_again() {
    let outer = run(9, 0, "bash|-c|while true; do bash -c 'rq worker; true'; done");
    let tini = Process { blocked: u64::MAX, ..run(8, 9, "tini -- bash -c") };
    let inner = run(10, 8, "bash|-c|rq worker; true");
    let worker = run(20, 10, "rq worker q").hear(&[TERM]).broker(1);
    let mut holder = Holder::new("rq".to_owned(), vec![TERM]);
    holder.release();
    let begin = holder.look(&[outer.clone(), tini.clone(), inner.clone(), worker], 9, 0);
    assert!(begin.contains(&HoldAction::Suspend(outer.id)) && begin.contains(&HoldAction::Suspend(inner.id)), "{begin:?}");
    let ends = [outer.id, inner.id].map(|shell| [HoldAction::Signal(shell, TERM), HoldAction::Resume(shell)]).concat();
    assert_eq!(holder.look(&[outer, tini, inner], 9, 250), ends);
}

#[test]
fn a_supervisor_below_a_script_is_told_while_what_it_has_started_again_can_have_nothing() {
    let script = run(10, 0, "bash entry.sh");
    let supervisor = run(11, 10, "node /usr/bin/pm2-runtime work.sh").hear(&[TERM]);
    let worker = run(20, 11, "python -m rq worker").hear(&[TERM]).broker(1);
    let again = run(21, 11, "python -m rq worker").young();
    let mut holder = Holder::new("rq".to_owned(), vec![TERM]);
    holder.release();
    assert_eq!(holder.look(&[script.clone(), supervisor.clone(), worker.clone()], 10, 0)[1..], [HoldAction::Signal(worker.id, TERM)]);
    assert!(holder.is_restless());
    let second = holder.look(&[script.clone(), supervisor.clone(), again.clone()], 10, 25);
    assert_eq!(second, [HoldAction::Signal(supervisor.id, TERM), HoldAction::Signal(again.id, TERM)]);
    assert_eq!(holder.look(&[script, supervisor], 10, 50), [], "told once");
}

#[test]
fn a_worker_that_starts_in_a_hold_is_told_once_it_has_a_handler() {
    let shell = run(10, 0, "sh entry.sh");
    let mut holder = Holder::new("rq".to_owned(), vec![TERM]);
    holder.release();
    let started = run(20, 10, "rq worker q").young().broker(1);
    assert_eq!(
        holder.look(&[shell.clone(), started.clone()], 10, 0),
        [HoldAction::Say(Telling::Told), HoldAction::Suspend(shell.id)],
        "it may have a task"
    );
    assert_eq!(holder.look(&[shell, started.clone().hear(&[TERM])], 10, 250), [HoldAction::Signal(started.id, TERM)]);
}

#[test]
fn a_supervisor_is_told_after_its_workers_and_never_suspended_while_it_reads_their_output() {
    let mut supervisor = run(10, 0, "/usr/bin/python3 /usr/bin/supervisord -n").hear(&[TERM]);
    supervisor.descriptors.get_or_insert_default().reads.insert(4);
    let mut all = with(vec![supervisor.clone()], celery(20, 10));
    for process in &mut all[1..] {
        process.descriptors.get_or_insert_default().writes.insert(4);
    }
    let mut holder = Holder::new("celery".to_owned(), vec![TERM]);
    holder.release();
    assert_eq!(holder.look(&all, 10, 0), [HoldAction::Say(Telling::Told), HoldAction::Signal(all[1].id, TERM)]);
    assert_eq!(holder.look(std::slice::from_ref(&supervisor), 10, 250), [HoldAction::Signal(supervisor.id, TERM)]);
    assert_eq!(holder.look(std::slice::from_ref(&supervisor), 10, 10_000), []);
    assert_eq!(holder.look(&[supervisor], 10, 20_000), [HoldAction::Left]);
    // A script that reads its worker's output would stop it in the middle of a line.
    let mut script = run(10, 0, "bash log.sh");
    script.descriptors.get_or_insert_default().reads.insert(4);
    all[0] = script;
    assert_eq!(plan_of(&all, 10, "celery", &[TERM]).workers[0].launchers, []);
}

#[test]
fn a_worker_without_a_handler_is_never_told() {
    let all = vec![run(10, 0, "python jobs.py").broker(1)];
    let plan = plan_of(&all, 10, "custom", &[TERM]);
    assert_eq!(plan.workers[0].untold, Some(Untold::NoHandler));
    assert_eq!(plan.gaps(1000)[0].0, GapReason::NoHandler);
    let mut holder = Holder::new("custom".to_owned(), vec![TERM]);
    holder.release();
    assert_eq!(holder.look(&all, 10, 0), [HoldAction::Say(Telling::NoHandler)]);
    assert_eq!(holder.look(&all, 10, 250), []);
    // No other shape of it is told either: behind a shell, with unreadable descriptors.
    let behind = vec![run(9, 0, "sh run.sh"), run(10, 9, "python jobs.py").broker(1)];
    for processes in [opaque(all), behind.clone(), opaque(behind)] {
        assert_eq!(told(&processes, processes[0].id.pid, "custom"), Vec::<i32>::new());
        assert!(
            plan_of(&processes, processes[0].id.pid, "custom", &[TERM])
                .workers
                .iter()
                .all(|worker| worker.launchers.is_empty() || worker.id.pid == 10)
        );
    }
}

#[test]
fn a_worker_that_starts_slowly_is_no_gap_while_it_has_no_connection_to_anyone() {
    let aged = |age_ms: u64, p: Process| Process { age_ms: Some(age_ms), ..p };
    let untold = |p: Process| plan_of(std::slice::from_ref(&p), 10, "celery", &[TERM]).workers[0].untold;
    let starting = || run(10, 0, "python -m celery worker");
    assert_eq!(untold(aged(2 * STARTING_MS, starting())), Some(Untold::Starting));
    assert_eq!(untold(aged(2 * STARTING_MS, starting().broker(1))), Some(Untold::NoHandler), "it may have a task");
    assert_eq!(untold(aged(2 * STARTING_MS, starting().opaque())), Some(Untold::NoHandler), "nobody can see");
    assert_eq!(untold(aged(SLOW_START_MS, starting())), Some(Untold::NoHandler));
    assert!(!plan_of(&[aged(2 * STARTING_MS, starting())], 10, "celery", &[TERM]).workers[0].harmless, "it is not ended either");
}

#[test]
fn a_handler_for_another_signal_is_none() {
    let all = vec![run(10, 0, "python huey_consumer.py app.huey").hear(&[TERM]).broker(1)];
    assert_eq!(plan_of(&all, 10, "huey", &[Signal::Int]).workers[0].untold, Some(Untold::NoHandler));
    assert_eq!(plan_of(&all, 10, "huey", &[TERM]).told().count(), 1);
}

#[test]
fn who_may_not_be_signalled_is_named_with_both_users_and_the_kubelets_term_only_reaches_a_worker_on_top() {
    let worker = Process { permitted: false, uid: 0, ..run(10, 0, "python -m celery worker").hear(&[TERM]).opaque() };
    let plan = plan_of(std::slice::from_ref(&worker), 10, "celery", &[TERM]);
    let gaps = plan.gaps(65532);
    assert!(gaps[0].0 == GapReason::NotPermitted && gaps[0].1.contains("UID 0") && gaps[0].1.contains("65532"), "{gaps:?}");
    assert!(plan.kubelet_reaches_worker());
    let behind = vec![Process { permitted: false, ..run(9, 0, "sh entry.sh").opaque() }, Process { parent: 9, ..worker.clone() }];
    assert!(!plan_of(&behind, 9, "celery", &[TERM]).kubelet_reaches_worker());
    assert!(!plan_of(&[Process { caught: 0, ..worker.clone() }], 10, "celery", &[TERM]).kubelet_reaches_worker());
    let mut holder = Holder::new("celery".to_owned(), vec![TERM]);
    holder.release();
    assert_eq!(holder.look(&[worker], 10, 0), [HoldAction::Say(Telling::Refused { kubelet_reaches: true })]);
}

#[test]
fn both_signals_reach_each_worker_in_their_order() {
    let two = vec![Signal::Tstp, TERM];
    let worker = run(10, 0, "sidekiq 6.4 app [1 of 5 busy]").hear(&two).broker(1);
    let mut holder = Holder::new("sidekiq".to_owned(), two);
    holder.release();
    assert!(holder.look(std::slice::from_ref(&worker), 10, 0).contains(&HoldAction::Signal(worker.id, Signal::Tstp)));
    assert_eq!(holder.look(std::slice::from_ref(&worker), 10, 250), []);
    holder.release();
    assert_eq!(holder.look(std::slice::from_ref(&worker), 10, 500), [HoldAction::Signal(worker.id, TERM)]);
    holder.release();
    assert_eq!(holder.look(&[worker], 10, 750), []);
}

#[test]
fn a_script_that_still_prepares_is_waited_for_and_its_worker_ends_before_it_takes_anything() {
    let shell = run(10, 0, "sh|-c|manage migrate; celery -A a worker");
    let mut migrate = run(11, 10, "python manage.py migrate").young();
    migrate.descriptors.get_or_insert_default().connected = true;
    let mut holder = Holder::new("celery".to_owned(), vec![TERM]);
    holder.release();
    let first = holder.look(&[shell.clone(), migrate], 10, 0);
    assert!(!first.iter().any(|a| matches!(a, HoldAction::Signal(..) | HoldAction::Left)), "{first:?}");
    assert_eq!(holder.look(std::slice::from_ref(&shell), 10, 250), [HoldAction::Signal(shell.id, TERM), HoldAction::Resume(shell.id)]);
    let started = run(20, 10, "python celery -A a worker").young();
    assert!(holder.look(&[shell, started.clone()], 10, 500).contains(&HoldAction::Signal(started.id, TERM)));
}

#[test]
fn a_shell_that_works_itself_is_told_by_its_trap_and_works_until_it_is_gone() {
    let worker = run(10, 0, "sh work.sh").hear(&[TERM]);
    let all = [worker.clone(), run(11, 10, "sleep 1")];
    let mut holder = Holder::new("custom".to_owned(), vec![TERM]);
    holder.release();
    assert_eq!(holder.look(&all, 10, 0), [HoldAction::Say(Telling::Told), HoldAction::Signal(worker.id, TERM)]);
    assert_eq!(holder.look(&all, 10, 600_000), []);
    // Not yet trapped, it waits for its trap; a program below it without a handler leaves the trap to it.
    let starts = Process { caught: 0, ..worker.clone() };
    assert_eq!(plan_of(&[starts.young()], 10, "custom", &[TERM]).workers[0].untold, Some(Untold::Starting));
    assert_eq!(told(&[worker, run(12, 10, "python jobs.py").opaque()], 10, "custom"), [10]);
}

#[test]
fn a_worker_that_has_closed_its_connection_to_leave_is_still_there() {
    let shell = run(10, 0, "sh entry.sh");
    let worker = run(20, 10, "jobs").hear(&[TERM]).broker(1);
    let mut holder = Holder::new("custom".to_owned(), vec![TERM]);
    holder.release();
    holder.look(&[shell.clone(), worker.clone()], 10, 0);
    let closed = Process { descriptors: Some(Descriptors::default()), caught: 0, ..worker };
    assert_eq!(holder.look(&[shell.clone(), closed], 10, 600_000), []);
    assert_eq!(holder.look(std::slice::from_ref(&shell), 10, 600_250), [HoldAction::Signal(shell.id, TERM), HoldAction::Resume(shell.id)]);
}

#[test]
fn a_celery_worker_that_takes_sigterm_for_a_cold_shutdown_gets_the_signal_that_is_a_warm_one() {
    let mut all = celery(20, 0);
    all[0].remaps_term = true;
    let mut holder = Holder::new("celery".to_owned(), vec![TERM]);
    holder.release();
    assert!(holder.look(&all, 20, 0).contains(&HoldAction::Signal(all[0].id, Signal::Int)));
    assert!(!holder.look(&all, 20, 250).iter().any(|a| matches!(a, HoldAction::Signal(..))), "once");
    // The kubelet's SIGTERM would cut it.
    all[0].permitted = false;
    assert!(!plan_of(&all[..1], 20, "celery", &[TERM]).kubelet_reaches_worker());
    // Only Celery knows that variable.
    all[0].permitted = true;
    let mut other = Holder::new("custom".to_owned(), vec![TERM]);
    other.release();
    assert!(other.look(&all, 20, 0).contains(&HoldAction::Signal(all[0].id, TERM)));
}

#[test]
fn groups_below_a_containers_own_are_the_containers() {
    let v2 = "0::/kubepods/pod1/abc\n";
    assert!(in_same_container(v2, v2) && in_same_container(v2, "0::/kubepods/pod1/abc/workers\n"));
    assert!(!in_same_container(v2, "0::/kubepods/pod1/abcd\n") && !in_same_container(v2, "0::/kubepods/pod1/x\n"));
    let v1 = "5:memory:/p/abc\n3:cpu,cpuacct:/p/abc\n0::/\n";
    assert!(in_same_container(v1, "5:memory:/p/abc/own\n3:cpu,cpuacct:/p/abc\n0::/\n"));
    assert!(!in_same_container(v1, "5:memory:/p/abc\n3:cpu,cpuacct:/p/other\n0::/\n"));
    assert!(!in_same_container("0::/\n", "0::/x\n") && !in_same_container("", "0::/x\n"));
}

#[test]
fn a_plan_prints_who_hears_what() {
    let all = with(vec![run(10, 0, "/bin/sh entry.sh")], celery(20, 10));
    let text = plan_of(&all, 10, "celery", &[TERM]).to_string();
    assert_eq!(text, "top 10 sh; SIGTERM to 20 python3, 10 suspended meanwhile; never 21, 22");
}
