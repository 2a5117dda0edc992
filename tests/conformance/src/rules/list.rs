//! `ListMachines` and `ListClusters`: what orphans are found by.

use std::collections::BTreeMap;

use actuator_proto::limits::{MAX_PAGE_BYTES, MAX_PAGE_ITEMS};
use actuator_proto::v1::{self, ConfigTarget, ErrorReason};
use prost::Message as _;

use crate::context::Context;
use crate::holds;
use crate::requests::{self, Created as _};
use crate::rule::{
    Capability, Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

/// More pages than any run fills: a list that does not end is broken.
const MOST_PAGES: usize = 1000;

pub fn rules() -> Vec<Rule> {
    let machines = Capability::ListMachines;
    let clusters = Capability::ListClusters;
    vec![
        Rule::required(
            "list.has-every-machine",
            Critical,
            "Every machine of the management cluster is listed, with its key and ownership.",
            every,
        )
        .with(machines)
        .machines(3),
        Rule::required(
            "list.ownership-is-complete",
            Critical,
            "The ownership of a listed machine is the one that it was created with.",
            ownership,
        )
        .with(machines)
        .machines(1),
        Rule::required(
            "list.pages",
            Major,
            "Pages of one item bring the same machines as one page, each once.",
            pages,
        )
        .with(machines)
        .machines(3),
        Rule::required(
            "list.page-size-is-a-bound",
            Minor,
            "No page has more items than were asked for, than 500, or than 1 MiB.",
            page_size,
        )
        .with(machines)
        .machines(2),
        Rule::required(
            "list.bad-page-token",
            Minor,
            "A page token that is none is refused with PAGE_TOKEN_EXPIRED or INVALID_FIELD.",
            bad_token,
        )
        .with(machines),
        Rule::required(
            "list.bad-page-size",
            Minor,
            "A page size below zero or above 500 is refused, or clamped.",
            bad_size,
        )
        .with(machines),
        Rule::required(
            "list.other-management-cluster",
            Critical,
            "Machines of another management cluster are not listed.",
            other_management,
        )
        .with(machines)
        .machines(1),
        Rule::required(
            "list.one-cluster",
            Major,
            "With a cluster's UID only its machines are listed.",
            one_cluster,
        )
        .with(machines)
        .machines(1),
        Rule::required(
            "list.gone-machines",
            Major,
            "A machine that is gone is not listed any more.",
            gone,
        )
        .with(machines)
        .machines(1),
        Rule::required(
            "list.needs-management-cluster",
            Critical,
            "A list without a management cluster is refused with INVALID_FIELD: it would show what is not ours.",
            no_management,
        )
        .with(machines),
        Rule::required(
            "list.bad-credentials",
            Critical,
            "With credentials that the cloud refuses a list is an error, never empty.",
            bad_credentials,
        )
        .with(machines),
        Rule::required(
            "list.has-every-cluster",
            Critical,
            "Every cluster of the management cluster is listed, with its key and ownership.",
            every_cluster,
        )
        .with(clusters),
        Rule::required(
            "list.gone-clusters",
            Major,
            "A cluster that is gone is not listed any more.",
            gone_cluster,
        )
        .with(clusters),
    ]
}

fn request(context: &Context) -> v1::ListMachinesRequest {
    v1::ListMachinesRequest {
        management_cluster_id: context.management_cluster_id(),
        credentials: Some(context.good.clone()),
        config: Some(context.valid(ConfigTarget::Cluster)),
        ..Default::default()
    }
}

/// Every machine that a request lists, over all pages; the sizes of the pages.
async fn all(
    context: &Context,
    request: v1::ListMachinesRequest,
    page_size: i32,
) -> Result<(Vec<v1::ListedMachine>, Vec<usize>), Stop> {
    let (mut found, mut sizes, mut page_token) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let page = v1::PageRequest {
            page_size,
            page_token: page_token.clone(),
        };
        let answer = context
            .settle(
                v1::ListMachinesRequest {
                    page: Some(page),
                    ..request.clone()
                },
                context.config.timeouts.ready,
            )
            .await?;
        let bytes = answer.encoded_len();
        holds!(
            answer.machines.len() <= MAX_PAGE_ITEMS && bytes <= MAX_PAGE_BYTES,
            "a page has {} items and {bytes} bytes",
            answer.machines.len()
        );
        sizes.push(answer.machines.len());
        found.extend(answer.machines);
        if answer.next_page_token.is_empty() {
            return Ok((found, sizes));
        }
        holds!(
            answer.next_page_token != page_token,
            "the next page token is that of this page"
        );
        page_token = answer.next_page_token;
    }
    Err(Stop::broken(format!("the list did not end after {MOST_PAGES} pages")))
}

