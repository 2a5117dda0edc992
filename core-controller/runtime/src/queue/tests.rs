//! The queue under tokio's paused clock.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

impl Queued for u32 {
    fn is_urgent(&self) -> bool {
        *self >= 100
    }
}

async fn next(queue: &WorkQueue<u32>) -> u32 {
    *queue.next().await.unwrap().key()
}

#[tokio::test(start_paused = true)]
async fn a_key_is_handed_out_once_however_often_it_was_added() {
    let queue = WorkQueue::new();
    queue.add(1);
    queue.add(1);
    queue.add(2);
    assert_eq!(next(&queue).await, 1);
    assert_eq!(next(&queue).await, 2);
    assert_eq!(queue.ready(), 0);
}

#[tokio::test(start_paused = true)]
async fn urgent_keys_go_first() {
    let queue = WorkQueue::new();
    queue.add(1);
    queue.add(100);
    assert_eq!(next(&queue).await, 100);
    assert_eq!(next(&queue).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_being_worked_on_is_handed_out_again_only_afterwards() {
    let queue = WorkQueue::new();
    queue.add(1);
    let work = queue.next().await.unwrap();
    queue.add(1);
    queue.add(2);
    assert_eq!(next(&queue).await, 2);
    assert_eq!(queue.ready(), 0);
    drop(work);
    assert_eq!(next(&queue).await, 1);
}

#[tokio::test(start_paused = true)]
async fn of_several_delays_the_shortest_counts() {
    let queue = WorkQueue::new();
    let start = Instant::now();
    queue.add_after(1, Duration::from_mins(1));
    queue.add_after(1, Duration::from_secs(10));
    queue.add_after(1, Duration::from_secs(30));
    queue.add_after(2, Duration::from_secs(20));
    assert_eq!(next(&queue).await, 1);
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(next(&queue).await, 2);
    assert_eq!(start.elapsed().as_secs(), 20);
    assert_eq!(queue.waiting(), 0);
    // The outdated delays of key 1 hand out nothing.
    assert!(
        tokio::time::timeout(Duration::from_mins(5), queue.next())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn adding_now_ends_the_delay() {
    let queue = WorkQueue::new();
    queue.add_after(1, Duration::from_secs(10));
    queue.add(1);
    assert_eq!(next(&queue).await, 1);
    assert!(
        tokio::time::timeout(Duration::from_mins(5), queue.next())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn closing_wakes_everybody() {
    let queue = WorkQueue::<u32>::new();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let queue = queue.clone();
                async move { queue.next().await.is_none() }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.close();
    for task in waiting {
        assert!(task.await.unwrap());
    }
    queue.add(1);
    assert!(queue.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn many_changes_of_delay_leave_no_litter() {
    let queue = WorkQueue::new();
    for delay in (1u64..5000).rev() {
        queue.add_after(1, Duration::from_secs(delay));
    }
    let state = queue.shared.state.lock();
    assert!(state.delays.len() < 100, "{}", state.delays.len());
    assert_eq!(state.delays.len(), state.delayed_keys.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Several workers: no key in two hands, and nothing that was added is lost.
    #[test]
    fn no_key_is_in_two_hands_and_none_is_lost(adds in proptest::collection::vec((0u32..8, 0u64..50), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let queue = WorkQueue::new();
            let hands: Arc<Vec<AtomicUsize>> = Arc::new((0..8).map(|_| AtomicUsize::new(0)).collect());
            // What was added last, and what of it the workers have seen.
            let added: Arc<Vec<AtomicUsize>> = Arc::new((0..8).map(|_| AtomicUsize::new(0)).collect());
            let seen: Arc<Vec<AtomicUsize>> = Arc::new((0..8).map(|_| AtomicUsize::new(0)).collect());
            let workers: Vec<_> = (0..3).map(|_| {
                let (queue, hands, added, seen) = (queue.clone(), hands.clone(), added.clone(), seen.clone());
                tokio::spawn(async move {
                    while let Some(work) = queue.next().await {
                        let key = *work.key() as usize;
                        assert_eq!(hands[key].fetch_add(1, Ordering::SeqCst), 0);
                        seen[key].store(added[key].load(Ordering::SeqCst), Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(7)).await;
                        hands[key].fetch_sub(1, Ordering::SeqCst);
                    }
                })
            }).collect();
            for (index, (key, delay)) in adds.into_iter().enumerate() {
                added[key as usize].store(index + 1, Ordering::SeqCst);
                queue.add_after(key, Duration::from_millis(delay));
                if delay % 3 == 0 {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                }
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(queue.ready() + queue.working() + queue.waiting(), 0);
            queue.close();
            for worker in workers {
                worker.await.unwrap();
            }
            for key in 0..8 {
                assert_eq!(added[key].load(Ordering::SeqCst), seen[key].load(Ordering::SeqCst));
            }
        });
    }
}
