//! The differences that stay, each with its reason: `differences.yaml`.
//!
//! The list is checked both ways: a difference that is not on it fails its case, and so does
//! an entry that no longer differs.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use crate::compare::Difference;

/// One difference that stays.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// `file::case`.
    pub case: String,
    /// The step, from 0.
    pub step: usize,
    /// The places, as the test prints them; a trailing `*` takes in all that begin so.
    pub places: Vec<String>,
    /// Why it stays.
    pub reason: String,
}

/// Reads `differences.yaml`.
pub fn read(path: &Path) -> anyhow::Result<Vec<Known>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not a list of differences", path.display()))
}

/// What is wrong with a case that differs so: unknown differences, and known ones that are no more.
pub fn unexpected(case: &str, found: &[Difference], known: &[Known]) -> Vec<String> {
    let known: Vec<&Known> = known.iter().filter(|known| known.case == case).collect();
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for difference in found {
        let matching = known.iter().enumerate().find_map(|(entry, known)| {
            let place = known.places.iter().position(|place| covers(place, &difference.place))?;
            (known.step == difference.step).then_some((entry, place))
        });
        match matching {
            Some(place) => {
                used.insert(place);
            }
            None => wrong.push(difference.to_string()),
        }
    }
    for (entry, known) in known.iter().enumerate() {
        for (index, place) in known.places.iter().enumerate() {
            if !used.contains(&(entry, index)) {
                wrong.push(format!(
                    "  step {} {place} is in differences.yaml, but the servers agree there; take it off the list",
                    known.step
                ));
            }
        }
    }
    wrong
}

fn covers(pattern: &str, place: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => place.starts_with(start),
        None => pattern == place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(step: usize, place: &str) -> Difference {
        Difference {
            step,
            place: place.to_owned(),
            embedded: None,
            real: None,
        }
    }

    #[test]
    fn the_list_is_checked_both_ways() {
        let known = [Known {
            case: "a::b".to_owned(),
            step: 1,
            places: vec!["/body/x*".to_owned()],
            reason: "because".to_owned(),
        }];
        assert!(unexpected("a::b", &[difference(1, "/body/x/y")], &known).is_empty());
        assert_eq!(unexpected("a::b", &[difference(2, "/body/x/y")], &known).len(), 2);
        assert_eq!(unexpected("a::b", &[], &known).len(), 1);
        assert_eq!(unexpected("a::c", &[difference(1, "/body/x")], &known).len(), 1);
    }
}
