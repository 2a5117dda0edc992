//! The errors of the whole run, each judged by the rules that hold for all errors. What is
//! judged here was seen by the other tests; without them there is nothing to judge.

use crate::context::Context;

use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

pub fn rules() -> Vec<Rule> {
    vec![
        judged(
            "errors.one-error-info",
            Critical,
            "Each error of the provider carries exactly one ErrorInfo.",
        ),
        judged("errors.domain", Major, "The domain of each ErrorInfo is actuator.v1."),
        judged("errors.registered-reason", Major, "Each reason is registered."),
        judged("errors.code-of-reason", Major, "Each reason comes with its own code."),
        judged(
            "errors.effect-is-told",
            Critical,
            "Each error carries exactly one OperationOutcome, and its effect is told.",
        ),
        judged(
            "errors.effect-is-allowed",
            Critical,
            "No reason comes with an effect that its row of the table rules out.",
        ),
        judged("errors.message-is-short", Minor, "No message is longer than 1 KiB."),
        judged("errors.status-is-small", Major, "No whole status is larger than 4 KiB."),
        judged(
            "errors.details-agree",
            Minor,
            "The details of an error are a google.rpc.Status of the same code.",
        ),
        judged(
            "errors.retry-info",
            Minor,
            "Each RetryInfo has a delay that is not below zero.",
        ),
    ]
}

fn judged(id: &'static str, severity: crate::rule::Severity, sentence: &'static str) -> Rule {
    Rule::required(id, severity, sentence, move |context| {
        std::future::ready(judge(&context, id))
    })
    .last()
}

fn judge(context: &Context, id: &'static str) -> Verdict {
    let noticed = context.calls.shared().noticed.lock();
    let mut broken: Vec<&String> = noticed
        .errors
        .iter()
        .filter(|(rule, _)| *rule == id)
        .map(|(_, words)| words)
        .collect();
    broken.sort();
    broken.dedup();
    if let Some(first) = broken.first() {
        let more = broken.len() - 1;
        return Err(Stop::broken(if more == 0 {
            (*first).clone()
        } else {
            format!("{first}, and {more} more")
        }));
    }
    if noticed.errors_seen == 0 {
        return Err(Stop::skipped("no error was seen in this run"));
    }
    Ok(())
}
