//! What a run found: for people, as JSON, as JUnit.

pub mod errors;
mod junit;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::calls::Exchange;
use crate::rule::{Capability, Rule, Stop, Tier};

/// How one test ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The rule's id.
    pub id: String,
    /// The sentence that was checked.
    pub sentence: String,
    /// `required`, the name of a capability, or `faults`.
    pub tier: String,
    /// `critical`, `major` or `minor`.
    pub severity: String,
    /// How it ended.
    pub ended: Ended,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub words: String,
    /// How long it took.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
    /// What was sent and received, without secrets; only of tests that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<Call>,
}

/// One call of a test that failed.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// Service and method.
    pub call: String,
    /// What was sent.
    pub sent: String,
    /// What came back.
    pub received: String,
    /// In milliseconds.
    pub millis: u128,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// The rule holds.
    Passed,
    /// The rule is broken.
    Failed,
    /// It could not be looked at, for want of a config, a hook or a budget.
    Skipped,
    /// The provider does not advertise the capability.
    NotAdvertised,
    /// The rule says nothing about this provider or endpoint.
    Inapplicable,
    /// Left out by `--focus` or `--skip`.
    LeftOut,
}

impl Outcome {
    /// The outcome of a rule.
    pub fn new(rule: &Rule, verdict: Result<(), Stop>, took: Duration, exchanges: Vec<Exchange>) -> Self {
        let (ended, words) = match verdict {
            Ok(()) => (Ended::Passed, String::new()),
            Err(Stop::Broken(words)) => (Ended::Failed, words),
            Err(Stop::Skipped(words)) => (Ended::Skipped, words),
            Err(Stop::Inapplicable(words)) => (Ended::Inapplicable, words),
        };
        let exchanges = if ended == Ended::Failed { exchanges } else { Vec::new() };
        Self {
            exchanges: exchanges.into_iter().map(Call::from).collect(),
            ..Self::without_run(rule, ended, words, took)
        }
    }

    /// The outcome of a rule that was not looked at.
    pub fn not_run(rule: &Rule, ended: Ended, words: impl Into<String>) -> Self {
        Self::without_run(rule, ended, words.into(), Duration::ZERO)
    }

    fn without_run(rule: &Rule, ended: Ended, words: String, took: Duration) -> Self {
        Self {
            id: rule.id.to_owned(),
            sentence: rule.sentence.to_owned(),
            tier: rule.tier.to_string(),
            severity: rule.severity.to_string(),
            ended,
            words,
            took,
            exchanges: Vec::new(),
        }
    }
}

impl From<Exchange> for Call {
    fn from(exchange: Exchange) -> Self {
        Self {
            call: exchange.call,
            sent: exchange.sent,
            received: exchange.received,
            millis: exchange.took.as_millis(),
        }
    }
}

fn seconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64())
}

/// What a run found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The provider's name.
    pub provider: String,
    /// Its version.
    pub version: String,
    /// The run's id, which is in every name that it made.
    pub run: String,
    /// Whether all required rules hold, and those of all advertised capabilities.
    pub conforms: bool,
    /// Capabilities that the provider does not advertise.
    pub not_advertised: Vec<String>,
    /// What may be left in the cloud: keys whose removal the provider did not confirm.
    pub left_behind: Vec<String>,
    /// How each test ended.
    pub outcomes: Vec<Outcome>,
    /// How long it took.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
}

/// Whether these outcomes make a provider that conforms: skipped is not passed.
///
/// Rules left out on purpose (`--focus`, `--skip`) make no verdict about a whole provider
/// either way: the run that leaves out something required does not conform.
pub fn conforms(outcomes: &[Outcome], faults_required: bool) -> bool {
    let faults = Tier::Faults.to_string();
    outcomes.iter().all(|outcome| match outcome.ended {
        Ended::Passed | Ended::NotAdvertised | Ended::Inapplicable => true,
        Ended::Failed => false,
        Ended::Skipped | Ended::LeftOut => outcome.tier == faults && !faults_required,
    })
}

impl Report {
    /// Whether all required rules hold, and those of all advertised capabilities.
    pub fn conforms(&self) -> bool {
        self.conforms
    }

