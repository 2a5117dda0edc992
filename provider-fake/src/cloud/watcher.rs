//! Watching instances: first all there are or what has changed since a token, then a
//! marker, then every change. Not for: the truth; who watches asks again before acting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actuator_proto::v1::ErrorReason;
use tokio::sync::watch;
use tokio::time::Instant;

use super::history::Happening;
use super::model::Instance;
use super::{Caller, Cloud, CloudError};

/// How many changes are read at a time.
const BATCH: usize = 256;
/// How long at most from one token to the next.
const BOOKMARK_AFTER: Duration = Duration::from_secs(10);

/// One element of a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchItem {
    /// The instance is there, in this state.
    Present(Arc<Instance>),
    /// The instance is gone; this is what it was.
    Gone(Arc<Instance>),
    /// All that there was has been told; a later watch may go on here.
    Synced(String),
    /// Nothing more happened up to here; a later watch may go on here.
    Bookmark(String),
}

/// A watch.
pub struct Watcher {
    cloud: Cloud,
    management_cluster: String,
    /// Everything up to this line has been told or is in the backlog.
    cursor: u64,
    backlog: VecDeque<WatchItem>,
    news: watch::Receiver<u64>,
    /// When the next token is due.
    bookmark_at: Instant,
}

impl Cloud {
    /// Begins to watch the instances of a management cluster, from the beginning or from
    /// a token of a former watch.
    pub async fn watch_instances(
        &self,
        caller: &Caller,
        management_cluster: &str,
        token: Option<&str>,
    ) -> Result<Watcher, CloudError> {
        let expired = || {
            let message = "the resume token is no longer valid; watch from the beginning";
            CloudError::new(ErrorReason::ResumeTokenExpired, message)
        };
        let from = token.map(|token| self.seq_of(token).ok_or_else(expired)).transpose()?;
        let news = self.0.news.subscribe();
        let start = self.read("WatchInstances", "", caller, |ledger, _| match from {
            Some(seq) if seq > ledger.seq() || ledger.history.after(seq, 0).is_none() => Err(expired()),
            Some(seq) => Ok((seq, VecDeque::new())),
            None => {
                let all = ledger.state.instances.values();
                let ours = all.filter(|it| it.owner.management_cluster == management_cluster);
                let mut backlog: VecDeque<WatchItem> = ours.cloned().map(WatchItem::Present).collect();
                backlog.push_back(WatchItem::Synced(self.token_of(ledger.seq())));
                Ok((ledger.seq(), backlog))
            }
        });
        let (cursor, backlog) = start.await?;
        let mut watcher = Watcher {
            cloud: self.clone(),
            management_cluster: management_cluster.to_owned(),
            cursor,
            backlog,
            news,
            bookmark_at: Instant::now() + BOOKMARK_AFTER,
        };
        if from.is_some() {
            while watcher.read_batch()? {}
            let token = self.token_of(watcher.cursor);
            watcher.backlog.push_back(WatchItem::Synced(token));
            watcher.settled().await?;
        }
        Ok(watcher)
    }

    fn token_of(&self, seq: u64) -> String {
        format!("w1.{}.{seq}", self.id())
    }

    fn seq_of(&self, token: &str) -> Option<u64> {
        token
            .strip_prefix("w1.")?
            .strip_prefix(self.id())?
            .strip_prefix('.')?
            .parse()
            .ok()
    }
}

impl Watcher {
    /// What happens next. An error ends the watch.
    pub async fn next(&mut self) -> Result<WatchItem, CloudError> {
        loop {
            if let Some(item) = self.backlog.pop_front() {
                return Ok(item);
            }
            self.news.borrow_and_update();
            if self.cloud.settings().outage {
                return Err(CloudError::new(ErrorReason::CloudUnavailable, "the cloud is down"));
            }
            let more = self.read_batch()?;
            self.settled().await?;
            if more && !self.backlog.is_empty() {
                continue;
            }
            // All up to the cursor has been told: a token for it holds, however much
            // goes on.
            if Instant::now() >= self.bookmark_at {
                self.bookmark_at = Instant::now() + BOOKMARK_AFTER;
                return Ok(WatchItem::Bookmark(self.cloud.token_of(self.cursor)));
            }
            if more {
                continue;
            }
            tokio::select! {
                changed = self.news.changed() => {
                    changed.map_err(|_| super::broken("it is closed"))?;
                }
                () = tokio::time::sleep_until(self.bookmark_at) => {}
            }
        }
    }

    /// Until nothing that was read can still be forgotten, and no token names a line that
    /// another one could take the place of.
    async fn settled(&self) -> Result<(), CloudError> {
        let mut durability = self.cloud.0.durability.clone();
        durability
            .written(self.cursor)
            .await
            .map_err(|problem| super::broken(&problem))
    }

    /// Takes the next changes into the backlog; tells whether there may be more.
    fn read_batch(&mut self) -> Result<bool, CloudError> {
        let ledger = self.cloud.0.ledger.lock();
        let Some(batch) = ledger.history.after(self.cursor, BATCH) else {
            let message = "the watch was too slow and has missed changes; watch from the beginning";
            return Err(CloudError::new(ErrorReason::ResumeTokenExpired, message));
        };
        let more = batch.len() == BATCH;
        let before = self.cursor;
        self.cursor = match batch.last() {
            Some((seq, _)) if more => *seq,
            _ => ledger.seq(),
        };
        for (_, happening) in batch {
            let item = match happening {
                Happening::Present(id) => ledger.state.instances.get(&id).cloned().map(WatchItem::Present),
                Happening::Gone(instance) => Some(WatchItem::Gone(instance)),
            };
            let ours = item.filter(|item| match item {
                WatchItem::Present(it) | WatchItem::Gone(it) => it.owner.management_cluster == self.management_cluster,
                WatchItem::Synced(_) | WatchItem::Bookmark(_) => true,
            });
            self.backlog.extend(ours);
        }
        Ok(more || (self.cursor > before && !self.backlog.is_empty()))
    }
}
