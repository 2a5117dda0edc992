//! `IdentityService`: what a provider is and whether it can work.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use actuator_proto::discovery::v1::GetProtocolsRequest;
use actuator_proto::limits::{MAX_BOOTSTRAP_BYTES, MAX_PAGE_ITEMS, MAX_STRING_BYTES, MAX_TEXT_BYTES};
use actuator_proto::v1::{self, BootstrapFormat, ConfigTarget, Readiness};

use crate::context::Context;
use crate::holds;
use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Verdict,
};

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required(
            "identity.agrees-with-discovery",
            Major,
            "GetInfo tells the same name, version and instance_id as GetProtocols.",
            agrees,
        ),
        Rule::required(
            "identity.same-answer",
            Major,
            "GetInfo answers the same for the life of the process.",
            same,
        ),
        Rule::required(
            "identity.bootstrap-limit",
            Major,
            "The largest bootstrap data is told: at least 1 byte, at most 1 MiB.",
            bootstrap_limit,
        ),
        Rule::required(
            "identity.page-limit",
            Minor,
            "The largest page is told: at most 500 items.",
            page_limit,
        ),
        Rule::required("identity.limits-are-no-debts", Minor, "No limit is below zero.", limits),
        Rule::required(
            "identity.timings-are-sane",
            Minor,
            "Recommended deadlines, windows and intervals are above zero and at most an hour.",
            timings,
        ),
        Rule::required(
            "identity.provider-id-prefix",
            Major,
            "The prefix of machines' ids is told, in at most 256 bytes.",
            prefix,
        ),
        Rule::required(
            "identity.config-kinds",
            Critical,
            "There is a config kind for clusters and one for machines, each with a schema version.",
            config_kinds,
        ),
        Rule::required(
            "identity.config-kinds-are-named-once",
            Minor,
            "Each config kind is named once, in CamelCase, and its versions are told once.",
            kinds_once,
        ),
        Rule::required(
            "identity.credential-keys",
            Minor,
            "Each credential key is named once and described.",
            credential_keys,
        ),
        Rule::required(
            "identity.bootstrap-formats",
            Major,
            "At least one bootstrap format is told, each once, none unspecified.",
            formats,
        ),
        Rule::required(
            "identity.probe-is-answered",
            Major,
            "Probe tells a readiness that this protocol knows.",
            probe,
        ),
        Rule::required(
            "identity.probe-checks",
            Minor,
            "Each check of Probe is named once in kebab-case, with a message of at most 1 KiB.",
            probe_checks,
        ),
        Rule::required(
            "identity.probe-becomes-ready",
            Major,
            "A provider that was started becomes READY.",
            ready,
        ),
        Rule::required(
            "identity.probe-from-memory",
            Major,
            "Probe is answered from memory: fifty at once within the deadline of one.",
            probe_at_once,
        ),
        Rule::required(
            "identity.needs-no-credentials",
            Major,
            "Discovery and identity need no credentials and no metadata.",
            no_credentials,
        ),
    ]
}

async fn agrees(context: Context) -> Verdict {
    let (info, protocols) = (
        context.ask(v1::GetInfoRequest {}).await?,
        context.ask(GetProtocolsRequest {}).await?,
    );
    for (what, told, discovered) in [
        ("name", &info.name, &protocols.name),
        ("version", &info.vendor_version, &protocols.version),
        ("instance_id", &info.instance_id, &protocols.instance_id),
    ] {
        holds!(
            told == discovered,
            "GetInfo has the {what} {told:?}, GetProtocols {discovered:?}"
        );
    }
    Ok(())
}

async fn same(context: Context) -> Verdict {
    let first = context.ask(v1::GetInfoRequest {}).await?;
    for _ in 0..10 {
        let other = context.ask(v1::GetInfoRequest {}).await?;
        holds!(other == first, "it answered {first:?} and then {other:?}");
    }
    Ok(())
}

fn told_limits(context: &Context) -> v1::Limits {
    context.info.limits.unwrap_or_default()
}

async fn bootstrap_limit(context: Context) -> Verdict {
    let most = told_limits(&context).max_bootstrap_bytes;
    holds!(
        (1..=MAX_BOOTSTRAP_BYTES as i64).contains(&most),
        "max_bootstrap_bytes is {most}"
    );
    Ok(())
}

async fn page_limit(context: Context) -> Verdict {
    let most = told_limits(&context).max_page_size;
    holds!((0..=MAX_PAGE_ITEMS as i32).contains(&most), "max_page_size is {most}");
    Ok(())
}

async fn limits(context: Context) -> Verdict {
    let limits = told_limits(&context);
    holds!(
        limits.max_concurrent_mutations >= 0 && limits.max_name_length >= 0 && limits.max_page_size >= 0,
        "the limits are {limits:?}"
    );
    Ok(())
}

