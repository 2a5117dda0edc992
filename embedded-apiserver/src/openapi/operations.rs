//! The paths and operations of a resource.
//!
//! For: what tools learn of verbs, parameters and content types. Not for: schemas.

use super::ResourceInfo;
use super::schemas::{Dialect, list_name_of, name_of};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// Adds all paths of a resource.
pub(super) fn add_paths(resource: &ResourceInfo, dialect: Dialect, paths: &mut Map<String, Value>) {
    let builder = Builder { resource, dialect };
    let base = resource.base_path();
    let plural = &resource.plural;
    let collection = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{base}/{plural}")
    };
    let mut add = |path: String, item: Value| {
        if item
            .as_object()
            .is_some_and(|item| item.keys().any(|key| key != "parameters"))
        {
            paths.insert(path, item);
        }
    };
    add(collection.clone(), builder.collection());
    let item = format!("{collection}/{{name}}");
    if resource.namespaced && builder.has("list") {
        add(format!("{base}/{plural}"), builder.all_namespaces());
    }
    add(item.clone(), builder.item());
    if resource.status {
        add(
            format!("{item}/status"),
            builder.subresource("Status", &name_of(resource), None),
        );
    }
    if resource.scale {
        // Of a custom resource, even its scale is said to be of its own kind.
        let scale = (!builder.is_custom()).then_some(("autoscaling", "v1", "Scale"));
        add(
            format!("{item}/scale"),
            builder.subresource("Scale", "io.k8s.api.autoscaling.v1.Scale", scale),
        );
    }
    if resource.eviction {
        add(format!("{item}/eviction"), builder.eviction());
    }
    if builder.is_custom() {
        return;
    }
    add(format!("{base}/"), builder.available_resources());
    if builder.has("watch") {
        let watched = |path: &str| path.replacen(&base, &format!("{base}/watch"), 1);
        add(watched(&collection), builder.watch("List", false, resource.namespaced));
        add(watched(&item), builder.watch("", true, resource.namespaced));
        if resource.namespaced {
            let path = format!("{base}/watch/{plural}");
            add(path, builder.watch("ListForAllNamespaces", false, false));
        }
    }
}

struct Builder<'resource> {
    resource: &'resource ResourceInfo,
    dialect: Dialect,
}

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
const RESOURCES: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The query parameters, in the words of the API reference.
static PARAMETERS: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("parameters.json")).unwrap_or_default());

