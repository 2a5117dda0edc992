//! `ListMachineTypes`: what the autoscaler scales from zero with.

use std::collections::BTreeSet;

use actuator_proto::limits::{MAX_PAGE_BYTES, MAX_PAGE_ITEMS};
use actuator_proto::v1::{self, ConfigTarget, MachinePhase};
use prost::Message as _;

use crate::context::Context;
use crate::holds;
use crate::rule::{
    Capability, Rule,
    Severity::{Major, Minor},
    Stop, Verdict,
};

const MOST_PAGES: usize = 1000;

pub fn rules() -> Vec<Rule> {
    let capability = Capability::MachineTypes;
    vec![
        Rule::required(
            "machine-types.are-complete",
            Minor,
            "Each machine type has a name, processors, memory and an architecture, and is listed once.",
            complete,
        )
        .with(capability),
        Rule::required(
            "machine-types.pages",
            Minor,
            "Pages of one item bring the same types as large pages.",
            pages,
        )
        .with(capability),
        Rule::required(
            "machine-types.by-name",
            Minor,
            "With a name only that type is listed; with an unknown one none.",
            by_name,
        )
        .with(capability),
        Rule::required(
            "machine-types.prices",
            Minor,
            "A price comes with a currency, is not below zero, and comes if prices are advertised.",
            prices,
        )
        .with(capability),
        Rule::required(
            "machine-types.availability",
            Minor,
            "Availability names failure domains, each once a type.",
            availability,
        )
        .with(capability),
        Rule::required(
            "machine-types.has-the-machines-own",
            Major,
            "The type of a running machine is among them.",
            own,
        )
        .with(capability)
        .machines(1),
    ]
}

async fn all(context: &Context, page_size: i32, name: &str) -> Result<Vec<v1::MachineType>, Stop> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let request = v1::ListMachineTypesRequest {
            page: Some(v1::PageRequest { page_size, page_token }),
            config: Some(context.valid(ConfigTarget::Cluster)),
            credentials: Some(context.good.clone()),
            name: name.to_owned(),
        };
        let answer = context.settle(request, context.config.timeouts.ready).await?;
        let (items, bytes) = (answer.machine_types.len(), answer.encoded_len());
        let most = if page_size > 0 {
            page_size as usize
        } else {
            MAX_PAGE_ITEMS
        };
        holds!(
            items <= most && bytes <= MAX_PAGE_BYTES,
            "a page has {items} items and {bytes} bytes"
        );
        found.extend(answer.machine_types);
        if answer.next_page_token.is_empty() {
            return Ok(found);
        }
        page_token = answer.next_page_token;
    }
    Err(Stop::broken(format!("the list did not end after {MOST_PAGES} pages")))
}

fn names(types: &[v1::MachineType]) -> BTreeSet<&str> {
    types.iter().map(|kind| kind.name.as_str()).collect()
}

async fn complete(context: Context) -> Verdict {
    let types = all(&context, 0, "").await?;
    holds!(!types.is_empty(), "no type is listed");
    holds!(names(&types).len() == types.len(), "a type is listed twice");
    for kind in &types {
        holds!(
            !kind.name.is_empty() && kind.cpu_millis > 0 && kind.memory_bytes > 0 && !kind.architecture.is_empty(),
            "{kind:?} lacks something"
        );
    }
    Ok(())
}

async fn pages(context: Context) -> Verdict {
    let (large, small) = (all(&context, 0, "").await?, all(&context, 1, "").await?);
    holds!(
        names(&large) == names(&small) && large.len() == small.len(),
        "{} types in large pages, {} in pages of one",
        large.len(),
        small.len()
    );
    Ok(())
}

async fn by_name(context: Context) -> Verdict {
    let types = all(&context, 0, "").await?;
    let Some(first) = types.first() else {
        return Err(Stop::broken("no type is listed"));
    };
    let found = all(&context, 0, &first.name).await?;
    holds!(
        found.len() == 1 && found[0].name == first.name,
        "asked for {:?}, {:?} came",
        first.name,
        names(&found)
    );
    let none = all(&context, 0, "no-such-type").await?;
    holds!(none.is_empty(), "asked for an unknown one, {:?} came", names(&none));
    Ok(())
}

async fn prices(context: Context) -> Verdict {
    let advertised = context
        .info
        .capabilities
        .and_then(|told| told.machine_types)
        .is_some_and(|types| types.prices);
    for kind in all(&context, 0, "").await? {
        match kind.price_micros_per_hour {
            Some(price) => {
                holds!(price >= 0, "{} costs {price}", kind.name);
                holds!(
                    kind.currency.len() == 3,
                    "{} has a price in {:?}",
                    kind.name,
                    kind.currency
                );
            }
            None => holds!(!advertised, "prices are advertised, and {} has none", kind.name),
        }
    }
    Ok(())
}

async fn availability(context: Context) -> Verdict {
    for kind in all(&context, 0, "").await? {
        let domains: BTreeSet<&str> = kind
            .availability
            .iter()
            .map(|place| place.failure_domain.as_str())
            .collect();
        holds!(
            domains.len() == kind.availability.len() && !domains.contains(""),
            "{} is available in {:?}",
            kind.name,
            kind.availability
        );
    }
    Ok(())
}

async fn own(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "typed");
    context.create(&request).await?;
    let status = context.phase(&request, MachinePhase::Running).await?;
    let found = all(&context, 0, &status.machine_type).await?;
    holds!(
        found.len() == 1,
        "the machine is a {:?}, of which {} are listed",
        status.machine_type,
        found.len()
    );
    Ok(())
}
