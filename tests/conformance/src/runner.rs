//! Decides what runs when, and runs it: first what may run beside others, then what has to
//! be alone, then what judges the whole run; at the end everything that was made is swept,
//! after an interruption too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use actuator_proto::v1;
use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use parking_lot::{Mutex, RwLock};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::calls::{Calls, Shared};
use crate::config::Config;
use crate::context::{Context, Suite};
use crate::dial::{self, Endpoint, TlsFiles};
use crate::ledger::{Kind, Ledger};
use crate::mask::Secrets;
use crate::report::{self, Ended, Outcome, Report};
use crate::requests::{self, Plan};
use crate::restart::Hook;
use crate::rule::{Phase, Rule, Stop, Tier};
use crate::rules;

/// No test takes longer, whatever the timeouts of the config add up to.
const TEST_DEADLINE: Duration = Duration::from_hours(1);

type Progress = Arc<dyn Fn(&Outcome, usize, usize) + Send + Sync>;

/// How to run.
#[derive(Clone)]
pub struct Options {
    /// Where the provider is.
    pub endpoint: Endpoint,
    /// How to reach it over TLS.
    pub tls: Option<TlsFiles>,
    /// What the suite is told about it.
    pub config: Config,
    /// Only rules whose id has one of these in it; all when empty.
    pub focus: Vec<String>,
    /// No rules whose id has one of these in it.
    pub skip: Vec<String>,
    /// As many tests at a time.
    pub parallel: usize,
    /// Where the keys are written down; a file of its own when `None`.
    pub ledger: Option<PathBuf>,
    /// How to restart the provider, instead of the config's command.
    pub restart: Option<Hook>,
    /// Rules about crashes that cannot be looked at spoil the verdict.
    pub faults_required: bool,
    /// Ends the run early; what was made is still swept.
    pub interrupt: CancellationToken,
    /// Told of each test that ended, with how many have, of how many.
    pub progress: Option<Progress>,
}

impl Options {
    /// Everything, four tests at a time.
    pub fn new(endpoint: Endpoint, config: Config) -> Self {
        Self {
            endpoint,
            tls: None,
            config,
            focus: Vec::new(),
            skip: Vec::new(),
            parallel: 4,
            ledger: None,
            restart: None,
            faults_required: false,
            interrupt: CancellationToken::new(),
            progress: None,
        }
    }
}

/// Whether `--focus` and `--skip` let this rule run.
pub fn chooses(rule: &Rule, focus: &[String], skip: &[String]) -> bool {
    let within = |parts: &[String]| parts.iter().any(|part| rule.id.contains(part.as_str()));
    (focus.is_empty() || within(focus)) && !within(skip)
}

/// Runs the suite. An error means that nothing can be said of the provider: it is not
/// there, or the config cannot be used.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    let began = Instant::now();
    let run = format!("{:06x}", rand::random::<u32>() & 0xff_ffff);
    let ledger = options
        .ledger
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("actuator-conformance-{run}.ledger")));
    let Context { suite, calls } = meet(&options, run, &ledger).await?;
    let shared = calls.shared().clone();
    let runner = Runner {
        budget: Budget::new(&options.config.budget, options.config.machine.cost),
        suite,
        shared,
        ended: Mutex::default(),
        options,
    };
    let outcomes = runner.all().await;
    let left_behind = runner.shared.ledger.open_entries();
    let info = &runner.suite.plan.info;
    if left_behind.is_empty() && runner.options.ledger.is_none() {
        // Nothing is left that it could help to find.
        let _ = std::fs::remove_file(runner.shared.ledger.path());
    }
    let left_behind: Vec<String> = left_behind
        .into_iter()
        .map(|entry| {
            format!(
                "{:?} {} ({}); the ledger {} has it",
                entry.kind,
                entry.key,
                entry.name,
                runner.shared.ledger.path().display()
            )
        })
        .collect();
    Ok(Report {
        provider: info.name.clone(),
        version: info.vendor_version.clone(),
        run: runner.suite.plan.run.clone(),
        conforms: left_behind.is_empty() && report::conforms(&outcomes, runner.options.faults_required),
        not_advertised: report::missing(&info.capabilities.unwrap_or_default()),
        left_behind,
        outcomes,
        took: began.elapsed(),
    })
}