impl Builder<'_> {
    fn has(&self, verb: &str) -> bool {
        self.resource.verbs.iter().any(|known| known == verb)
    }

    fn parameter(&self, name: &str, place: &str, kind: &str, description: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place, "description": description});
        match self.dialect {
            Dialect::V2 => {
                parameter["type"] = json!(kind);
                parameter["uniqueItems"] = json!(true);
            }
            Dialect::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
        }
        if place == "path" {
            parameter["required"] = json!(true);
        }
        parameter
    }

    fn query(&self, name: &str) -> Value {
        let known = PARAMETERS.get(name);
        let text = |field: &str| known.and_then(|known| known[field].as_str()).unwrap_or_default();
        let plain = name.split(' ').next().unwrap_or_default();
        self.parameter(plain, "query", text("type"), text("description"))
    }

    fn queries(&self, names: &[&str]) -> Vec<Value> {
        names.iter().map(|name| self.query(name)).collect()
    }

    fn path_parameters(&self, named: bool, namespaced: bool) -> Value {
        let mut parameters = Vec::new();
        if named {
            parameters.push(self.parameter("name", "path", "string", &format!("name of the {}", self.resource.kind)));
        }
        if namespaced {
            let description = "object name and auth scope, such as for teams and projects";
            parameters.push(self.parameter("namespace", "path", "string", description));
        }
        parameters.push(self.query("pretty"));
        Value::Array(parameters)
    }

    fn list_parameters(&self) -> Vec<Value> {
        self.queries(&[
            "allowWatchBookmarks",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "sendInitialEvents",
            "timeoutSeconds",
            "watch",
        ])
    }

    fn write_parameters(&self) -> Vec<Value> {
        self.queries(&["dryRun", "fieldManager", "fieldValidation"])
    }

    /// A get of a custom resource may name a revision; those of built-in kinds do not say so.
    fn read_parameters(&self) -> Vec<Value> {
        if self.is_custom() {
            self.queries(&["resourceVersion"])
        } else {
            Vec::new()
        }
    }

    fn is_custom(&self) -> bool {
        self.resource.schema.is_some()
    }

    fn delete_parameters(&self) -> Vec<Value> {
        self.queries(&[
            "dryRun",
            "gracePeriodSeconds",
            "ignoreStoreReadErrorWithClusterBreakingPotential",
            "orphanDependents",
            "propagationPolicy",
        ])
    }

    /// One operation; `kind` is the group, version and kind it is about if that is not the resource's own.
    #[allow(clippy::too_many_arguments)] // each is a distinct part of an operation
    fn operation(
        &self,
        verb: &str,
        action: &str,
        suffix: &str,
        kind: Option<(&str, &str, &str)>,
        mut parameters: Vec<Value>,
        body: Option<&str>,
        answers: &[(&str, &str)],
    ) -> Value {
        let resource = self.resource;
        let group = title_group(&resource.group);
        let scope = if resource.namespaced && !suffix.ends_with("ForAllNamespaces") {
            "Namespaced"
        } else {
            ""
        };
        let version = capitalized(&resource.version);
        let kind_of_it = &resource.kind;
        let identifier = if suffix == "Collection" {
            format!("{verb}{group}{version}Collection{scope}{kind_of_it}")
        } else {
            format!("{verb}{group}{version}{scope}{kind_of_it}{suffix}")
        };
        let (kind_group, kind_version, kind_name) =
            kind.unwrap_or((&resource.group, &resource.version, &resource.kind));
        let streams = !self.is_custom() && matches!(action, "list" | "watch" | "watchlist");
        let mut produced = vec!["application/json", "application/yaml"];
        if streams {
            produced.insert(1, "application/json;stream=watch");
        }
        let mut operation = Map::new();
        let mut lower = group.chars();
        let tag: String = lower
            .next()
            .map(|first| first.to_ascii_lowercase())
            .into_iter()
            .chain(lower)
            .collect();
        operation.insert("tags".to_owned(), json!([format!("{tag}_{}", resource.version)]));
        operation.insert(
            "description".to_owned(),
            json!(describe(action, &resource.kind, suffix, self.is_custom())),
        );
        operation.insert("operationId".to_owned(), json!(identifier));
        let accepted: &[&str] = match (action, resource.schema.is_some()) {
            ("patch", true) => &[
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
            ],
            ("patch", false) => &[
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ],
            (_, false) => &["*/*"],
            (_, true) => &["application/json", "application/yaml"],
        };
        match self.dialect {
            Dialect::V2 => {
                if let Some(body) = body {
                    let required = action != "delete" && action != "deletecollection";
                    let schema = self.dialect.reference(body);
                    let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
                    if required {
                        parameter["required"] = json!(true);
                    }
                    parameters.insert(0, parameter);
                    operation.insert("consumes".to_owned(), json!(accepted));
                } else {
                    operation.insert("consumes".to_owned(), json!(["*/*"]));
                }
                operation.insert("produces".to_owned(), json!(produced));
                operation.insert("schemes".to_owned(), json!(["https"]));
            }
            Dialect::V3 => {
                if let Some(body) = body {
                    let content: Map<String, Value> = accepted
                        .iter()
                        .map(|kind| ((*kind).to_owned(), json!({"schema": self.dialect.reference(body)})))
                        .collect();
                    let mut request = json!({"content": content});
                    if action != "delete" && action != "deletecollection" {
                        request["required"] = json!(true);
                    }
                    operation.insert("requestBody".to_owned(), request);
                }
            }
        }
        if !parameters.is_empty() {
            operation.insert("parameters".to_owned(), Value::Array(parameters));
        }
        let mut responses = Map::new();
        for (code, schema) in answers {
            let description = match *code {
                "201" => "Created",
                "202" => "Accepted",
                _ => "OK",
            };
            let reference = self.dialect.reference(schema);
            let response = match self.dialect {
                Dialect::V2 => json!({"description": description, "schema": reference}),
                Dialect::V3 => {
                    let content: Map<String, Value> = produced
                        .iter()
                        .map(|kind| ((*kind).to_owned(), json!({"schema": reference})))
                        .collect();
                    json!({"description": description, "content": content})
                }
            };
            responses.insert((*code).to_owned(), response);
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        operation.insert("responses".to_owned(), Value::Object(responses));
        operation.insert("x-kubernetes-action".to_owned(), json!(action));
        operation.insert(
            "x-kubernetes-group-version-kind".to_owned(),
            json!({"group": kind_group, "kind": kind_name, "version": kind_version}),
        );
        Value::Object(operation)
    }

    fn collection(&self) -> Value {
        let (name, list) = (name_of(self.resource), list_name_of(self.resource));
        let mut item = json!({"parameters": self.path_parameters(false, self.resource.namespaced)});
        if self.has("list") {
            item["get"] = self.operation(
                "list",
                "list",
                "",
                None,
                self.list_parameters(),
                None,
                &[("200", &list)],
            );
        }
        if self.has("create") {
            let answers = [("200", name.as_str()), ("201", name.as_str()), ("202", name.as_str())];
            item["post"] = self.operation(
                "create",
                "post",
                "",
                None,
                self.write_parameters(),
                Some(&name),
                &answers,
            );
        }
        if self.has("deletecollection") {
            // Custom resources list the parameters of a list here, and no body.
            let mut parameters = self.list_parameters();
            if !self.is_custom() {
                parameters.retain(|parameter| {
                    !["allowWatchBookmarks", "watch"]
                        .iter()
                        .any(|name| parameter["name"] == *name)
                });
                parameters.extend(self.delete_parameters());
                parameters.sort_by_key(|parameter| parameter["name"].to_string());
            }
            item["delete"] = self.operation(
                "delete",
                "deletecollection",
                "Collection",
                None,
                parameters,
                (!self.is_custom()).then_some(DELETE_OPTIONS),
                &[("200", STATUS)],
            );
        }
        item
    }

    /// The old paths of watches.
    fn watch(&self, suffix: &str, named: bool, namespaced: bool) -> Value {
        let action = if named { "watch" } else { "watchlist" };
        let get = self.operation("watch", action, suffix, None, Vec::new(), None, &[("200", WATCH_EVENT)]);
        let mut parameters = self.list_parameters();
        if let Value::Array(more) = self.path_parameters(named, namespaced) {
            parameters.extend(more);
        }
        parameters.sort_by_key(|parameter| parameter["name"].to_string());
        json!({"get": get, "parameters": parameters})
    }

    /// Discovery of the version.
    fn available_resources(&self) -> Value {
        let (group, version) = (title_group(&self.resource.group), &self.resource.version);
        let mut get = self.operation("get", "get", "", None, Vec::new(), None, &[("200", RESOURCES)]);
        get["description"] = "get available resources".into();
        get["operationId"] = format!("get{group}{}APIResources", capitalized(version)).into();
        if let Some(get) = get.as_object_mut() {
            get.retain(|field, _| !field.starts_with("x-kubernetes"));
        }
        json!({"get": get})
    }

    fn all_namespaces(&self) -> Value {
        let list = list_name_of(self.resource);
        let get = self.operation(
            "list",
            "list",
            "ForAllNamespaces",
            None,
            Vec::new(),
            None,
            &[("200", &list)],
        );
        let mut parameters = self.list_parameters();
        parameters.push(self.query("pretty"));
        parameters.sort_by_key(|parameter| parameter["name"].to_string());
        json!({"get": get, "parameters": parameters})
    }

    fn item(&self) -> Value {
        let name = name_of(self.resource);
        let mut item = json!({"parameters": self.path_parameters(true, self.resource.namespaced)});
        if self.has("get") {
            item["get"] = self.operation("read", "get", "", None, self.read_parameters(), None, &[("200", &name)]);
        }
        if self.has("update") {
            let answers = [("200", name.as_str()), ("201", name.as_str())];
            item["put"] = self.operation(
                "replace",
                "put",
                "",
                None,
                self.write_parameters(),
                Some(&name),
                &answers,
            );
        }
        if self.has("patch") {
            item["patch"] = self.patch("", None, &name);
        }
        if self.has("delete") {
            // Custom resources are gone at once and answer with a status; so do most built-in kinds.
            item["delete"] = self.operation(
                "delete",
                "delete",
                "",
                None,
                self.delete_parameters(),
                Some(DELETE_OPTIONS),
                &[("200", STATUS), ("202", STATUS)],
            );
        }
        item
    }

    fn patch(&self, suffix: &str, kind: Option<(&str, &str, &str)>, name: &str) -> Value {
        let parameters = self.queries(&["dryRun", "fieldManager (patch)", "fieldValidation", "force"]);
        let answers = [("200", name), ("201", name)];
        let answers = if self.resource.schema.is_some() {
            &answers[..1]
        } else {
            &answers[..]
        };
        self.operation("patch", "patch", suffix, kind, parameters, Some(PATCH), answers)
    }

    fn subresource(&self, suffix: &str, name: &str, kind: Option<(&str, &str, &str)>) -> Value {
        let answers = [("200", name), ("201", name)];
        json!({
            "parameters": self.path_parameters(true, self.resource.namespaced),
            "get": self.operation("read", "get", suffix, kind, self.read_parameters(), None, &answers[..1]),
            "put": self.operation("replace", "put", suffix, kind, self.write_parameters(), Some(name), &answers),
            "patch": self.patch(suffix, kind, name),
        })
    }

    fn eviction(&self) -> Value {
        let name = "io.k8s.api.policy.v1.Eviction";
        let kind = Some(("policy", "v1", "Eviction"));
        let answers = [("200", name), ("201", name), ("202", name)];
        json!({
            "parameters": self.path_parameters(true, self.resource.namespaced),
            "post":
                self.operation("create", "post", "Eviction", kind, self.write_parameters(), Some(name), &answers),
        })
    }
}

