//! `clusterctl describe cluster`: the objects of a cluster as a tree, with what is not
//! well about each. [`tree`] is pure, [`draw`] makes text of it.

pub mod draw;
pub mod tree;

use std::io::Write as _;

use anyhow::Context as _;
use futures::future::try_join_all;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};

use crate::cli::DescribeClusterArgs;
use crate::client;

/// The kinds below a Cluster, with their plurals; what is new in the API is added here.
const KINDS: [(&str, &str); 3] = [
    ("MachineDeployment", "machinedeployments"),
    ("MachineSet", "machinesets"),
    ("Machine", "machines"),
];
const PAGE: u32 = 500;

/// Draws one Cluster.
pub async fn run(args: DescribeClusterArgs) -> anyhow::Result<()> {
    let client = client::connect(&args.connection).await?;
    let root = read(&client, &args.name).await?;
    let options = draw::Options {
        all_conditions: args.show_conditions,
        all_machines: args.show_machines,
        now: jiff::Timestamp::now(),
    };
    std::io::stdout().write_all(draw::draw(&root, &options).as_bytes())?;
    Ok(())
}

/// Reads a Cluster with everything that names it.
pub async fn read(client: &Client, name: &str) -> anyhow::Result<tree::Node> {
    let cluster = api(client, "Cluster", "clusters")
        .get_opt(name)
        .await
        .with_context(|| format!("failed to read the Cluster {name}"))?
        .with_context(|| {
            format!(
                "there is no Cluster {name} in the namespace {}; see `kubectl get clusters -A`",
                client.default_namespace()
            )
        })?;
    let lists = try_join_all(KINDS.iter().map(|(kind, plural)| list(client, kind, plural))).await?;
    Ok(tree::build(&cluster, lists.iter().flatten()))
}

fn api(client: &Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "cluster.outrigger.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "cluster.outrigger.dev/v1alpha1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    Api::default_namespaced_with(client.clone(), &resource)
}

async fn list(client: &Client, kind: &str, plural: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let api = api(client, kind, plural);
    let mut objects = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = api
            .list(&parameters)
            .await
            .with_context(|| format!("failed to list the {plural}"))?;
        let token = page.metadata.continue_.clone().filter(|token| !token.is_empty());
        objects.extend(page.items.into_iter().map(|mut object| {
            // Items of a list do not repeat their kind.
            object.types.get_or_insert_with(|| kube::core::TypeMeta {
                api_version: "cluster.outrigger.dev/v1alpha1".to_owned(),
                kind: kind.to_owned(),
            });
            object
        }));
        match token {
            Some(token) => parameters = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(objects),
        }
    }
}
