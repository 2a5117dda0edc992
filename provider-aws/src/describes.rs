//! Many questions about single machines, one call to EC2: who asks while a call is on its
//! way, or too soon after the last one, shares the next. An answer always comes from a call
//! that began after it was asked for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::client::Client;
use crate::client::action::Action;
use crate::client::failure::Failure;
use crate::client::query::Filter;
use crate::ec2::instances::{self, Instance};
use crate::tags::{self, Kind, MACHINE_KEY};

/// EC2 takes so many values in a filter. For more keys, everything with any key is asked for.
const MAX_KEYS: usize = 200;

type Answer = Result<Vec<Instance>, Failure>;

/// The questions of one caller in one region.
#[derive(Debug, Clone)]
pub struct Describes {
    client: Client,
    interval: Duration,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<(String, oneshot::Sender<Answer>)>,
    running: bool,
    began: Option<Instant>,
}

impl Describes {
    /// At most one call in each interval.
    pub fn new(client: Client, interval: Duration) -> Self {
        Self {
            client,
            interval,
            queue: Arc::default(),
        }
    }

    /// Every instance with this key.
    pub async fn with_key(&self, key: &str) -> Answer {
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut queue = self.queue.lock();
            queue.waiting.push((key.to_owned(), answer));
            !std::mem::replace(&mut queue.running, true)
        };
        if start {
            tokio::spawn(self.clone().run());
        }
        answered.await.unwrap_or_else(|_| {
            Err(Failure::NotSent {
                action: Action::DescribeInstances,
                why: "the provider is stopping".to_owned(),
            })
        })
    }

    /// Until nobody waits any more.
    async fn run(self) {
        loop {
            let next = self.queue.lock().began.map(|began| began + self.interval);
            if let Some(next) = next {
                tokio::time::sleep_until(next).await;
            }
            let waiting = {
                let mut queue = self.queue.lock();
                // Who has gone is not asked for.
                queue.waiting.retain(|(_, answer)| !answer.is_closed());
                if queue.waiting.is_empty() {
                    queue.running = false;
                    return;
                }
                queue.began = Some(Instant::now());
                std::mem::take(&mut queue.waiting)
            };
            self.answer(waiting).await;
        }
    }

    async fn answer(&self, waiting: Vec<(String, oneshot::Sender<Answer>)>) {
        let mut keys: Vec<&str> = waiting.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        let filter = if keys.len() <= MAX_KEYS {
            tags::by_key(Kind::Machine, &keys)
        } else {
            Filter::exactly("tag-key", [MACHINE_KEY])
        };
        let found = instances::describe(&self.client, &[filter]).await;
        let found = found.map(|found| {
            let mut by_key: HashMap<String, Vec<Instance>> = HashMap::new();
            for instance in found {
                if let Some(key) = instance.tags().remove(MACHINE_KEY) {
                    by_key.entry(key).or_default().push(instance);
                }
            }
            by_key
        });
        for (key, answer) in waiting {
            let one = found
                .as_ref()
                .map(|found| found.get(&key).cloned().unwrap_or_default())
                .map_err(Clone::clone);
            // Who has gone in the meantime needs no answer.
            let _ = answer.send(one);
        }
    }
}