/// The group in operation identifiers: `Core`, `RbacAuthorization`, `ClusterOutriggerDev`.
fn title_group(group: &str) -> String {
    if group.is_empty() {
        return "Core".to_owned();
    }
    group
        .strip_suffix(".k8s.io")
        .unwrap_or(group)
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .map(capitalized)
        .collect()
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + characters.as_str())
        .unwrap_or_default()
}

/// Plurals have none.
fn with_article(noun: &str) -> String {
    if noun.ends_with('s') && !noun.ends_with("ss") {
        return noun.to_owned();
    }
    let vowel = noun.starts_with(|letter: char| matches!(letter.to_ascii_lowercase(), 'a' | 'e' | 'i' | 'o' | 'u'));
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

fn describe(action: &str, kind: &str, suffix: &str, custom: bool) -> String {
    let part = match suffix {
        "Status" | "Scale" => format!("{} of the specified {kind}", suffix.to_lowercase()),
        "Eviction" => format!("eviction of a {kind}"),
        _ => match action {
            "list" => format!("objects of kind {kind}"),
            "deletecollection" => format!("collection of {kind}"),
            "post" | "delete" => with_article(kind),
            _ => format!("the specified {kind}"),
        },
    };
    match action {
        "watchlist" => format!(
            "watch individual changes to a list of {kind}. deprecated: use the 'watch' parameter with a list operation \
             instead."
        ),
        "watch" => format!(
            "watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list operation \
             instead, filtered to a single item with the 'fieldSelector' parameter."
        ),
        "list" if custom => format!("list {part}"),
        "list" => format!("list or watch {part}"),
        "post" => format!("create {part}"),
        "put" => format!("replace {part}"),
        "patch" => format!("partially update {part}"),
        "delete" | "deletecollection" => format!("delete {part}"),
        _ => format!("read {part}"),
    }
}
