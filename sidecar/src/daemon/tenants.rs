//! Who is served now and who was: admission, reports, the end of all.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lightos_protocol::control::{DeviceInfo, ExecutorExit, Hello, Mode, TenantReport, TenantState};
use lightos_protocol::pages::{COUNTER_ROWS, REASON_COUNT, SessionPages};
use lightos_protocol::verdict::{Duty, VerdictWriter};

use super::peer::Peer;
use crate::config::Config;

/// How long the kernel and the driver may take to clear away a killed executor.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest name of a function, reason or process that is taken from a program.
const MAX_NAME_BYTES: usize = 128;
/// The class of programs that ask for none; classes get a meaning with the governor's policies.
const DEFAULT_CLASS: &str = "default";

/// By what the daemon ends its part in a program's life.
#[derive(Debug)]
pub(super) struct Leash {
    /// The channel to the executor, or to the program itself where it dispatches its calls: shutting it down asks for the end.
    pub(super) channel: OwnedFd,
    /// The executor's pidfd, which can never name another process.
    pub(super) process: Option<OwnedFd>,
}

/// A program, and its executor where it has one.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) id: u64,
    /// By SO_PEERCRED.
    pub(super) pid: u32,
    /// The program's process and its parents, at the time of the handshake.
    lineage: Vec<u32>,
    pub(super) name: String,
    pub(super) class: String,
    pub(super) mode: Mode,
    verdict: VerdictWriter,
    hooks: Vec<String>,
    reasons: Vec<String>,
    pages: SessionPages,
    since: Instant,
    leash: Mutex<Option<Leash>>,
    state: Mutex<TenantState>,
}

impl Tenant {
    /// Takes what a program says of itself, or says what is wrong with it.
    pub(super) fn new(
        tenants: &Tenants,
        peer: &Peer,
        hello: Hello,
        pages: SessionPages,
        verdict: VerdictWriter,
    ) -> Result<Arc<Self>, String> {
        if hello.hooks.len() > COUNTER_ROWS || hello.reasons.len() > REASON_COUNT {
            return Err(format!(
                "hello names {} functions and {} reasons",
                hello.hooks.len(),
                hello.reasons.len()
            ));
        }
        let names = hello.hooks.iter().chain(&hello.reasons).chain(&hello.tenant_class);
        if let Some(name) = names.into_iter().find(|name| !is_name(name)) {
            return Err(format!("hello holds a name that is none: {:?}", printable(name)));
        }
        Ok(Arc::new(Self {
            id: tenants.next.fetch_add(1, Ordering::Relaxed),
            pid: peer.pid,
            lineage: peer.lineage(),
            name: printable(&hello.process_name),
            class: hello.tenant_class.unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
            mode: hello.mode,
            verdict,
            hooks: hello.hooks,
            reasons: hello.reasons,
            pages,
            since: Instant::now(),
            leash: Mutex::new(None),
            state: Mutex::new(TenantState::Starting),
        }))
    }

    /// Keeps the handles by which the executor is told to end.
    pub(super) fn leash(&self, leash: Leash) {
        *lock(&self.leash) = Some(leash);
    }

    /// Asks the executor to end.
    fn end(&self) {
        if let Some(leash) = &*lock(&self.leash) {
            let _ = rustix::net::shutdown(&leash.channel, rustix::net::Shutdown::Both);
        }
    }

    /// Ends the executor without asking.
    fn kill(&self) {
        if let Some(Leash { process: Some(process), .. }) = &*lock(&self.leash) {
            let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
        }
    }

    fn report(&self, executor_exit: Option<ExecutorExit>) -> TenantReport {
        let counters = self.pages.counters().snapshot(&self.hooks, &self.reasons);
        TenantReport {
            tenant_id: self.id,
            pid: self.pid,
            process_name: self.name.clone(),
            tenant_class: self.class.clone(),
            mode: self.mode,
            duty_permille: self.verdict.duty().as_permille(),
            state: *lock(&self.state),
            age_seconds: self.since.elapsed().as_secs_f64(),
            calls: counters.calls,
            traffic: counters.traffic,
            memory: counters.memory,
            reasons: counters.reasons,
            sticky_error: self.pages.status().sticky_error(),
            executor_exit,
        }
    }
}

/// Whether a process exists and has not ended; one that its parent has not waited for yet has ended.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name in parentheses may hold anything; the state follows the last one.
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
}

/// An ended program.
#[derive(Debug)]
struct Finished {
    report: TenantReport,
    lineage: Vec<u32>,
}

#[derive(Debug, Default)]
struct Registry {
    running: BTreeMap<u64, Arc<Tenant>>,
    finished: VecDeque<Finished>,
    devices: Vec<DeviceInfo>,
}

