//! In which form a client wants its answer: media type, and objects, tables or metadata alone.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::rest::ApiError;

/// What a resource can be answered as.
pub const RESOURCE_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Text {
    /// JSON.
    #[default]
    Json,
    /// YAML.
    Yaml,
}

/// What becomes of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Shape {
    /// As they are.
    #[default]
    Objects,
    /// Rows of a `Table`.
    Table,
    /// The metadata alone of one object.
    Metadata,
    /// The metadata alone of the objects of a list.
    MetadataList,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Accepted {
    /// The form of the text.
    pub text: Text,
    /// What becomes of the objects.
    pub shape: Shape,
    /// The version of `meta.k8s.io` that tables and metadata are in is `v1beta1`.
    pub beta: bool,
}

impl Accepted {
    /// The `apiVersion` of tables and metadata.
    pub fn meta_version(self) -> &'static str {
        if self.beta {
            "meta.k8s.io/v1beta1"
        } else {
            "meta.k8s.io/v1"
        }
    }
}

struct Clause<'a> {
    media: &'a str,
    kind: Option<&'a str>,
    group: &'a str,
    version: &'a str,
}

fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let mut clauses: Vec<(u16, Clause<'_>)> = Vec::new();
    for value in headers.get_all(ACCEPT) {
        for clause in value.to_str().unwrap_or_default().split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if media.is_empty() {
                continue;
            }
            let mut found = Clause {
                media,
                kind: None,
                group: "",
                version: "",
            };
            let mut quality = 1000;
            for part in parts {
                match part.split_once('=') {
                    Some(("as", kind)) => found.kind = Some(kind),
                    Some(("g", group)) => found.group = group,
                    Some(("v", version)) => found.version = version,
                    Some(("q", value)) => quality = (value.parse::<f32>().unwrap_or(1.0) * 1000.0) as u16,
                    _ => {}
                }
            }
            clauses.push((quality, found));
        }
    }
    // Stable: among equals, the client's order counts.
    clauses.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    clauses.into_iter().map(|(_, clause)| clause).collect()
}

fn text_of(media: &str) -> Option<Text> {
    match media {
        "application/json" | "*/*" | "application/*" => Some(Text::Json),
        "application/yaml" => Some(Text::Yaml),
        _ => None,
    }
}

/// The first form of the client's list that a resource can be answered in.
pub fn resource(headers: &HeaderMap) -> Result<Accepted, ApiError> {
    resource_as(headers, true)
}

/// As [`resource`], of one that may have no tables.
pub fn resource_as(headers: &HeaderMap, tables: bool) -> Result<Accepted, ApiError> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Accepted::default());
    }
    for clause in clauses {
        let Some(text) = text_of(clause.media) else { continue };
        let shape = match (clause.kind, clause.group, clause.version) {
            (None, ..) => Shape::Objects,
            (Some("Table"), "meta.k8s.io", "v1" | "v1beta1") if tables => Shape::Table,
            (Some("PartialObjectMetadata"), "meta.k8s.io", "v1" | "v1beta1") => Shape::Metadata,
            (Some("PartialObjectMetadataList"), "meta.k8s.io", "v1" | "v1beta1") => Shape::MetadataList,
            _ => continue,
        };
        let beta = shape != Shape::Objects && clause.version == "v1beta1";
        return Ok(Accepted { text, shape, beta });
    }
    Err(ApiError::not_acceptable(RESOURCE_TYPES))
}

/// Whether the client names a media type that is written, in whatever form.
pub fn names_written_type(headers: &HeaderMap) -> bool {
    let clauses = clauses(headers);
    let is_written = |clause: &Clause<'_>| clause.media != "application/*" && text_of(clause.media).is_some();
    clauses.is_empty() || clauses.iter().any(is_written)
}

/// The form of the text of a refusal: what the client takes, or JSON.
pub fn refusal(headers: &HeaderMap) -> Text {
    resource(headers).map(|accepted| accepted.text).unwrap_or_default()
}

/// Whether the client wants aggregated discovery, and in which version; none for the plain one.
pub fn aggregated_discovery(headers: &HeaderMap) -> Result<Option<&'static str>, ApiError> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(None);
    }
    for clause in clauses {
        match (text_of(clause.media), clause.kind, clause.group, clause.version) {
            (None, ..) => {}
            (_, None, ..) => return Ok(None),
            (Some(Text::Json), Some("APIGroupDiscoveryList"), "apidiscovery.k8s.io", "v2") => return Ok(Some("v2")),
            _ => {}
        }
    }
    Err(ApiError::not_acceptable(RESOURCE_TYPES))
}

/// The form of a document of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentForm {
    /// JSON.
    Json,
    /// The messages of gnostic.
    Protobuf,
}

/// The first form of the client's list that the v2 document is there in; none if there is none.
pub fn openapi_v2(headers: &HeaderMap) -> Option<DocumentForm> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Some(DocumentForm::Json);
    }
    clauses.iter().find_map(|clause| match clause.media {
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
        | "application/com.github.proto-openapi.spec.v2@v1.0+protobuf" => Some(DocumentForm::Protobuf),
        media => is_json(media).then_some(DocumentForm::Json),
    })
}

/// Whether the client takes a document of OpenAPI v3, which is there in JSON alone.
pub fn openapi_v3(headers: &HeaderMap) -> bool {
    let clauses = clauses(headers);
    clauses.is_empty() || clauses.iter().any(|clause| is_json(clause.media))
}

fn is_json(media: &str) -> bool {
    text_of(media) == Some(Text::Json)
}
