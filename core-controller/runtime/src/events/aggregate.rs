//! Which events are written, and when: equal ones become one with a count, and of too
//! many the rest is dropped. Synchronous; the clock is given.
//!
//! Not for: I/O.

use std::collections::VecDeque;
use std::hash::Hash;
use std::time::Duration;

use fnv::FnvHashMap;
use tokio::time::Instant;

/// Events that follow an equal one within this time are added to it.
pub const SERIES_WINDOW: Duration = Duration::from_mins(10);
/// How often the count of a series is written.
pub const SERIES_INTERVAL: Duration = Duration::from_mins(2);
/// How many series are known at a time.
const MAX_SERIES: usize = 2048;

/// A bucket of tokens: so many at once, then so many a second.
#[derive(Debug)]
pub struct Bucket {
    burst: f64,
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(burst: u32, per_second: f64, now: Instant) -> Self {
        Self {
            burst: f64::from(burst),
            per_second,
            tokens: f64::from(burst),
            filled: now,
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let gained = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// What to do with an event that was just recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Write it.
    Write,
    /// It was counted; the series is written later.
    Counted,
    /// There are too many; it is not written.
    Dropped,
}

#[derive(Debug)]
struct Series<W> {
    last: Instant,
    last_write: Instant,
    /// How often it happened in all, the first included.
    count: u32,
    written: u32,
    /// What the writer needs to find the event again.
    handle: Option<W>,
}

/// A series whose count is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due<W> {
    /// What the writer left.
    pub handle: W,
    /// How often it happened in all.
    pub count: u32,
}

/// Knows the recent events by key.
#[derive(Debug)]
pub struct Aggregator<K, W> {
    series: FnvHashMap<K, Series<W>>,
    order: VecDeque<K>,
    normal: Bucket,
    warning: Bucket,
}

impl<K: Clone + Eq + Hash, W: Clone> Aggregator<K, W> {
    /// Knows of none. Warnings have tokens of their own, so that good news never
    /// crowds them out.
    pub fn new(per_second: u32, now: Instant) -> Self {
        // A burst is what comes in half a minute.
        let bucket = || Bucket::new(per_second.saturating_mul(25), f64::from(per_second), now);
        Self {
            series: FnvHashMap::default(),
            order: VecDeque::new(),
            normal: bucket(),
            warning: bucket(),
        }
    }

    /// An event happened.
    pub fn record(&mut self, key: K, warning: bool, now: Instant) -> Verdict {
        if let Some(series) = self.series.get_mut(&key)
            && now.duration_since(series.last) < SERIES_WINDOW
        {
            series.count = series.count.saturating_add(1);
            series.last = now;
            return Verdict::Counted;
        }
        let bucket = if warning { &mut self.warning } else { &mut self.normal };
        if !bucket.take(now) {
            return Verdict::Dropped;
        }
        if self.series.remove(&key).is_some() {
            self.order.retain(|known| *known != key);
        }
        if self.series.len() >= MAX_SERIES
            && let Some(oldest) = self.order.pop_front()
        {
            self.series.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.series.insert(
            key,
            Series {
                last: now,
                last_write: now,
                count: 1,
                written: 1,
                handle: None,
            },
        );
        Verdict::Write
    }

    /// The event was written; the handle finds it again.
    pub fn written(&mut self, key: &K, handle: W) {
        if let Some(series) = self.series.get_mut(key) {
            series.handle = Some(handle);
        }
    }

    /// The series whose counts are to be written now. Forgets those that have ended.
    pub fn due(&mut self, now: Instant) -> Vec<Due<W>> {
        let mut due = Vec::new();
        self.series.retain(|_, series| {
            let ended = now.duration_since(series.last) >= SERIES_WINDOW;
            if series.count > series.written
                && (ended || now.duration_since(series.last_write) >= SERIES_INTERVAL)
                && let Some(handle) = series.handle.clone()
            {
                series.written = series.count;
                series.last_write = now;
                due.push(Due {
                    handle,
                    count: series.count,
                });
            }
            !ended
        });
        let series = &self.series;
        self.order.retain(|key| series.contains_key(key));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aggregator(now: Instant) -> Aggregator<&'static str, &'static str> {
        Aggregator::new(2, now)
    }

    #[tokio::test(start_paused = true)]
    async fn equal_events_are_one_with_a_count() {
        let now = Instant::now();
        let mut events = aggregator(now);
        assert_eq!(events.record("a", false, now), Verdict::Write);
        events.written(&"a", "handle");
        for _ in 0..9 {
            assert_eq!(events.record("a", false, now), Verdict::Counted);
        }
        assert!(events.due(now).is_empty());
        let later = now + SERIES_INTERVAL;
        assert_eq!(
            events.due(later),
            [Due {
                handle: "handle",
                count: 10
            }]
        );
        assert!(events.due(later + SERIES_INTERVAL).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_after_the_window_is_a_new_one() {
        let now = Instant::now();
        let mut events = aggregator(now);
        events.record("a", false, now);
        assert_eq!(events.record("a", false, now + SERIES_WINDOW), Verdict::Write);
        events.due(now + 3 * SERIES_WINDOW);
        assert!(events.series.is_empty());
        assert!(events.order.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_events_are_dropped_and_warnings_are_not_crowded_out() {
        let now = Instant::now();
        let mut events: Aggregator<u32, ()> = Aggregator::new(2, now);
        let written = (0..200)
            .filter(|key| events.record(*key, false, now) == Verdict::Write)
            .count();
        assert_eq!(written, 50);
        assert_eq!(events.record(1000, true, now), Verdict::Write);
        assert_eq!(events.record(1001, false, now + Duration::from_secs(1)), Verdict::Write);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_known_series_is_bounded() {
        let mut now = Instant::now();
        let mut events: Aggregator<u32, ()> = Aggregator::new(2, now);
        for key in 0..(MAX_SERIES as u32 + 100) {
            now += Duration::from_millis(500);
            events.record(key, false, now);
            // Kept alive, so that none ends by itself.
            if key % 500 == 0 {
                now += Duration::from_millis(1);
            }
        }
        assert!(events.series.len() <= MAX_SERIES);
        assert_eq!(events.series.len(), events.order.len());
    }
}