/// Removes what a former run has left, by its ledger; returns what it could not remove.
pub async fn sweep(options: Options) -> anyhow::Result<Vec<String>> {
    let path = options
        .ledger
        .clone()
        .context("--sweep needs the ledger of the run that it cleans up after")?;
    ensure!(path.exists(), "there is no ledger at {}", path.display());
    let context = meet(&options, "sweep".to_owned(), &path).await?;
    let mut left = Vec::new();
    for entry in context.calls.shared().ledger.open_entries() {
        if let Err(stop) = context.sweep(&entry).await {
            left.push(format!("{:?} {} ({}): {stop:?}", entry.kind, entry.key, entry.name));
        }
    }
    Ok(left)
}

/// Dials, asks what the provider is, and lays out what a run works with.
async fn meet(options: &Options, run: String, ledger: &Path) -> anyhow::Result<Context> {
    let connection = dial::connect_first(&options.endpoint, options.tls.as_ref()).await?;
    let shared = Arc::new(Shared {
        secrets: RwLock::default(),
        noticed: Mutex::default(),
        ledger: Ledger::open(ledger)?,
        timings: RwLock::default(),
    });
    let calls = Calls::new(connection, shared.clone());
    let info = calls
        .call(v1::GetInfoRequest {})
        .await
        .map_err(|status| anyhow::anyhow!("{}", crate::calls::show_status(&status)))
        .context("GetInfo failed, so nothing else can be asked")?;
    *shared.timings.write() = info.timings.unwrap_or_default();
    let plan = plan(run, &options.config, info, &mut shared.secrets.write())?;
    let restart = match (&options.restart, &options.config.restart) {
        (Some(hook), _) => Some(hook.clone()),
        (None, Some(restart)) => Some(Hook::command(restart)?),
        (None, None) => None,
    };
    let suite = Arc::new(Suite {
        plan,
        endpoint: options.endpoint.clone(),
        tls: options.tls.clone(),
        restart,
        cluster: OnceCell::new(),
        epoch: AtomicI64::new(1),
    });
    Ok(Context { suite, calls })
}

fn plan(run: String, config: &Config, info: v1::GetInfoResponse, secrets: &mut Secrets) -> anyhow::Result<Plan> {
    let mut read = |set: &std::collections::BTreeMap<String, crate::config::Secret>| -> anyhow::Result<_> {
        let mut entries = std::collections::BTreeMap::new();
        for (name, secret) in set {
            let value = secret.read()?;
            secrets.add(&value);
            entries.insert(name.clone(), value);
        }
        Ok(entries)
    };
    let (good, rotated, bad) = (
        read(&config.credentials.good)?,
        read(&config.credentials.rotated)?,
        read(&config.credentials.bad)?,
    );
    let plan = Plan {
        run,
        config: config.clone(),
        info,
        good: requests::credentials(good),
        rotated: (!rotated.is_empty()).then(|| requests::credentials(rotated)),
        bad: (!bad.is_empty()).then(|| requests::credentials(bad)),
    };
    secrets.add(plan.bootstrap_secret().as_bytes());
    Ok(plan)
}

struct Runner {
    options: Options,
    suite: Arc<Suite>,
    shared: Arc<Shared>,
    budget: Budget,
    ended: Mutex<usize>,
}

