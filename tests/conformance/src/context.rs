//! What a test works with: the plan of the run, calls that are remembered, and the few
//! things that most tests do: make, ask, change, remove, wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use actuator_proto::errors::table::code_name;
use actuator_proto::errors::{Classified, Recovery};
use actuator_proto::v1::{self, DeletionState, ErrorReason, MachinePhase, Presence};
use tokio::sync::OnceCell;
use tonic::{Code, Status};

use crate::calls::{Calls, Rpc, show_status};
use crate::dial::{self, Endpoint, TlsFiles};
use crate::holds;
use crate::ledger::{Entry, Kind};
use crate::requests::{self, Cluster, Created as _, Plan};
use crate::restart::Hook;
use crate::rule::Stop;

/// Waits between two looks are at least this long, and at most [`LONGEST_WAIT`].
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What all tests of a run share.
#[derive(Debug)]
pub struct Suite {
    /// What requests are built from.
    pub plan: Plan,
    /// Where the provider is.
    pub endpoint: Endpoint,
    /// How to reach it over TLS.
    pub tls: Option<TlsFiles>,
    /// How to restart it.
    pub restart: Option<Hook>,
    /// The cluster that the tests of machines share.
    pub cluster: OnceCell<Result<Arc<Cluster>, Stop>>,
    /// Fencing epochs only grow, whoever sends them.
    pub epoch: AtomicI64,
}

/// What one test works with.
#[derive(Debug, Clone)]
pub struct Context {
    /// What all tests share.
    pub suite: Arc<Suite>,
    /// The calls of this test.
    pub calls: Calls,
}

impl std::ops::Deref for Context {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.suite.plan
    }
}

/// Takes an answer or ends the test: the call may not fail here.
pub trait Expected<T> {
    /// The answer, or the end of the test with what was being done.
    fn expected(self, doing: &str) -> Result<T, Stop>;
}

impl<T> Expected<T> for Result<T, Status> {
    fn expected(self, doing: &str) -> Result<T, Stop> {
        self.map_err(|status| Stop::Broken(format!("{doing} failed: {}", show_status(&status))))
    }
}

impl Context {
    /// Makes a call; its failure ends the test.
    pub async fn ask<R: Rpc>(&self, request: R) -> Result<R::Answer, Stop> {
        self.calls.call(request).await.expected(R::METHOD)
    }

