//! What the whole run has shown, and what it has left.

use actuator_proto::v1::{self, ConfigTarget, Presence};

use crate::context::Context;
use crate::holds;
use crate::ledger::Kind;
use crate::rule::{
    Capability, Rule,
    Severity::{Critical, Major},
    Stop, Verdict,
};

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required(
            "last.deadlines",
            Major,
            "In the whole run every call ended soon after its deadline.",
            deadlines,
        )
        .last(),
        Rule::required(
            "last.answers-are-readable",
            Major,
            "In the whole run every answer was the message that it should be.",
            readable,
        )
        .last(),
        Rule::required(
            "last.answers-are-bounded",
            Major,
            "In the whole run no answer was larger than 4 MiB.",
            bounded,
        )
        .last(),
        Rule::required(
            "last.still-the-same-process",
            Major,
            "The provider that answers at the end is the one that answered first, unless it was restarted.",
            same_process,
        )
        .last(),
        Rule::required(
            "last.every-key-is-absent",
            Critical,
            "At the end every key that was used is ABSENT.",
            every_key,
        )
        .last(),
        Rule::required(
            "last.no-machine-is-listed",
            Critical,
            "At the end no machine of the run is listed.",
            no_machine,
        )
        .with(Capability::ListMachines)
        .last(),
        Rule::required(
            "last.no-cluster-is-listed",
            Critical,
            "At the end no cluster of the run is listed.",
            no_cluster,
        )
        .with(Capability::ListClusters)
        .last(),
        Rule::required(
            "last.sweep-left-nothing",
            Critical,
            "Everything that the run made could be removed.",
            swept,
        )
        .last(),
    ]
}

fn none(found: &[String]) -> Verdict {
    holds!(
        found.is_empty(),
        "{}{}",
        found[0],
        if found.len() > 1 {
            format!(", and {} more", found.len() - 1)
        } else {
            String::new()
        }
    );
    Ok(())
}

async fn deadlines(context: Context) -> Verdict {
    none(&context.calls.shared().noticed.lock().late)
}

async fn readable(context: Context) -> Verdict {
    none(&context.calls.shared().noticed.lock().unreadable)
}

async fn bounded(context: Context) -> Verdict {
    none(&context.calls.shared().noticed.lock().oversized)
}

async fn same_process(context: Context) -> Verdict {
    if context.suite.restart.is_some() {
        return Err(Stop::inapplicable("the suite restarted it on purpose"));
    }
    let now = context.ask(v1::GetInfoRequest {}).await?.instance_id;
    holds!(
        now == context.info.instance_id,
        "the process was replaced during the run: did it crash?"
    );
    Ok(())
}

async fn every_key(context: Context) -> Verdict {
    let mut present = Vec::new();
    for entry in context.calls.shared().ledger.all_entries() {
        let (reference, credentials) = (Some(entry.reference()), Some(context.good.clone()));
        let patience = context.config.timeouts.gone;
        let presence = match entry.kind {
            Kind::Machine => {
                let request = v1::MachineExistsRequest {
                    r#ref: reference,
                    credentials,
                    ..Default::default()
                };
                context.settle(request, patience).await?.presence()
            }
            Kind::Cluster => {
                let request = v1::ClusterExistsRequest {
                    r#ref: reference,
                    credentials,
                    ..Default::default()
                };
                context.settle(request, patience).await?.presence()
            }
        };
        if presence != Presence::Absent {
            present.push(format!(
                "{:?} {} ({}) is {}",
                entry.kind,
                entry.key,
                entry.name,
                presence.as_str_name()
            ));
        }
    }
    none(&present)
}

async fn no_machine(context: Context) -> Verdict {
    let request = v1::ListMachinesRequest {
        management_cluster_id: context.management_cluster_id(),
        credentials: Some(context.good.clone()),
        config: Some(context.valid(ConfigTarget::Cluster)),
        ..Default::default()
    };
    let left = context.settle(request, context.config.timeouts.ready).await?.machines;
    none(
        &left
            .iter()
            .map(|machine| format!("{} is listed", machine.idempotency_key))
            .collect::<Vec<_>>(),
    )
}

async fn no_cluster(context: Context) -> Verdict {
    let request = v1::ListClustersRequest {
        management_cluster_id: context.management_cluster_id(),
        credentials: Some(context.good.clone()),
        config: Some(context.valid(ConfigTarget::Cluster)),
        ..Default::default()
    };
    let left = context.settle(request, context.config.timeouts.ready).await?.clusters;
    none(
        &left
            .iter()
            .map(|cluster| format!("{} is listed", cluster.idempotency_key))
            .collect::<Vec<_>>(),
    )
}

async fn swept(context: Context) -> Verdict {
    let left = context.calls.shared().ledger.open_entries();
    none(
        &left
            .iter()
            .map(|entry| format!("{:?} {} ({}) was not removed", entry.kind, entry.key, entry.name))
            .collect::<Vec<_>>(),
    )
}
