//! `clusterctl apply`: server-side apply of manifests, for a machine without kubectl.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, ResourceExt as _};

use crate::cli::ApplyArgs;
use crate::client;

/// Who owns the fields that we apply.
const FIELD_MANAGER: &str = "clusterctl";

/// Applies every object of every file, in their order. Nothing is applied unless all files parse.
pub async fn run(args: ApplyArgs) -> anyhow::Result<()> {
    let mut objects = Vec::new();
    for file in &args.files {
        objects.extend(read(file)?);
    }
    let client = client::connect(&args.connection).await?;
    let mut output = std::io::stdout().lock();
    for object in objects {
        let applied = apply(&client, object, args.force_conflicts).await?;
        writeln!(output, "{applied}")?;
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<DynamicObject>> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("failed to read the manifest from standard input")?;
        text
    } else {
        std::fs::read_to_string(file).with_context(|| format!("failed to read the manifest {}", file.display()))?
    };
    parse(&text).with_context(|| format!("{} is no manifest", file.display()))
}

/// The objects of a manifest; documents that are empty or only comments are passed over.
fn parse(text: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for (index, document) in kube_documents(text).into_iter().enumerate() {
        let value: serde_json::Value = serde_saphyr::from_str(&document)
            .with_context(|| format!("document {} is not well-formed YAML", index + 1))?;
        if value.is_null() {
            continue;
        }
        let object: DynamicObject =
            serde_json::from_value(value).with_context(|| format!("document {} is no Kubernetes object", index + 1))?;
        if object.types.is_none() || object.metadata.name.is_none() {
            bail!("document {} needs apiVersion, kind and metadata.name", index + 1);
        }
        objects.push(object);
    }
    if objects.is_empty() {
        bail!("it holds no object");
    }
    Ok(objects)
}

/// Splits at lines that are exactly `---`, as kubectl does.
fn kube_documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.trim_end() == "---" {
            documents.push(String::new());
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents.retain(|document| {
        document
            .lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    documents
}

async fn apply(client: &Client, object: DynamicObject, force: bool) -> anyhow::Result<String> {
    let types = object.types.clone().context("an object without apiVersion and kind")?;
    let kind = GroupVersionKind::try_from(&types)
        .with_context(|| format!("apiVersion {:?} is not well-formed", types.api_version))?;
    let (resource, capabilities) = pinned_kind(client, &kind)
        .await
        .with_context(|| format!("the API server does not know {} of {}", types.kind, types.api_version))?;
    let name = object.name_any();
    let api: Api<DynamicObject> = match (&capabilities.scope, object.namespace()) {
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), &namespace, &resource),
        (Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), &resource),
    };
    let mut parameters = PatchParams::apply(FIELD_MANAGER).validation_strict();
    parameters.force = force;
    let title = format!("{}.{}/{name}", types.kind.to_lowercase(), kind.group).replace("./", "/");
    let before = api
        .get_metadata_opt(&name)
        .await
        .ok()
        .flatten()
        .and_then(|meta| meta.metadata.resource_version);
    let after = api
        .patch(&name, &parameters, &Patch::Apply(&object))
        .await
        .map_err(|error| anyhow::anyhow!("{title}: {}", sentence(&error)))?;
    let what = match before {
        None => "created",
        Some(version) if after.metadata.resource_version.as_deref() == Some(version.as_str()) => "unchanged",
        Some(_) => "configured",
    };
    Ok(format!("{title} {what}"))
}

/// What the API server said, without the client's wrapping.
fn sentence(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_and_empty_ones_passed_over() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n---\n\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata:\n  script: |\n    a\n    --- b\n";
        let objects = parse(text).expect("parses");
        let names: Vec<_> = objects.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("", "holds no object"),
            ("a: [", "not well-formed YAML"),
            (
                "kind: Secret\napiVersion: v1\n",
                "needs apiVersion, kind and metadata.name",
            ),
        ] {
            let error = format!("{:#}", parse(text).expect_err("must fail"));
            assert!(error.contains(words), "{error}");
        }
    }
}
