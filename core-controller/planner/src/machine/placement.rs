//! Where a machine is put when it matters to nobody: first where the provider likes,
//! and where that has no room, in another failure domain of the cluster.
//! Not for: machines that name a failure domain, beyond waiting for room in it.

use std::hash::{Hash as _, Hasher as _};

use jiff::Timestamp;

/// What is known about where the machine may go.
pub(super) struct Question<'a> {
    /// The domain that the spec names.
    pub asked_for: Option<&'a str>,
    /// The domain that was chosen before, from the status.
    pub chosen: Option<&'a str>,
    /// The cluster's domains that are fit for the machine.
    pub domains: Vec<&'a str>,
    /// The domains that had no room for this machine, "" for the provider's choice, and
    /// from when on they may be tried again.
    pub exhausted: &'a [(String, Timestamp)],
    /// The domains that had no room for siblings a short while ago.
    pub exhausted_for_siblings: &'a [String],
    /// The machine's UID: spreads the machines of a set over the domains.
    pub uid: &'a str,
}

/// Where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placement {
    /// Here; `None`: where the provider likes.
    Here(Option<String>),
    /// Here, once that is written down: a replay has to ask for the same.
    Choose(String),
    /// Nowhere before this.
    NoRoomBefore(Timestamp),
}

impl Question<'_> {
    pub fn answer(&self, now: Timestamp) -> Placement {
        let closed = |domain: &str| {
            self.exhausted
                .iter()
                .find(|(other, until)| other == domain && *until > now)
                .map(|(_, until)| *until)
        };
        if let Some(domain) = self.asked_for {
            return match closed(domain) {
                Some(until) => Placement::NoRoomBefore(until),
                None => Placement::Here(Some(domain.to_owned())),
            };
        }
        let current = self.chosen.unwrap_or_default();
        let siblings_failed = |domain: &str| self.exhausted_for_siblings.iter().any(|other| other == domain);
        let here = || Placement::Here(self.chosen.map(str::to_owned));
        let current_closed = closed(current);
        if current_closed.is_none() && !siblings_failed(current) {
            return here();
        }
        let open: Vec<&str> = self
            .domains
            .iter()
            .copied()
            .filter(|domain| *domain != current && closed(domain).is_none())
            .collect();
        let fresh: Vec<&str> = open.iter().copied().filter(|domain| !siblings_failed(domain)).collect();
        let pick = |domains: &[&str]| {
            let mut hasher = fnv::FnvHasher::default();
            self.uid.hash(&mut hasher);
            let index = usize::try_from(hasher.finish() % (domains.len().max(1) as u64)).unwrap_or_default();
            domains.get(index).map(|domain| Placement::Choose((*domain).to_owned()))
        };
        if let Some(choice) = pick(&fresh) {
            return choice;
        }
        match current_closed {
            // Only siblings had no luck, and nowhere else is better: it may try itself.
            None => here(),
            Some(until) => pick(&open).unwrap_or_else(|| {
                let first = self
                    .domains
                    .iter()
                    .filter_map(|domain| closed(domain))
                    .chain([until])
                    .min()
                    .unwrap_or(until);
                Placement::NoRoomBefore(first)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn question<'a>(exhausted: &'a [(String, Timestamp)], siblings: &'a [String]) -> Question<'a> {
        Question {
            asked_for: None,
            chosen: None,
            domains: vec!["a", "b"],
            exhausted,
            exhausted_for_siblings: siblings,
            uid: "u",
        }
    }

    #[test]
    fn the_provider_chooses_first() {
        assert_eq!(question(&[], &[]).answer(at(0)), Placement::Here(None));
    }

    #[test]
    fn without_room_each_domain_is_tried_once_and_then_it_waits_for_the_first_to_open() {
        let mut exhausted = vec![(String::new(), at(120))];
        let Placement::Choose(first) = question(&exhausted, &[]).answer(at(0)) else {
            panic!("there are other domains")
        };
        // Written down, it is asked for, again and again.
        let mut with_choice = question(&exhausted, &[]);
        with_choice.chosen = Some(&first);
        assert_eq!(with_choice.answer(at(0)), Placement::Here(Some(first.clone())));
        exhausted.push((first.clone(), at(100)));
        let mut with_choice = question(&exhausted, &[]);
        with_choice.chosen = Some(&first);
        let Placement::Choose(second) = with_choice.answer(at(0)) else {
            panic!("one domain is left")
        };
        assert_ne!(first, second);
        exhausted.push((second.clone(), at(130)));
        let mut with_choice = question(&exhausted, &[]);
        with_choice.chosen = Some(&second);
        assert_eq!(with_choice.answer(at(0)), Placement::NoRoomBefore(at(100)));
        assert_eq!(with_choice.answer(at(100)), Placement::Choose(first));
    }

    #[test]
    fn a_domain_that_was_asked_for_is_waited_for() {
        let exhausted = [("a".to_owned(), at(120))];
        let mut asked = question(&exhausted, &[]);
        asked.asked_for = Some("a");
        assert_eq!(asked.answer(at(0)), Placement::NoRoomBefore(at(120)));
        assert_eq!(asked.answer(at(120)), Placement::Here(Some("a".into())));
    }

    #[test]
    fn siblings_are_learned_from_where_there_is_a_choice() {
        let siblings = [String::new(), "a".to_owned()];
        assert_eq!(question(&[], &siblings).answer(at(0)), Placement::Choose("b".into()));
        let siblings = [String::new(), "a".to_owned(), "b".to_owned()];
        assert_eq!(question(&[], &siblings).answer(at(0)), Placement::Here(None));
    }
}