    /// How many tests ended so.
    pub fn count(&self, ended: Ended) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.ended == ended).count()
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// As JUnit's XML.
    pub fn junit(&self) -> String {
        junit::render(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outcome in &self.outcomes {
            if outcome.ended == Ended::Failed {
                write!(formatter, "{}", Failure(outcome))?;
            }
        }
        for outcome in self.outcomes.iter().filter(|outcome| outcome.ended == Ended::Skipped) {
            writeln!(formatter, "skipped {}: {}", outcome.id, outcome.words)?;
        }
        if !self.not_advertised.is_empty() {
            writeln!(formatter, "not advertised: {}", self.not_advertised.join(", "))?;
        }
        for left in &self.left_behind {
            writeln!(formatter, "left behind: {left}")?;
        }
        writeln!(
            formatter,
            "{} {} (run {}): {} passed, {} failed, {} skipped, {} do not apply, {} of capabilities not advertised, {} left out, in {:.1} s",
            self.provider,
            self.version,
            self.run,
            self.count(Ended::Passed),
            self.count(Ended::Failed),
            self.count(Ended::Skipped),
            self.count(Ended::Inapplicable),
            self.count(Ended::NotAdvertised),
            self.count(Ended::LeftOut),
            self.took.as_secs_f64()
        )?;
        write!(
            formatter,
            "{}",
            if self.conforms {
                "the provider conforms"
            } else {
                "the provider does not conform, or not all was looked at"
            }
        )
    }
}

/// One failure, for people: the sentence, how it was broken, what was sent and received.
struct Failure<'a>(&'a Outcome);

/// The last exchanges say most.
const SHOWN_EXCHANGES: usize = 6;

impl fmt::Display for Failure<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.0;
        writeln!(
            formatter,
            "FAILED {} ({}, {})",
            outcome.id, outcome.tier, outcome.severity
        )?;
        writeln!(formatter, "  rule:     {}", outcome.sentence)?;
        writeln!(formatter, "  broken:   {}", outcome.words)?;
        let hidden = outcome.exchanges.len().saturating_sub(SHOWN_EXCHANGES);
        if hidden > 0 {
            writeln!(formatter, "  ({hidden} calls before; --json has them)")?;
        }
        for exchange in &outcome.exchanges[hidden..] {
            writeln!(formatter, "  {} ({} ms)", exchange.call, exchange.millis)?;
            if !exchange.sent.is_empty() {
                writeln!(formatter, "    sent:     {}", exchange.sent)?;
            }
            writeln!(formatter, "    received: {}", exchange.received)?;
        }
        Ok(())
    }
}

/// One line a test, while a run goes on.
pub fn line(outcome: &Outcome) -> String {
    let mark = match outcome.ended {
        Ended::Passed => "ok     ",
        Ended::Failed => "FAILED ",
        Ended::Skipped => "skipped",
        Ended::NotAdvertised | Ended::Inapplicable | Ended::LeftOut => "-      ",
    };
    let why = match outcome.words.as_str() {
        "" => String::new(),
        words => format!(": {words}"),
    };
    format!("{mark} {} ({:.2} s){why}", outcome.id, outcome.took.as_secs_f64())
}

/// The names of the capabilities that are missing.
pub fn missing(capabilities: &actuator_proto::v1::Capabilities) -> Vec<String> {
    Capability::ALL
        .into_iter()
        .filter(|capability| !capability.advertised(capabilities))
        .map(|capability| capability.name().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Severity;

    fn outcome(tier: Tier, ended: Ended) -> Outcome {
        let mut rule = Rule::required("a.b", Severity::Major, "It holds.", |_| async { Ok(()) });
        rule.tier = tier;
        Outcome::not_run(&rule, ended, "")
    }

    #[test]
    fn skipped_is_not_passed() {
        let capability = Tier::Capability(Capability::ListMachines);
        for (tier, ended, conform) in [
            (Tier::Required, Ended::Passed, true),
            (Tier::Required, Ended::Failed, false),
            (Tier::Required, Ended::Skipped, false),
            (Tier::Required, Ended::LeftOut, false),
            (capability, Ended::NotAdvertised, true),
            (Tier::Required, Ended::Inapplicable, true),
            (capability, Ended::Failed, false),
            (capability, Ended::Skipped, false),
            (Tier::Faults, Ended::Skipped, true),
            (Tier::Faults, Ended::Failed, false),
        ] {
            assert_eq!(conforms(&[outcome(tier, ended)], false), conform, "{tier} {ended:?}");
        }
        assert!(!conforms(&[outcome(Tier::Faults, Ended::Skipped)], true));
    }
}
