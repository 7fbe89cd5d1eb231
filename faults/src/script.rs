//! What goes wrong when: a script follows from its scenario and its seed alone.

use fastrand::Rng;

/// Something that happens to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnWrite {
    /// The operator is killed; the write never reaches the server.
    KillBefore,
    /// The write is committed; the operator is killed before it hears of it.
    KillAfter,
    /// The server answers with this code, having done nothing.
    Refuse(u16),
    /// The write is committed, the answer is this code.
    CommitAndRefuse(u16),
    /// The connection ends, and nothing was done.
    Reset,
    /// The write is committed and the connection ends.
    CommitAndReset,
    /// It takes so many milliseconds longer to arrive.
    Delay(u64),
    /// Somebody else creates an object of that name just before.
    Squat,
    /// The operator stands still for so many seconds after it.
    Pause(u64),
    /// It is committed, and the operator is killed and stays down for so many milliseconds.
    Down(u64),
}

/// Something that happens to an event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnEvent {
    /// It never arrives. The watch expires some events later, as a relist would find it.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It and what follows arrives so many milliseconds later.
    Hold(u64),
    /// The watch ends with 410.
    Expire,
    /// Nothing arrives on that connection any more, which stays open.
    Silence,
}

/// Something that happens around the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Around {
    /// No connection to the server for so many milliseconds.
    Cut(u64),
    /// Every run and every injection is deleted.
    DeleteRuns,
    /// The namespace is deleted.
    DeleteNamespace,
    /// The runs' account loses its rights for so many milliseconds.
    Revoke(u64),
    /// The kill switch is on for so many milliseconds.
    Halt(u64),
    /// kube-apiserver is killed and started again.
    RestartServer,
    /// etcd stands still for so many milliseconds.
    StopEtcd(u64),
    /// etcd forgets all old revisions.
    Compact,
    /// kube-controller-manager is killed and started again.
    RestartManager,
    /// The kubelet is killed and started again.
    RestartKubelet,
}

impl Around {
    /// Whether it strikes the whole cluster, so that no other session may run beside it.
    pub const fn is_shared(&self) -> bool {
        matches!(
            self,
            Self::RestartServer | Self::StopEtcd(_) | Self::Compact | Self::RestartManager | Self::RestartKubelet
        )
    }
}

/// When a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// At the write or event of that number, counted over the whole session.
    Nth(u32),
    /// At the first write of that name.
    Key(String),
    /// At the first write whose name begins so.
    Prefix(String),
}

/// All faults of one session.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// The seed.
    pub seed: u64,
    /// The scenario's name.
    pub scenario: &'static str,
    /// How many operators run.
    pub operators: usize,
    /// Whether they elect a leader.
    pub election: bool,
    /// Somebody else writes into the status all the time.
    pub second_writer: bool,
    /// After a crash the caches are filled with what was true a while ago.
    pub stale: bool,
    /// A webhook denies each undoing of a fault, for so many milliseconds from the first try.
    pub deny_undo: Option<u64>,
    /// Faults of writes.
    pub writes: Vec<(When, OnWrite)>,
    /// Faults of watches.
    pub events: Vec<(u32, OnEvent)>,
    /// Faults around, by the number of the write that they come with.
    pub around: Vec<(u32, Around)>,
}

/// The scenarios, those first that a short campaign must have.
pub const SCENARIOS: [&str; 24] = [
    "crash-before",
    "crash-after",
    "refused",
    "ambiguous",
    "two-leaders",
    "squatters",
    "undo-denied",
    "down-past-deadline",
    "halted",
    "watches",
    "stale-cache",
    "second-writer",
    "deleted",
    "namespace-deleted",
    "rights-revoked",
    "cut",
    "delays",
    "apiserver",
    "etcd",
    "manager",
    "kubelet",
    "paused-leader",
    "silent-watch",
    "mixed",
];

/// Writes of the reference workload, about; faults are spread over so many.
const WRITES: u32 = 240;
/// Events of watches that a session sees, about.
const EVENTS: u32 = 200;

