//! The numbers of a rolling update: bounds, proportional shares, how far up and down. Nothing but integers.
//!
//! Not for which set is new or old, nor for objects.

use outrigger_api::IntOrString;

/// How far a rolling update may go at once, in machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Machines above the replicas.
    pub surge: i32,
    /// Machines missing from the replicas.
    pub unavailable: i32,
}

impl Bounds {
    /// Resolves percentages of `replicas`: the surge is rounded up, the rest down. If both come out as 0, one machine may be
    /// missing, as otherwise nothing could ever be replaced.
    pub fn resolve(max_surge: &IntOrString, max_unavailable: &IntOrString, replicas: i32) -> Self {
        let surge = machines(max_surge, replicas, true);
        let unavailable = machines(max_unavailable, replicas, false).min(replicas.max(0));
        if surge == 0 && unavailable == 0 {
            Self {
                surge,
                unavailable: 1.min(replicas.max(0)),
            }
        } else {
            Self { surge, unavailable }
        }
    }
}

/// A number of machines, or a percentage of `replicas`. What cannot be read counts as 0: the API server refuses it.
fn machines(value: &IntOrString, replicas: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text
                .strip_suffix('%')
                .and_then(|digits| digits.parse().ok())
                .unwrap_or(0)
                .max(0);
            let hundredths = percent.saturating_mul(i64::from(replicas.max(0)));
            let whole = if up {
                hundredths.saturating_add(99) / 100
            } else {
                hundredths / 100
            };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

/// A set as proportional scaling sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Replicas that the set has now.
    pub replicas: i32,
    /// The most machines that the deployment allowed when the set was last scaled, if that is known.
    pub allowed_then: Option<i32>,
}

/// Shares `allowed` machines among sets in proportion to what they have. The sets come in the order in which they are served:
/// when growing the largest and newest first, when shrinking the largest and oldest first; the first takes what rounding
/// leaves over. `observed` stands in for an unknown `allowed_then`.
pub fn proportional(shares: &[Share], desired: i32, allowed: i32, observed: i32) -> Vec<i32> {
    let total: i32 = shares.iter().map(|share| share.replicas).sum();
    let change = allowed - total;
    let mut changed = 0;
    let mut result = Vec::with_capacity(shares.len());
    for share in shares {
        let fraction = proportion(*share, desired, allowed, observed);
        let left = change - changed;
        let step = match change.signum() {
            1 => fraction.clamp(0, left.max(0)),
            -1 => fraction.clamp(left.min(0), 0),
            _ => 0,
        };
        let step = step.max(-share.replicas);
        changed += step;
        result.push(share.replicas + step);
    }
    // What rounding left over goes to the first sets that can take it.
    let mut left = change - changed;
    for replicas in &mut result {
        if left == 0 {
            break;
        }
        let step = left.max(-*replicas);
        *replicas += step;
        left -= step;
    }
    result
}

/// By how much one set should change, alone.
fn proportion(share: Share, desired: i32, allowed: i32, observed: i32) -> i32 {
    if share.replicas == 0 {
        return 0;
    }
    if desired == 0 {
        return -share.replicas;
    }
    let then = share.allowed_then.filter(|then| *then > 0).unwrap_or(observed);
    if then <= 0 {
        return 0;
    }
    let exact = i64::from(share.replicas) * i64::from(allowed);
    let rounded = (2 * exact + i64::from(then)) / (2 * i64::from(then));
    i32::try_from(rounded)
        .unwrap_or(i32::MAX)
        .saturating_sub(share.replicas)
}

/// How many replicas the new set should have: as many as wanted, and no more than the surge leaves room for.
/// `taken` is what all sets, the new one too, may hold at this moment.
pub fn new_set(desired: i32, surge: i32, current: i32, taken: i32) -> i32 {
    let room = desired.saturating_add(surge).saturating_sub(taken).max(0);
    if current >= desired {
        desired
    } else {
        current + room.min(desired - current)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(number: i32) -> IntOrString {
        IntOrString::String(format!("{number}%"))
    }

    #[test]
    fn percentages_round_away_from_standing_still() {
        assert_eq!(
            Bounds::resolve(&percent(25), &percent(25), 10),
            Bounds {
                surge: 3,
                unavailable: 2
            }
        );
        assert_eq!(
            Bounds::resolve(&IntOrString::Int(1), &IntOrString::Int(0), 3),
            Bounds {
                surge: 1,
                unavailable: 0
            }
        );
        assert_eq!(
            Bounds::resolve(&percent(0), &percent(10), 3),
            Bounds {
                surge: 0,
                unavailable: 1
            }
        );
        assert_eq!(
            Bounds::resolve(&IntOrString::Int(0), &IntOrString::Int(5), 3),
            Bounds {
                surge: 0,
                unavailable: 3
            }
        );
        assert_eq!(
            Bounds::resolve(&percent(100), &percent(100), 0),
            Bounds {
                surge: 0,
                unavailable: 0
            }
        );
    }

    #[test]
    fn machines_are_shared_as_a_deployment_shares_pods() {
        let shares = [
            Share {
                replicas: 8,
                allowed_then: Some(13),
            },
            Share {
                replicas: 5,
                allowed_then: Some(13),
            },
        ];
        assert_eq!(proportional(&shares, 15, 18, 13), [11, 7]);
        assert_eq!(proportional(&shares, 0, 0, 13), [0, 0]);
        let unknown = [
            Share {
                replicas: 3,
                allowed_then: None,
            },
            Share {
                replicas: 0,
                allowed_then: None,
            },
        ];
        assert_eq!(proportional(&unknown, 5, 6, 3), [6, 0]);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_no_set_goes_the_wrong_way(
            replicas in prop::collection::vec((0..200_i32, prop::option::of(0..400_i32)), 1..6),
            desired in 0..500_i32,
            surge in 0..50_i32,
        ) {
            let shares: Vec<Share> =
                replicas.into_iter().map(|(replicas, allowed_then)| Share { replicas, allowed_then }).collect();
            let total: i32 = shares.iter().map(|share| share.replicas).sum();
            let allowed = if desired == 0 { 0 } else { desired + surge };
            let result = proportional(&shares, desired, allowed, total);
            prop_assert_eq!(result.iter().sum::<i32>(), allowed);
            for (share, after) in shares.iter().zip(&result) {
                prop_assert!(*after >= 0);
                if allowed >= total { prop_assert!(*after >= share.replicas) } else { prop_assert!(*after <= share.replicas) }
            }
        }

        #[test]
        fn the_new_set_never_exceeds_the_surge(
            desired in 0..300_i32, surge in 0..50_i32, current in 0..300_i32, others in 0..300_i32,
        ) {
            let taken = current + others;
            let after = new_set(desired, surge, current, taken);
            prop_assert!(after <= desired);
            prop_assert!(after <= current || others + after <= desired + surge);
            prop_assert!(after >= current.min(desired));
        }

        #[test]
        fn bounds_always_let_something_move(replicas in 1..1000_i32, surge in 0..100_i32, unavailable in 0..100_i32) {
            let bounds = Bounds::resolve(&percent(surge), &percent(unavailable), replicas);
            prop_assert!(bounds.surge > 0 || bounds.unavailable > 0);
            prop_assert!(bounds.unavailable <= replicas);
        }
    }
}
