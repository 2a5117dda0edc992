//! The rules, a file for each part of the protocol. Each rule is one sentence of the
//! contract and one test that can fail.

mod cluster;
mod concurrency;
mod console;
mod crashes;
mod create;
mod create_refused;
mod delete;
mod discovery;
mod endpoint;
mod errors;
mod exists;
mod health;
mod identity;
mod last;
mod list;
mod machine_types;
mod schema;
mod security;
mod transport;
mod update;
mod validation;
mod watch;

use crate::rule::Rule;

/// Every rule, in the order of the report.
pub fn all() -> Vec<Rule> {
    [
        discovery::rules(),
        identity::rules(),
        schema::rules(),
        health::rules(),
        transport::rules(),
        validation::rules(),
        create::rules(),
        create_refused::rules(),
        exists::rules(),
        update::rules(),
        delete::rules(),
        concurrency::rules(),
        cluster::rules(),
        endpoint::rules(),
        list::rules(),
        watch::rules(),
        console::rules(),
        machine_types::rules(),
        crashes::rules(),
        security::rules(),
        errors::rules(),
        last::rules(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique_and_sentences_are_sentences() {
        let mut ids = BTreeSet::new();
        for rule in all() {
            assert!(ids.insert(rule.id), "{} is there twice", rule.id);
            let (part, name) = rule.id.split_once('.').expect("part.name");
            let kebab = |text: &str| {
                text.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            };
            assert!(kebab(part) && kebab(name), "{}", rule.id);
            assert!(
                rule.sentence.ends_with('.') && rule.sentence.len() > 20,
                "{}: {}",
                rule.id,
                rule.sentence
            );
        }
        assert!(ids.len() >= 110, "{} rules", ids.len());
    }
}