/// Injections in the midst of which the operator goes down.
const LASTING: [&str; 9] = ["patch", "scale", "restore", "external", "policy", "toxic", "off", "foreign", "cordon"];

const REFUSALS: [u16; 4] = [429, 500, 503, 504];

impl Script {
    /// The script of a seed. Without a scenario the seed chooses that as well.
    ///
    /// Errors: there is no such scenario.
    pub fn new(seed: u64, scenario: Option<&str>) -> anyhow::Result<Self> {
        let count = SCENARIOS.len();
        let index = usize::try_from(seed).unwrap_or(usize::MAX) % count;
        let scenario = match scenario {
            None => SCENARIOS[index],
            Some("baseline") => "baseline",
            Some(name) => SCENARIOS.iter().copied().find(|it| *it == name).ok_or_else(|| {
                anyhow::anyhow!("there is no scenario {name}: choose one of {}", SCENARIOS.join(", "))
            })?,
        };
        let mut rng = Rng::with_seed(seed ^ 0x5eed_50a6);
        let mut script = Self { seed, scenario, operators: 1, ..Self::default() };
        script.fill(&mut rng);
        Ok(script)
    }

    /// A script that kills the operator at these writes, before or after each.
    pub fn crashes_at(seed: u64, targets: &[(String, bool)]) -> Self {
        let writes = targets
            .iter()
            .map(|(key, after)| (When::Key(key.clone()), if *after { OnWrite::KillAfter } else { OnWrite::KillBefore }))
            .collect();
        Self::aimed(seed, writes)
    }

    /// A script of faults at named writes.
    pub fn aimed(seed: u64, writes: Vec<(When, OnWrite)>) -> Self {
        Self { seed, scenario: "crash-at", operators: 1, writes, ..Self::default() }
    }

    fn fill(&mut self, rng: &mut Rng) {
        let two = |rng: &mut Rng| [rng.u32(10..WRITES / 2), rng.u32(WRITES / 2..WRITES)];
        match self.scenario {
            "crash-before" => self.spread(rng, 5, |_| OnWrite::KillBefore),
            "crash-after" => self.spread(rng, 5, |_| OnWrite::KillAfter),
            "refused" => self.spread(rng, 20, |rng| match rng.u32(..5) {
                0 => OnWrite::Reset,
                1 => OnWrite::Refuse(409),
                _ => OnWrite::Refuse(REFUSALS[rng.usize(..4)]),
            }),
            "ambiguous" => self.spread(rng, 20, |rng| match rng.u32(..2) {
                0 => OnWrite::CommitAndReset,
                _ => OnWrite::CommitAndRefuse(REFUSALS[rng.usize(1..4)]),
            }),
            "delays" => self.spread(rng, 30, |rng| OnWrite::Delay(rng.u64(50..1_500))),
            "squatters" => self.spread(rng, 40, |_| OnWrite::Squat),
            "watches" => {
                let kinds: [fn(&mut Rng) -> OnEvent; 4] = [
                    |_| OnEvent::Drop,
                    |_| OnEvent::Duplicate,
                    |rng| OnEvent::Hold(rng.u64(200..3_000)),
                    |_| OnEvent::Expire,
                ];
                for turn in 0..16 {
                    let what = kinds[turn % kinds.len()](rng);
                    self.events.push((rng.u32(5..EVENTS), what));
                }
            }
            "silent-watch" => self.events.push((rng.u32(10..EVENTS / 3), OnEvent::Silence)),
            "stale-cache" => {
                self.stale = true;
                self.spread(rng, 3, |rng| if rng.bool() { OnWrite::KillAfter } else { OnWrite::KillBefore });
            }
            "second-writer" => self.second_writer = true,
            "two-leaders" => self.operators = 2,
            "paused-leader" => {
                (self.operators, self.election) = (2, true);
                self.writes.push((When::Nth(rng.u32(20..WRITES / 2)), OnWrite::Pause(20)));
            }
            "undo-denied" => self.deny_undo = Some(rng.u64(2_000..8_000)),
            "down-past-deadline" => {
                let name = LASTING[rng.usize(..LASTING.len())];
                let state = if rng.bool() { "Injecting" } else { "Injected" };
                let key = format!("status fi/{name} {state}");
                self.writes.push((When::Prefix(key), OnWrite::Down(rng.u64(6_000..14_000))));
            }
            "halted" => self.around.push((rng.u32(20..WRITES / 2), Around::Halt(rng.u64(1_000..6_000)))),
            "deleted" => self.around.push((rng.u32(10..WRITES), Around::DeleteRuns)),
            "namespace-deleted" => self.around.push((rng.u32(10..WRITES), Around::DeleteNamespace)),
            "rights-revoked" => self.around.push((rng.u32(20..WRITES), Around::Revoke(rng.u64(1_000..8_000)))),
            "cut" => two(rng).into_iter().for_each(|at| self.around.push((at, Around::Cut(rng.u64(1_000..12_000))))),
            "apiserver" => self.around.push((rng.u32(20..WRITES), Around::RestartServer)),
            "etcd" => {
                let [first, second] = two(rng);
                self.around.push((first, Around::StopEtcd(rng.u64(2_000..10_000))));
                self.around.push((second, Around::Compact));
            }
            "manager" => self.around.push((rng.u32(20..WRITES), Around::RestartManager)),
            "kubelet" => self.around.push((rng.u32(20..WRITES), Around::RestartKubelet)),
            "mixed" => {
                self.second_writer = rng.bool();
                self.stale = rng.bool();
                self.spread(rng, 12, |rng| match rng.u32(..6) {
                    0 => OnWrite::KillBefore,
                    1 => OnWrite::KillAfter,
                    2 => OnWrite::CommitAndReset,
                    3 => OnWrite::CommitAndRefuse(504),
                    4 => OnWrite::Refuse(REFUSALS[rng.usize(..4)]),
                    _ => OnWrite::Delay(rng.u64(50..800)),
                });
                self.events.push((rng.u32(5..EVENTS), OnEvent::Expire));
                self.events.push((rng.u32(5..EVENTS), OnEvent::Hold(rng.u64(200..2_000))));
                self.around.push((rng.u32(20..WRITES), Around::Cut(rng.u64(500..4_000))));
            }
            _ => {}
        }
        self.events.sort_by_key(|(at, _)| *at);
        self.around.sort_by_key(|(at, _)| *at);
    }

