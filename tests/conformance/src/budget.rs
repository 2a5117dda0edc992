//! What a run may use at a time, in machines and in cost: a test waits until there is room,
//! and is skipped when there never will be.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config;

/// Cost is counted in hundredths.
const HUNDREDTHS: f64 = 100.0;

/// The room of a run.
#[derive(Debug, Clone)]
pub struct Budget {
    machines: Arc<Semaphore>,
    cost: Arc<Semaphore>,
    limit: config::Budget,
    machine_cost: f64,
}

/// Room that was taken; given back when dropped.
#[derive(Debug)]
pub struct Room {
    _machines: OwnedSemaphorePermit,
    _cost: OwnedSemaphorePermit,
}

impl Budget {
    /// The room that the config allows.
    pub fn new(limit: &config::Budget, machine_cost: f64) -> Self {
        Self {
            machines: Arc::new(Semaphore::new(limit.machines as usize)),
            cost: Arc::new(Semaphore::new(hundredths(limit.cost) as usize)),
            limit: limit.clone(),
            machine_cost,
        }
    }

    /// Takes room for so many machines, when there is; `Err` says why there never will be.
    pub async fn take(&self, machines: u32) -> Result<Room, String> {
        let cost = hundredths(self.machine_cost * f64::from(machines));
        if machines > self.limit.machines || cost > hundredths(self.limit.cost) {
            return Err(format!(
                "it needs {machines} machines at a time, which cost {:.2} a day; the budget is {} machines and {:.2}",
                self.machine_cost * f64::from(machines),
                self.limit.machines,
                self.limit.cost
            ));
        }
        let take = |semaphore: &Arc<Semaphore>, number| semaphore.clone().acquire_many_owned(number);
        let closed = |_| "the budget is closed".to_owned();
        Ok(Room {
            _machines: take(&self.machines, machines).await.map_err(closed)?,
            _cost: take(&self.cost, cost).await.map_err(closed)?,
        })
    }
}

fn hundredths(cost: f64) -> u32 {
    (cost * HUNDREDTHS).round().clamp(0.0, f64::from(u32::MAX >> 4)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_given_back_and_too_much_is_refused() {
        let budget = Budget::new(&config::Budget { machines: 2, cost: 1.0 }, 0.5);
        let room = budget.take(2).await.unwrap();
        let mut waiting = Box::pin(budget.take(1));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(room);
        waiting.await.unwrap();
        assert!(budget.take(3).await.unwrap_err().contains("3 machines"));
        let dear = Budget::new(&config::Budget { machines: 9, cost: 1.0 }, 0.5);
        assert!(dear.take(3).await.is_err());
    }
}