async fn timings(context: Context) -> Verdict {
    let timings = context.info.timings.unwrap_or_default();
    for (what, told) in [
        ("mutation_deadline", timings.mutation_deadline),
        ("exists_deadline", timings.exists_deadline),
        ("read_after_write", timings.read_after_write),
        ("poll_interval", timings.poll_interval),
    ] {
        let Some(told) = told else { continue };
        let length = Duration::try_from(told);
        // Reads that show writes at once have a window of nothing.
        let zero_fits = what == "read_after_write";
        let sane = length.is_ok_and(|length| (zero_fits || !length.is_zero()) && length <= Duration::from_hours(1));
        holds!(sane, "{what} is {told:?}");
    }
    Ok(())
}

async fn prefix(context: Context) -> Verdict {
    let prefix = &context.info.provider_id_prefix;
    holds!(
        !prefix.is_empty() && prefix.len() <= MAX_STRING_BYTES,
        "the prefix is {prefix:?}"
    );
    Ok(())
}

async fn config_kinds(context: Context) -> Verdict {
    for target in [ConfigTarget::Cluster, ConfigTarget::Machine] {
        let found = context.info.config_kinds.iter().find(|kind| kind.target() == target);
        holds!(
            found.is_some_and(|kind| !kind.schema_versions.is_empty()),
            "no kind with a schema version has the target {}",
            target.as_str_name()
        );
    }
    Ok(())
}

async fn kinds_once(context: Context) -> Verdict {
    let mut seen = BTreeSet::new();
    for kind in &context.info.config_kinds {
        let name = &kind.kind;
        let camel = name.chars().next().is_some_and(|c| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric());
        holds!(camel && name.len() <= MAX_STRING_BYTES, "{name:?} is no CamelCase");
        holds!(seen.insert(name), "{name} is named twice");
        holds!(kind.target() != ConfigTarget::Unspecified, "{name} has no target");
        let versions: BTreeSet<_> = kind.schema_versions.iter().collect();
        holds!(
            versions.len() == kind.schema_versions.len() && !versions.contains(&String::new()),
            "the versions of {name} are {:?}",
            kind.schema_versions
        );
    }
    Ok(())
}

async fn credential_keys(context: Context) -> Verdict {
    let mut seen = BTreeSet::new();
    for key in &context.info.credential_keys {
        holds!(
            !key.name.is_empty() && seen.insert(&key.name),
            "the key {:?} is empty or named twice",
            key.name
        );
        holds!(!key.description.is_empty(), "the key {:?} is not described", key.name);
    }
    Ok(())
}

async fn formats(context: Context) -> Verdict {
    let formats: Vec<BootstrapFormat> = context.info.bootstrap_formats().collect();
    let once: BTreeSet<i32> = context.info.bootstrap_formats.iter().copied().collect();
    holds!(
        !formats.is_empty() && once.len() == formats.len() && !formats.contains(&BootstrapFormat::Unspecified),
        "the formats are {formats:?}"
    );
    Ok(())
}

async fn probe(context: Context) -> Verdict {
    let readiness = context.ask(v1::ProbeRequest {}).await?.readiness;
    holds!(
        Readiness::try_from(readiness).is_ok_and(|known| known != Readiness::Unspecified),
        "it is {readiness}"
    );
    Ok(())
}

async fn probe_checks(context: Context) -> Verdict {
    let mut seen = BTreeSet::new();
    for check in context.ask(v1::ProbeRequest {}).await?.checks {
        let kebab = !check.name.is_empty()
            && check
                .name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        holds!(
            kebab && seen.insert(check.name.clone()),
            "the check {:?} is no kebab-case or named twice",
            check.name
        );
        holds!(
            check.message.len() <= MAX_TEXT_BYTES,
            "the message of {} has {} bytes",
            check.name,
            check.message.len()
        );
    }
    Ok(())
}

async fn ready(context: Context) -> Verdict {
    let end = Instant::now() + context.config.timeouts.restart;
    loop {
        let answer = context.ask(v1::ProbeRequest {}).await?;
        if answer.readiness() == Readiness::Ready {
            return Ok(());
        }
        holds!(
            Instant::now() < end,
            "it is {} still: {:?}",
            answer.readiness().as_str_name(),
            answer.checks
        );
        context.pause(None).await;
    }
}

async fn probe_at_once(context: Context) -> Verdict {
    futures::future::try_join_all((0..50).map(|_| context.ask(v1::ProbeRequest {}))).await?;
    Ok(())
}

async fn no_credentials(context: Context) -> Verdict {
    // A connection of its own: nothing was said on it before.
    let fresh = context.with(context.connection().await?);
    fresh.ask(GetProtocolsRequest {}).await?;
    fresh.ask(v1::GetInfoRequest {}).await?;
    fresh.ask(v1::ProbeRequest {}).await?;
    Ok(())
}