    /// Faults at writes, one in each of `count` equal parts of the workload.
    fn spread(&mut self, rng: &mut Rng, count: u32, mut what: impl FnMut(&mut Rng) -> OnWrite) {
        for part in 0..count {
            let at = rng.u32(WRITES * part / count..WRITES * (part + 1) / count) + 1;
            let what = what(rng);
            self.writes.push((When::Nth(at), what));
        }
    }

    /// Whether it strikes the whole cluster.
    pub fn is_shared(&self) -> bool {
        self.around.iter().any(|(_, around)| around.is_shared())
    }

    /// Whether a connection goes silent, which takes minutes to be noticed.
    pub fn is_silent(&self) -> bool {
        self.events.iter().any(|(_, event)| *event == OnEvent::Silence)
    }

    /// Whether each run's verdict must be what it would be without any fault.
    pub fn keeps_verdicts(&self) -> bool {
        !matches!(self.scenario, "squatters" | "deleted" | "namespace-deleted" | "rights-revoked" | "halted")
    }

    /// Whether the operator may hear late of what people do, since watches tell it late or never.
    pub fn loses_events(&self) -> bool {
        self.stale || !self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_script_again_and_another_seed_another() {
        let text = |seed| format!("{:?}", Script::new(seed, Some("mixed")).unwrap());
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }

    #[test]
    fn every_scenario_does_something() {
        for scenario in SCENARIOS {
            let script = Script::new(3, Some(scenario)).unwrap();
            let something = !script.writes.is_empty()
                || !script.events.is_empty()
                || !script.around.is_empty()
                || script.second_writer
                || script.deny_undo.is_some()
                || script.operators > 1;
            assert!(something, "{scenario}");
        }
        assert!(Script::new(3, Some("nonsense")).is_err());
    }
}