/// All programs.
#[derive(Debug)]
pub(super) struct Tenants {
    registry: Mutex<Registry>,
    next: AtomicU64,
    max_running: usize,
    max_finished: usize,
}

impl Tenants {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            registry: Mutex::default(),
            next: AtomicU64::new(1),
            max_running: config.max_tenants as usize,
            max_finished: config.finished_reports as usize,
        }
    }

    /// Lets a program in, or says why not.
    pub(super) fn admit(&self, tenant: &Arc<Tenant>) -> Result<(), String> {
        let mut registry = lock(&self.registry);
        if registry.running.len() >= self.max_running {
            return Err(format!("{} programs are running, which is max_tenants", registry.running.len()));
        }
        registry.running.insert(tenant.id, tenant.clone());
        Ok(())
    }

    /// The program is served, by an executor that has opened `device` where it has one.
    pub(super) fn serving(&self, tenant: &Tenant, device: Option<&DeviceInfo>) {
        *lock(&tenant.state) = TenantState::Running;
        let mut registry = lock(&self.registry);
        if let Some(device) = device
            && !registry.devices.contains(device)
        {
            registry.devices.push(device.clone());
        }
    }

    /// Sets the share of time in which one program, or every running one, may launch. Returns the programs it applies to.
    pub(super) fn set_duty(&self, tenant_id: Option<u64>, duty: Duty) -> Vec<u64> {
        let registry = lock(&self.registry);
        let wanted = registry.running.values().filter(|tenant| tenant_id.is_none_or(|id| id == tenant.id));
        wanted
            .map(|tenant| {
                tenant.verdict.set(duty);
                tenant.id
            })
            .collect()
    }

    /// Waits, at most `timeout`, until the executors of programs that are gone are gone as well: natively a program's device memory is
    /// free by the time its parent sees its end, and the next program may need it.
    pub(super) fn settle(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let lingers = |tenant: &Arc<Tenant>| !is_alive(tenant.pid);
        while lock(&self.registry).running.values().any(lingers) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes back an admission whose executor did not come up.
    pub(super) fn forget(&self, tenant: &Tenant) {
        lock(&self.registry).running.remove(&tenant.id);
    }

    /// The executor has ended; the report stays.
    pub(super) fn finish(&self, tenant: &Tenant, exit: ExecutorExit) {
        // Under the registry's lock, so that nobody sees the end without its reason.
        let mut registry = lock(&self.registry);
        *lock(&tenant.state) = match exit {
            ExecutorExit::Clean => TenantState::Finished,
            _ => TenantState::Failed,
        };
        let report = tenant.report(Some(exit));
        registry.running.remove(&tenant.id);
        registry.finished.push_back(Finished { report, lineage: tenant.lineage.clone() });
        while registry.finished.len() > self.max_finished {
            registry.finished.pop_front();
        }
    }

    /// Reports of running programs, in order of their start.
    pub(super) fn running(&self) -> Vec<TenantReport> {
        lock(&self.registry).running.values().map(|tenant| tenant.report(None)).collect()
    }

    /// Reports of ended and running programs whose number and lineage please `wanted`, in order of their start.
    pub(super) fn reports(&self, wanted: impl Fn(u64, &[u32]) -> bool) -> Vec<TenantReport> {
        let registry = lock(&self.registry);
        let ended = registry.finished.iter().filter(|ended| wanted(ended.report.tenant_id, &ended.lineage));
        let running = registry.running.values().filter(|tenant| wanted(tenant.id, &tenant.lineage));
        let mut reports: Vec<_> = ended
            .map(|ended| ended.report.clone())
            .chain(running.map(|tenant| tenant.report(None)))
            .collect();
        reports.sort_by_key(|report| report.tenant_id);
        reports
    }

    /// The devices that executors have opened so far.
    pub(super) fn devices(&self) -> Vec<DeviceInfo> {
        lock(&self.registry).devices.clone()
    }

    /// Ends every executor; kills those that have not ended after `patience`, and returns once all have been reaped or the driver does not
    /// let go of them: what they held is then free for whoever waits for the daemon's end.
    pub(super) fn end_all(&self, patience: Duration) {
        let all = || lock(&self.registry).running.values().cloned().collect::<Vec<_>>();
        all().iter().for_each(|tenant| tenant.end());
        let gone_within = |patience| {
            let deadline = Instant::now() + patience;
            while !all().is_empty() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        gone_within(patience);
        all().iter().for_each(|tenant| tenant.kill());
        gone_within(KILL_TIMEOUT);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No invariant spans a panic: every critical section here is a few infallible statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program's text without what would disturb a terminal, a log line or a table.
fn printable(text: &str) -> String {
    let clean = text.chars().map(|letter| if letter.is_control() { '?' } else { letter });
    clean.take(MAX_NAME_BYTES / 4).collect()
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(max_tenants: u32, finished_reports: u32) -> Tenants {
        Tenants::new(&Config { max_tenants, finished_reports, ..Config::default() })
    }

    fn peer(pid: u32) -> Peer {
        Peer { pid, uid: 0, groups: Vec::new() }
    }

    fn tenant(tenants: &Tenants, hello: Hello) -> Result<Arc<Tenant>, String> {
        made(tenants, std::process::id(), hello)
    }

    fn made(tenants: &Tenants, pid: u32, hello: Hello) -> Result<Arc<Tenant>, String> {
        let (pages, verdict) = (SessionPages::create().unwrap().0, VerdictWriter::create().unwrap().0);
        Tenant::new(tenants, &peer(pid), hello, pages, verdict)
    }

    #[test]
    fn the_next_program_waits_for_executors_of_ended_ones_alone() {
        let all = tenants(8, 8);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let living = tenant(&all, Hello::default()).unwrap();
        let ended = made(&all, child.id(), Hello::default()).unwrap();
        all.admit(&living).unwrap();
        all.admit(&ended).unwrap();
        // Not waited for yet, as under a busy shell.
        while is_alive(child.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let settled = |timeout_ms| {
            let start = Instant::now();
            all.settle(Duration::from_millis(timeout_ms));
            start.elapsed() < Duration::from_millis(timeout_ms)
        };
        assert!(!settled(50), "its executor still runs");
        all.finish(&ended, ExecutorExit::Clean);
        assert!(settled(5000));
        child.wait().unwrap();
        assert!(!is_alive(child.id()) && is_alive(std::process::id()));
    }

    #[test]
    fn admission_ends_at_the_limit_and_resumes_below_it() {
        let all = tenants(2, 8);
        let [a, b, c] = [0; 3].map(|_| tenant(&all, Hello::default()).unwrap());
        all.admit(&a).unwrap();
        all.admit(&b).unwrap();
        assert!(all.admit(&c).unwrap_err().contains("max_tenants"));
        all.finish(&a, ExecutorExit::Clean);
        all.admit(&c).unwrap();
    }

    #[test]
    fn reports_survive_their_program_up_to_the_limit() {
        let all = tenants(8, 2);
        for signal in 1..=3 {
            let tenant = tenant(&all, Hello::default()).unwrap();
            all.admit(&tenant).unwrap();
            all.finish(&tenant, ExecutorExit::Signal(signal));
        }
        let reports = all.reports(|_, _| true);
        assert_eq!(reports.iter().map(|report| report.tenant_id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(reports[1].executor_exit, Some(ExecutorExit::Signal(3)));
        assert_eq!(reports[1].state, TenantState::Failed);
        let own = std::process::id();
        assert_eq!(all.reports(|_, lineage| lineage.contains(&own)).len(), 2);
        assert_eq!(all.reports(|_, lineage| lineage.contains(&0)).len(), 0);
    }

    #[test]
    fn a_duty_is_one_programs_or_everybodys() {
        let all = tenants(8, 8);
        let [a, b] = [0; 2].map(|_| tenant(&all, Hello::default()).unwrap());
        all.admit(&a).unwrap();
        all.admit(&b).unwrap();
        let duties = || [a.report(None), b.report(None)].map(|report| report.duty_permille);
        assert_eq!(duties(), [1000, 1000]);
        assert_eq!(all.set_duty(Some(b.id), Duty::permille(0)), [b.id]);
        assert_eq!(duties(), [1000, 0]);
        assert_eq!(all.set_duty(None, Duty::permille(300)), [a.id, b.id]);
        assert_eq!(duties(), [300, 300]);
        assert!(all.set_duty(Some(99), Duty::FULL).is_empty());
    }

    #[test]
    fn hostile_names_are_refused_or_cleaned() {
        let all = tenants(8, 2);
        let hooks = |name: String| Hello { hooks: vec![name], ..Hello::default() };
        for name in ["", "a b", "a\n", "\u{1b}[2J", "ü"] {
            assert!(tenant(&all, hooks(name.into())).is_err(), "{name:?}");
        }
        assert!(tenant(&all, hooks("x".repeat(129))).is_err());
        assert!(tenant(&all, Hello { hooks: vec!["x".into(); 1025], ..Hello::default() }).is_err());
        let process_name = "\u{1b}[2Jpython\n".to_owned();
        assert_eq!(tenant(&all, Hello { process_name, ..Hello::default() }).unwrap().name, "?[2Jpython?");
    }
}
