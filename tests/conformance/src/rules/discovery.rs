//! `actuator.discovery.v1`: what a provider is, before anything else is known of it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use actuator_proto::PACKAGE_V1;
use actuator_proto::discovery::v1::{GetProtocolsRequest, Stability};
use actuator_proto::limits::MAX_STRING_BYTES;
use regex::Regex;

use crate::context::Context;
use crate::holds;
use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Verdict,
};

#[allow(clippy::expect_used)] // constants
static PACKAGE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[a-z][a-z0-9_.]*\.v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?$").expect("a constant"));

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required(
            "discovery.name-is-a-dns-label",
            Major,
            "The provider's name is a DNS label of at most 63 bytes.",
            name,
        ),
        Rule::required(
            "discovery.version-is-told",
            Minor,
            "The version is told, in at most 256 bytes.",
            version,
        ),
        Rule::required(
            "discovery.instance-id-is-told",
            Major,
            "The instance_id is told, in at most 64 bytes.",
            instance_id,
        ),
        Rule::required(
            "discovery.instance-id-stays",
            Major,
            "The instance_id is the same on every connection for the life of the process.",
            instance_id_stays,
        ),
        Rule::required(
            "discovery.serves-v1",
            Critical,
            "actuator.v1 is among the protocols, stable or deprecated.",
            serves_v1,
        ),
        Rule::required(
            "discovery.packages-are-well-formed",
            Minor,
            "Each package is named once, as a protobuf package with a version, and its stability is told and fits its name.",
            packages,
        ),
        Rule::required(
            "discovery.same-answer",
            Major,
            "GetProtocols answers the same each time.",
            same,
        ),
        Rule::required(
            "discovery.twenty-at-once",
            Major,
            "GetProtocols is answered from memory: twenty at once get the same answer.",
            at_once,
        ),
    ]
}

async fn name(context: Context) -> Verdict {
    let name = context.ask(GetProtocolsRequest {}).await?.name;
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    holds!(
        !name.is_empty()
            && name.len() <= 63
            && name.chars().all(inner)
            && !name.starts_with('-')
            && !name.ends_with('-'),
        "the name is {name:?}"
    );
    Ok(())
}

async fn version(context: Context) -> Verdict {
    let version = context.ask(GetProtocolsRequest {}).await?.version;
    holds!(
        !version.is_empty() && version.len() <= MAX_STRING_BYTES,
        "the version is {version:?}"
    );
    Ok(())
}

async fn instance_id(context: Context) -> Verdict {
    let id = context.ask(GetProtocolsRequest {}).await?.instance_id;
    holds!(
        !id.is_empty() && id.len() <= 64,
        "the instance_id has {} bytes",
        id.len()
    );
    Ok(())
}

async fn instance_id_stays(context: Context) -> Verdict {
    let first = context.ask(GetProtocolsRequest {}).await?.instance_id;
    for _ in 0..3 {
        let other = context
            .with(context.connection().await?)
            .ask(GetProtocolsRequest {})
            .await?
            .instance_id;
        holds!(
            other == first,
            "it was {first:?} on one connection and {other:?} on another"
        );
    }
    Ok(())
}

async fn serves_v1(context: Context) -> Verdict {
    let protocols = context.ask(GetProtocolsRequest {}).await?.protocols;
    let found = protocols.iter().find(|protocol| protocol.package == PACKAGE_V1);
    let stability = found.map(actuator_proto::discovery::v1::Protocol::stability);
    holds!(
        matches!(stability, Some(Stability::Stable | Stability::Deprecated)),
        "{PACKAGE_V1} has the stability {stability:?}"
    );
    Ok(())
}

async fn packages(context: Context) -> Verdict {
    let protocols = context.ask(GetProtocolsRequest {}).await?.protocols;
    let mut seen = BTreeSet::new();
    for protocol in &protocols {
        let package = &protocol.package;
        holds!(
            PACKAGE.is_match(package) && package.len() <= MAX_STRING_BYTES,
            "{package:?} is no versioned package"
        );
        holds!(seen.insert(package), "{package} is named twice");
        let stability = protocol.stability();
        holds!(
            stability != Stability::Unspecified,
            "the stability of {package} is not told"
        );
        let unstable = package.contains("alpha") || package.contains("beta");
        holds!(
            !(unstable && stability == Stability::Stable),
            "{package} is said to be stable"
        );
    }
    Ok(())
}

async fn same(context: Context) -> Verdict {
    let first = context.ask(GetProtocolsRequest {}).await?;
    for _ in 0..5 {
        let other = context.ask(GetProtocolsRequest {}).await?;
        holds!(other == first, "it answered {first:?} and then {other:?}");
    }
    Ok(())
}

async fn at_once(context: Context) -> Verdict {
    let asked = (0..20).map(|_| context.ask(GetProtocolsRequest {}));
    let answers = futures::future::try_join_all(asked).await?;
    holds!(answers.windows(2).all(|pair| pair[0] == pair[1]), "the answers differ");
    Ok(())
}