/// By key; each key once.
fn by_key(machines: Vec<v1::ListedMachine>) -> Result<BTreeMap<String, v1::ListedMachine>, Stop> {
    let mut found = BTreeMap::new();
    for machine in machines {
        // The same key in another cluster is another machine; this suite makes none.
        let key = machine.idempotency_key.clone();
        holds!(found.insert(key.clone(), machine).is_none(), "{key:?} is listed twice");
    }
    Ok(found)
}

async fn made(context: &Context, label: &str) -> Result<(v1::CreateMachineRequest, String), Stop> {
    let request = context.create_machine(&*context.cluster().await?, label);
    let id = context.create(&request).await?.provider_id;
    Ok((request, id))
}

/// Lists until the machines are in it, for as long as reads may lag.
async fn listed(context: &Context, wanted: &[String]) -> Result<BTreeMap<String, v1::ListedMachine>, Stop> {
    tokio::time::sleep(context.read_after_write()).await;
    let found = by_key(all(context, request(context), 0).await?.0)?;
    for key in wanted {
        holds!(found.contains_key(key), "{key} was made and is not listed");
    }
    Ok(found)
}

async fn every(context: Context) -> Verdict {
    let mut wanted = BTreeMap::new();
    for label in ["one", "two", "three"] {
        let (request, id) = made(&context, label).await?;
        wanted.insert(request.key(), id);
    }
    let found = listed(&context, &wanted.keys().cloned().collect::<Vec<_>>()).await?;
    for (key, id) in wanted {
        let told = found[&key].status.clone().unwrap_or_default().provider_id;
        holds!(told == id, "{key} is {id:?} and listed as {told:?}");
    }
    Ok(())
}

async fn ownership(context: Context) -> Verdict {
    let (request, _) = made(&context, "owner").await?;
    let found = listed(&context, &[request.key()]).await?;
    let told = found[&request.key()].ownership.clone().unwrap_or_default();
    let wanted = request.ownership.clone().unwrap_or_default();
    holds!(
        told.management_cluster_id == wanted.management_cluster_id
            && told.cluster_uid == wanted.cluster_uid
            && told.object_uid == wanted.object_uid,
        "it was made with {wanted:?} and is listed with {told:?}"
    );
    holds!(
        found[&request.key()].created_at.is_some(),
        "created_at is not told: orphans are judged by their age"
    );
    Ok(())
}

async fn pages(context: Context) -> Verdict {
    let mut keys = Vec::new();
    for label in ["one", "two", "three"] {
        keys.push(made(&context, label).await?.0.key());
    }
    tokio::time::sleep(context.read_after_write()).await;
    let paged = by_key(all(&context, request(&context), 1).await?.0)?;
    for key in &keys {
        holds!(paged.contains_key(key), "{key} is on no page");
    }
    Ok(())
}

async fn page_size(context: Context) -> Verdict {
    made(&context, "one").await?;
    made(&context, "two").await?;
    tokio::time::sleep(context.read_after_write()).await;
    let (_, sizes) = all(&context, request(&context), 1).await?;
    holds!(
        sizes.iter().all(|size| *size <= 1),
        "one item a page was asked for, the pages have {sizes:?}"
    );
    Ok(())
}

async fn bad_token(context: Context) -> Verdict {
    let page = v1::PageRequest {
        page_size: 10,
        page_token: "no-such-token".to_owned(),
    };
    let answer = context
        .calls
        .call(v1::ListMachinesRequest {
            page: Some(page),
            ..request(&context)
        })
        .await;
    context
        .refused(
            answer,
            &[ErrorReason::PageTokenExpired, ErrorReason::InvalidField],
            "a page token that is none",
        )
        .map(|_| ())
}

async fn bad_size(context: Context) -> Verdict {
    for page_size in [-1, MAX_PAGE_ITEMS as i32 + 1] {
        let page = v1::PageRequest {
            page_size,
            page_token: String::new(),
        };
        let answer = context
            .calls
            .call(v1::ListMachinesRequest {
                page: Some(page),
                ..request(&context)
            })
            .await;
        match answer {
            Ok(answer) => holds!(
                answer.machines.len() <= MAX_PAGE_ITEMS,
                "a page has {} items",
                answer.machines.len()
            ),
            Err(status) => {
                let reasons = [ErrorReason::InvalidField, ErrorReason::LimitExceeded];
                context.refused::<()>(Err(status), &reasons, &format!("a page size of {page_size}"))?;
            }
        }
    }
    Ok(())
}

async fn other_management(context: Context) -> Verdict {
    let (made, _) = made(&context, "ours").await?;
    tokio::time::sleep(context.read_after_write()).await;
    let mut other = request(&context);
    other.management_cluster_id.push_str("-other");
    let found = by_key(all(&context, other, 0).await?.0)?;
    holds!(
        !found.contains_key(&made.key()),
        "it is listed for another management cluster"
    );
    let foreign = found.values().find(|machine| {
        machine
            .ownership
            .as_ref()
            .is_none_or(|ownership| ownership.management_cluster_id == context.management_cluster_id())
    });
    holds!(
        foreign.is_none(),
        "{foreign:?} is listed for another management cluster"
    );
    Ok(())
}