    /// Makes a call as the core would: where the table says wait or try again, it does, up to `patience`.
    pub async fn settle<R: Rpc>(&self, request: R, patience: Duration) -> Result<R::Answer, Stop> {
        let end = Instant::now() + patience;
        let mut wait = SHORTEST_WAIT;
        loop {
            let status = match self.calls.call(request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let classified = Classified::from_status(&status);
            let again = matches!(
                classified.recovery,
                Recovery::Wait { .. }
                    | Recovery::Throttle
                    | Recovery::Retry
                    | Recovery::RetryProvider
                    | Recovery::ResolveThenReplay
                    | Recovery::ResolveThenRetry { .. }
            );
            holds!(
                again && Instant::now() < end,
                "{} failed: {}",
                R::METHOD,
                show_status(&status)
            );
            tokio::time::sleep(
                classified
                    .retry_after
                    .unwrap_or(wait)
                    .clamp(SHORTEST_WAIT, LONGEST_WAIT),
            )
            .await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Expects a refusal that is final: this reason, with its code, and nothing done.
    pub fn refused<T: std::fmt::Debug>(
        &self,
        answer: Result<T, Status>,
        reasons: &[ErrorReason],
        what: &str,
    ) -> Result<Classified, Stop> {
        let names = || {
            reasons
                .iter()
                .map(|reason| reason.wire_name())
                .collect::<Vec<_>>()
                .join(" or ")
        };
        let Err(status) = answer else {
            return Err(Stop::Broken(format!(
                "{what} was accepted; it must be refused with {}",
                names()
            )));
        };
        let classified = Classified::from_status(&status);
        holds!(
            classified.reason.is_some_and(|reason| reasons.contains(&reason)),
            "{what} was refused with {}; it must be refused with {}",
            show_status(&status),
            names()
        );
        holds!(
            classified.is_final(),
            "{what} was refused, but not with effect NONE: {}",
            show_status(&status)
        );
        Ok(classified)
    }

    /// Expects a code that a gRPC library gives by itself.
    pub fn code<T: std::fmt::Debug>(
        &self,
        answer: Result<T, Status>,
        codes: &[Code],
        what: &str,
    ) -> Result<Status, Stop> {
        let names = || {
            codes
                .iter()
                .map(|code| code_name(*code))
                .collect::<Vec<_>>()
                .join(" or ")
        };
        match answer {
            Ok(_) => Err(Stop::Broken(format!("{what} was accepted; {} is due", names()))),
            Err(status) if codes.contains(&status.code()) => Ok(status),
            Err(status) => Err(Stop::Broken(format!(
                "{what} got {}; {} is due",
                show_status(&status),
                names()
            ))),
        }
    }

    /// A connection of this test's own.
    pub async fn connection(&self) -> Result<Calls, Stop> {
        let connection = dial::connect(&self.suite.endpoint, self.suite.tls.as_ref())
            .await
            .map_err(|error| Stop::Broken(format!("{error:#}")))?;
        Ok(self.calls.over(connection))
    }

    /// The cluster that tests of machines share, ready; made by the first that needs it.
    pub async fn cluster(&self) -> Result<Arc<Cluster>, Stop> {
        let made = self.suite.cluster.get_or_init(|| async {
            let request = self.create_cluster("shared");
            self.ready_cluster(request).await.map(Arc::new)
        });
        made.await.clone().map_err(|stop| match stop {
            Stop::Broken(words) => {
                Stop::Skipped(format!("the cluster that the machines need could not be made: {words}"))
            }
            other => other,
        })
    }

    /// Makes a cluster and waits until machines may be made in it.
    pub async fn ready_cluster(&self, request: v1::CreateClusterRequest) -> Result<Cluster, Stop> {
        let patience = self.config.timeouts.ready;
        let end = Instant::now() + patience;
        self.settle(request.clone(), patience).await?;
        loop {
            let answer = self.settle(requests::cluster_exists(&request), patience).await?;
            let status = answer.status.clone().unwrap_or_default();
            match status.phase() {
                v1::ClusterPhase::Ready => {
                    return Ok(Cluster {
                        uid: request.key(),
                        request,
                        status,
                    });
                }
                v1::ClusterPhase::Failed => {
                    return Err(Stop::Broken(format!("the cluster failed: {:?}", status.failure)));
                }
                _ => {}
            }
            holds!(
                Instant::now() < end,
                "the cluster was not READY within {patience:?}; timeouts.ready may be too short"
            );
            self.pause(status.poll_after.as_ref()).await;
        }
    }

    /// Makes a machine; the answer is a status with an id.
    pub async fn create(&self, request: &v1::CreateMachineRequest) -> Result<v1::MachineStatus, Stop> {
        let answer = self.settle(request.clone(), self.config.timeouts.running).await?;
        let status = answer.status.unwrap_or_default();
        holds!(
            !status.provider_id.is_empty(),
            "CreateMachine answered without a provider_id"
        );
        Ok(status)
    }

    /// Waits until reads show what this test has written.
    pub async fn settled_reads(&self) {
        if let Some(written) = self.calls.written() {
            tokio::time::sleep((written + self.read_after_write()).saturating_duration_since(Instant::now())).await;
        }
    }

    /// Whether the machine is there, by key alone, past the window in which reads may lag behind this test's writes.
    pub async fn exists(&self, request: &v1::CreateMachineRequest) -> Result<v1::MachineExistsResponse, Stop> {
        self.settled_reads().await;
        self.settle(requests::machine_exists(request), self.config.timeouts.gone)
            .await
    }

    /// Waits until the machine is in this phase.
    pub async fn phase(
        &self,
        request: &v1::CreateMachineRequest,
        wanted: MachinePhase,
    ) -> Result<v1::MachineStatus, Stop> {
        let patience = self.config.timeouts.running;
        let end = Instant::now() + patience;
        loop {
            let answer = self.exists(request).await?;
            let status = answer.status.clone().unwrap_or_default();
            if answer.presence() == Presence::Present && status.phase() == wanted {
                return Ok(status);
            }
            holds!(
                status.phase() != MachinePhase::Failed || wanted == MachinePhase::Failed,
                "the machine failed: {:?}",
                status.failure
            );
            holds!(
                Instant::now() < end,
                "the machine was not {} within {patience:?}, the last answer was {} and {}",
                wanted.as_str_name(),
                answer.presence().as_str_name(),
                status.phase().as_str_name()
            );
            self.pause(status.poll_after.as_ref()).await;
        }
    }

    /// Asks for the removal until it is GONE; returns how often it had to ask.
    pub async fn delete(&self, request: &v1::CreateMachineRequest) -> Result<u32, Stop> {
        self.delete_until_gone(requests::delete_machine(request)).await
    }

    async fn delete_until_gone(&self, request: v1::DeleteMachineRequest) -> Result<u32, Stop> {
        let patience = self.config.timeouts.gone;
        let end = Instant::now() + patience;
        let mut asked = 0;
        loop {
            asked += 1;
            let answer = self.settle(request.clone(), patience).await?;
            if answer.state() == DeletionState::Gone {
                return Ok(asked);
            }
            holds!(
                Instant::now() < end,
                "the machine was not GONE within {patience:?}: {}",
                answer.message
            );
            self.pause(answer.poll_after.as_ref()).await;
        }
    }

    /// Asks for the removal of a cluster until it is GONE.
    pub async fn delete_cluster(&self, request: v1::DeleteClusterRequest) -> Result<(), Stop> {
        let patience = self.config.timeouts.gone;
        let end = Instant::now() + patience;
        loop {
            let answer = self.settle(request.clone(), patience).await?;
            if answer.state() == DeletionState::Gone {
                return Ok(());
            }
            holds!(
                Instant::now() < end,
                "the cluster was not GONE within {patience:?}: {}",
                answer.message
            );
            self.pause(answer.poll_after.as_ref()).await;
        }
    }

    /// Removes one entry of the ledger, whatever state it is in.
    pub async fn sweep(&self, entry: &Entry) -> Result<(), Stop> {
        let meta = Some(requests::meta(&entry.key, i64::from(i32::MAX)));
        let (reference, credentials) = (Some(entry.reference()), Some(self.good.clone()));
        match entry.kind {
            Kind::Machine => {
                let request = v1::DeleteMachineRequest {
                    meta,
                    r#ref: reference,
                    credentials,
                    ..Default::default()
                };
                self.delete_until_gone(request).await.map(|_| ())
            }
            Kind::Cluster => {
                let request = v1::DeleteClusterRequest {
                    meta,
                    r#ref: reference,
                    credentials,
                    ..Default::default()
                };
                self.delete_cluster(request).await
            }
        }
    }

    /// As long as the provider says, or as it recommends, or a moment.
    pub async fn pause(&self, poll_after: Option<&prost_types::Duration>) {
        let told = poll_after
            .or_else(|| {
                self.info
                    .timings
                    .as_ref()
                    .and_then(|timings| timings.poll_interval.as_ref())
            })
            .and_then(|told| Duration::try_from(*told).ok());
        let wait = told
            .unwrap_or(Duration::from_millis(500))
            .clamp(SHORTEST_WAIT, LONGEST_WAIT);
        tokio::time::sleep(wait).await;
    }

    /// After a change, reads may show the old state for this long.
    pub fn read_after_write(&self) -> Duration {
        self.info
            .timings
            .as_ref()
            .and_then(|timings| timings.read_after_write)
            .and_then(|told| Duration::try_from(told).ok())
            .unwrap_or_default()
    }

    /// An epoch above all that were sent before.
    pub fn next_epoch(&self) -> i64 {
        self.suite.epoch.fetch_add(1, Ordering::Relaxed)
    }

    /// Restarts the provider and waits until it answers; returns calls on a new connection.
    pub async fn restart(&self) -> Result<Calls, Stop> {
        let Some(hook) = &self.suite.restart else {
            return Err(Stop::skipped(
                "the config has no restart.command, so no crash can be made",
            ));
        };
        hook.restart()
            .await
            .map_err(|error| Stop::Skipped(format!("{error:#}")))?;
        let patience = self.config.timeouts.restart;
        let end = Instant::now() + patience;
        loop {
            let answered = match self.connection().await {
                Ok(calls) => calls.call(v1::ProbeRequest {}).await.ok().map(|answer| (calls, answer)),
                Err(_) => None,
            };
            match answered {
                Some((calls, answer)) if answer.readiness() != v1::Readiness::Initializing => return Ok(calls),
                _ => holds!(
                    Instant::now() < end,
                    "the provider did not answer within {patience:?} after its restart"
                ),
            }
            tokio::time::sleep(SHORTEST_WAIT).await;
        }
    }

    /// This context with other calls.
    #[must_use]
    pub fn with(&self, calls: Calls) -> Self {
        Self { calls, ..self.clone() }
    }
}