impl Runner {
    async fn all(&self) -> Vec<Outcome> {
        let every = rules::all();
        let total = every.len();
        let capabilities = self.suite.plan.info.capabilities.unwrap_or_default();
        let mut outcomes: Vec<(usize, Outcome)> = Vec::new();
        let mut chosen = Vec::new();
        for (index, rule) in every.into_iter().enumerate() {
            let not_run = match rule.tier {
                _ if !chooses(&rule, &self.options.focus, &self.options.skip) => Some(Ended::LeftOut),
                Tier::Capability(capability) if !capability.advertised(&capabilities) => Some(Ended::NotAdvertised),
                _ => None,
            };
            match not_run {
                Some(ended) => {
                    let outcome = Outcome::not_run(&rule, ended, "");
                    self.tell(&outcome, total);
                    outcomes.push((index, outcome));
                }
                None => chosen.push((index, rule)),
            }
        }
        for (phase, parallel) in [
            (Phase::Shared, self.options.parallel.max(1)),
            (Phase::Alone, 1),
            (Phase::Last, 1),
        ] {
            if phase == Phase::Last {
                self.sweep().await;
            }
            let rules: Vec<_> = chosen.iter().filter(|(_, rule)| rule.phase == phase).collect();
            let running = rules.into_iter().map(|(index, rule)| async move {
                let outcome = self.one(rule).await;
                self.tell(&outcome, total);
                (*index, outcome)
            });
            outcomes.extend(
                futures::stream::iter(running)
                    .buffer_unordered(parallel)
                    .collect::<Vec<_>>()
                    .await,
            );
        }
        outcomes.sort_by_key(|(index, _)| *index);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn tell(&self, outcome: &Outcome, total: usize) {
        let mut ended = self.ended.lock();
        *ended += 1;
        if let Some(progress) = &self.options.progress {
            progress(outcome, *ended, total);
        }
    }

    async fn one(&self, rule: &Rule) -> Outcome {
        if self.options.interrupt.is_cancelled() && rule.phase != Phase::Last {
            return Outcome::not_run(rule, Ended::Skipped, "the run was interrupted");
        }
        let room = match self.budget.take(rule.machines).await {
            Ok(room) => room,
            Err(why) => return Outcome::not_run(rule, Ended::Skipped, why),
        };
        let began = Instant::now();
        // A connection for each test: what one does to it no other sees. The first may find
        // the provider still coming back from a restart.
        let connected = async {
            let end = Instant::now() + self.options.config.timeouts.restart;
            loop {
                match dial::connect(&self.options.endpoint, self.options.tls.as_ref()).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) if Instant::now() >= end => return Err(error),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        let context = match connected.await {
            Ok(connection) => Context {
                suite: self.suite.clone(),
                calls: Calls::new(connection, self.shared.clone()),
            },
            Err(error) => {
                return Outcome::new(
                    rule,
                    Err(Stop::broken(format!("{error:#}"))),
                    began.elapsed(),
                    Vec::new(),
                );
            }
        };
        let verdict = tokio::select! {
            verdict = tokio::time::timeout(TEST_DEADLINE, rule.check(context.clone())) => {
                verdict.unwrap_or_else(|_| Err(Stop::broken(format!("the test did not end within {TEST_DEADLINE:?}"))))
            }
            () = self.options.interrupt.cancelled(), if rule.phase != Phase::Last => {
                Err(Stop::skipped("the run was interrupted"))
            }
        };
        let outcome = Outcome::new(rule, verdict, began.elapsed(), context.calls.transcript());
        self.clean_up(&context).await;
        drop(room);
        outcome
    }

    /// Removes what a test has left, before its room is given to the next. The shared
    /// cluster stays for the others.
    async fn clean_up(&self, context: &Context) {
        let shared_cluster = self
            .suite
            .cluster
            .get()
            .and_then(|made| made.as_ref().ok())
            .map(|cluster| cluster.uid.clone());
        let open = self.shared.ledger.open_entries();
        let mut made = context.calls.made();
        made.sort_by_key(|entry| entry.kind);
        made.dedup();
        for entry in made.iter().filter(|entry| open.contains(entry)) {
            let keep = entry.kind == Kind::Cluster && shared_cluster.as_ref() == Some(&entry.key);
            // What cannot be removed now stays in the ledger, for the end of the run.
            if !keep && let Ok(connection) = dial::connect(&self.options.endpoint, self.options.tls.as_ref()).await {
                let _ = context
                    .with(Calls::new(connection, self.shared.clone()))
                    .sweep(entry)
                    .await;
            }
        }
    }

    /// Removes what is left of the run.
    async fn sweep(&self) {
        for entry in self.shared.ledger.open_entries() {
            let Ok(connection) = dial::connect(&self.options.endpoint, self.options.tls.as_ref()).await else {
                return;
            };
            let context = Context {
                suite: self.suite.clone(),
                calls: Calls::new(connection, self.shared.clone()),
            };
            // What stays is in the report.
            let _ = context.sweep(&entry).await;
        }
    }
}
