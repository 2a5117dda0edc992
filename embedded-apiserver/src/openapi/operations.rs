//! The paths and operations of a resource.
//!
//! For: what tools learn of verbs, parameters and content types. Not for: schemas.

use super::ResourceInfo;
use super::schemas::{Dialect, list_name_of, name_of};
use serde_json::{Map, Value, json};

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
        let scale = ("autoscaling", "v1", "Scale");
        add(
            format!("{item}/scale"),
            builder.subresource("Scale", "io.k8s.api.autoscaling.v1.Scale", Some(scale)),
        );
    }
    if resource.eviction {
        add(format!("{item}/eviction"), builder.eviction());
    }
}

struct Builder<'resource> {
    resource: &'resource ResourceInfo,
    dialect: Dialect,
}

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const DRY_RUN: &str = "When present, indicates that modifications should not be persisted. An invalid or unrecognized \
                       dryRun directive will result in an error response and no further processing of the request. \
                       Valid values are: - All: all dry run stages will be processed";
const FIELD_MANAGER: &str = "fieldManager is a name associated with the actor or entity that is making these changes. \
                             The value must be less than or 128 characters long, and only contain printable \
                             characters, as defined by https://golang.org/pkg/unicode/#IsPrint.";
const FIELD_VALIDATION: &str = "fieldValidation instructs the server on how to handle objects in the request \
                                (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: - Ignore: \
                                This will ignore any unknown fields that are silently dropped from the object, and \
                                will ignore all but the last duplicate field that the decoder encounters. This is the \
                                default behavior prior to v1.23. - Warn: This will send a warning via the standard \
                                warning response header for each unknown field that is dropped from the object, and \
                                for each duplicate field that is encountered. The request will still succeed if there \
                                are no other errors, and will only persist the last of any duplicate fields. This is \
                                the default in v1.23+ - Strict: This will fail the request with a BadRequest error if \
                                any unknown fields would be dropped from the object, or if any duplicate fields are \
                                present. The error returned from the server will contain all unknown and duplicate \
                                fields encountered.";

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

    fn query(&self, name: &str, kind: &str, description: &str) -> Value {
        self.parameter(name, "query", kind, description)
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
        let description = "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent \
                           indicates a browser or command-line HTTP tool (curl and wget).";
        parameters.push(self.query("pretty", "string", description));
        Value::Array(parameters)
    }

    fn list_parameters(&self) -> Vec<Value> {
        vec![
            self.query(
                "allowWatchBookmarks",
                "boolean",
                "allowWatchBookmarks requests watch events with type \"BOOKMARK\".",
            ),
            self.query(
                "continue",
                "string",
                "The continue option should be set when retrieving more results.",
            ),
            self.query(
                "fieldSelector",
                "string",
                "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
            ),
            self.query(
                "labelSelector",
                "string",
                "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
            ),
            self.query(
                "limit",
                "integer",
                "limit is a maximum number of responses to return for a list call.",
            ),
            self.query(
                "resourceVersion",
                "string",
                "resourceVersion sets a constraint on what resource versions a request may be served from.",
            ),
            self.query(
                "resourceVersionMatch",
                "string",
                "resourceVersionMatch determines how resourceVersion is applied to list calls.",
            ),
            self.query(
                "sendInitialEvents",
                "boolean",
                "`sendInitialEvents=true` may be set together with `watch=true`.",
            ),
            self.query("timeoutSeconds", "integer", "Timeout for the list/watch call."),
            self.query(
                "watch",
                "boolean",
                "Watch for changes to the described resources and return them as a stream of add, update, and remove \
                 notifications. Specify resourceVersion.",
            ),
        ]
    }

    fn write_parameters(&self) -> Vec<Value> {
        vec![
            self.query("dryRun", "string", DRY_RUN),
            self.query("fieldManager", "string", FIELD_MANAGER),
            self.query("fieldValidation", "string", FIELD_VALIDATION),
        ]
    }

    fn delete_parameters(&self) -> Vec<Value> {
        vec![
            self.query("dryRun", "string", DRY_RUN),
            self.query(
                "gracePeriodSeconds",
                "integer",
                "The duration in seconds before the object should be deleted. Value must be non-negative integer.",
            ),
            self.query(
                "orphanDependents",
                "boolean",
                "Deprecated: please use the PropagationPolicy, this field will be deprecated in 1.7.",
            ),
            self.query(
                "propagationPolicy",
                "string",
                "Whether and how garbage collection will be performed.",
            ),
        ]
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
        let scope = if resource.namespaced && suffix != "ForAllNamespaces" {
            "Namespaced"
        } else {
            ""
        };
        let identifier = format!(
            "{verb}{group}{}{scope}{}{suffix}",
            capitalized(&resource.version),
            resource.kind
        );
        let (kind_group, kind_version, kind_name) =
            kind.unwrap_or((&resource.group, &resource.version, &resource.kind));
        let produced = ["application/json", "application/yaml"];
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
            json!(describe(action, &resource.kind, suffix)),
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
            _ => &["application/json", "application/yaml"],
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
        operation.insert("parameters".to_owned(), Value::Array(parameters));
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
            let mut parameters = self.list_parameters();
            parameters.retain(|parameter| {
                !["allowWatchBookmarks", "watch"]
                    .iter()
                    .any(|name| parameter["name"] == *name)
            });
            parameters.extend(self.delete_parameters());
            item["delete"] = self.operation(
                "deleteCollection",
                "deletecollection",
                "",
                None,
                parameters,
                Some(DELETE_OPTIONS),
                &[("200", STATUS)],
            );
        }
        item
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
        if let Value::Array(more) = self.path_parameters(false, false) {
            parameters.extend(more);
        }
        json!({"get": get, "parameters": parameters})
    }

    fn item(&self) -> Value {
        let name = name_of(self.resource);
        let mut item = json!({"parameters": self.path_parameters(true, self.resource.namespaced)});
        if self.has("get") {
            item["get"] = self.operation("read", "get", "", None, Vec::new(), None, &[("200", &name)]);
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
        let mut parameters = self.write_parameters();
        parameters.push(self.query(
            "force",
            "boolean",
            "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by \
             other people. Force flag must be unset for non-apply patch requests.",
        ));
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
            "get": self.operation("read", "get", suffix, kind, Vec::new(), None, &answers[..1]),
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
        .split('.')
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

fn describe(action: &str, kind: &str, suffix: &str) -> String {
    let part = match suffix {
        "Status" | "Scale" => format!("{} of the specified {kind}", suffix.to_lowercase()),
        "Eviction" => format!("eviction of a {kind}"),
        _ => match action {
            "list" => format!("objects of kind {kind}"),
            "deletecollection" => format!("collection of {kind}"),
            "post" | "delete" => format!("a {kind}"),
            _ => format!("the specified {kind}"),
        },
    };
    match action {
        "list" => format!("list or watch {part}"),
        "post" => format!("create {part}"),
        "put" => format!("replace {part}"),
        "patch" => format!("partially update {part}"),
        "delete" | "deletecollection" => format!("delete {part}"),
        _ => format!("read {part}"),
    }
}