async fn one_cluster(context: Context) -> Verdict {
    let (made, _) = made(&context, "inside").await?;
    tokio::time::sleep(context.read_after_write()).await;
    let cluster = context.cluster().await?;
    let mine = v1::ListMachinesRequest {
        cluster_uid: cluster.uid.clone(),
        ..request(&context)
    };
    let found = by_key(all(&context, mine, 0).await?.0)?;
    holds!(found.contains_key(&made.key()), "it is not listed for its cluster");
    let other = v1::ListMachinesRequest {
        cluster_uid: requests::new_key(),
        ..request(&context)
    };
    let (found, _) = all(&context, other, 0).await?;
    holds!(
        found.is_empty(),
        "{} machines are listed for a cluster that is not there",
        found.len()
    );
    Ok(())
}

async fn gone(context: Context) -> Verdict {
    let (made, _) = made(&context, "gone").await?;
    listed(&context, &[made.key()]).await?;
    context.delete(&made).await?;
    tokio::time::sleep(context.read_after_write()).await;
    let found = by_key(all(&context, request(&context), 0).await?.0)?;
    holds!(!found.contains_key(&made.key()), "it is GONE and listed");
    Ok(())
}

async fn no_management(context: Context) -> Verdict {
    let answer = context
        .calls
        .call(v1::ListMachinesRequest {
            management_cluster_id: String::new(),
            ..request(&context)
        })
        .await;
    context
        .refused(
            answer,
            &[ErrorReason::InvalidField],
            "a list of every management cluster",
        )
        .map(|_| ())
}

async fn bad_credentials(context: Context) -> Verdict {
    let Some(bad) = context.bad.clone() else {
        return Err(Stop::skipped("the config has no credentials.bad"));
    };
    let answer = context
        .calls
        .call(v1::ListMachinesRequest {
            credentials: Some(bad),
            ..request(&context)
        })
        .await;
    let reasons = [
        ErrorReason::CredentialsInvalid,
        ErrorReason::CredentialsExpired,
        ErrorReason::MissingPermission,
    ];
    context
        .refused(answer, &reasons, "a list with bad credentials")
        .map(|_| ())
}

async fn clusters(context: &Context) -> Result<Vec<v1::ListedCluster>, Stop> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let request = v1::ListClustersRequest {
            management_cluster_id: context.management_cluster_id(),
            page: Some(v1::PageRequest {
                page_size: 1,
                page_token,
            }),
            credentials: Some(context.good.clone()),
            config: Some(context.valid(ConfigTarget::Cluster)),
        };
        let answer = context.settle(request, context.config.timeouts.ready).await?;
        holds!(
            answer.clusters.len() <= 1,
            "a page of one has {} clusters",
            answer.clusters.len()
        );
        found.extend(answer.clusters);
        if answer.next_page_token.is_empty() {
            return Ok(found);
        }
        page_token = answer.next_page_token;
    }
    Err(Stop::broken(format!("the list did not end after {MOST_PAGES} pages")))
}

async fn every_cluster(context: Context) -> Verdict {
    let mut wanted = Vec::new();
    for label in ["one", "two"] {
        wanted.push(context.ready_cluster(context.create_cluster(label)).await?);
    }
    tokio::time::sleep(context.read_after_write()).await;
    let found = clusters(&context).await?;
    for cluster in wanted {
        let mine: Vec<_> = found
            .iter()
            .filter(|listed| listed.idempotency_key == cluster.uid)
            .collect();
        holds!(mine.len() == 1, "{} is listed {} times", cluster.uid, mine.len());
        let told = mine[0].ownership.clone().unwrap_or_default();
        holds!(
            told.management_cluster_id == context.management_cluster_id() && told.cluster_uid == cluster.uid,
            "it is listed with {told:?}"
        );
        let id = mine[0].status.clone().unwrap_or_default().provider_id;
        holds!(
            id == cluster.status.provider_id,
            "it is {:?} and listed as {id:?}",
            cluster.status.provider_id
        );
    }
    Ok(())
}

async fn gone_cluster(context: Context) -> Verdict {
    let cluster = context.ready_cluster(context.create_cluster("gone")).await?;
    context
        .delete_cluster(requests::delete_cluster(&cluster.request))
        .await?;
    tokio::time::sleep(context.read_after_write()).await;
    let found = clusters(&context).await?;
    holds!(
        found.iter().all(|listed| listed.idempotency_key != cluster.uid),
        "it is GONE and listed"
    );
    Ok(())
}
