//! Answers as responses: objects, lists, tables, metadata, event streams, errors.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::body::Body;
use super::negotiate::{Accepted, Shape, Text};
use crate::builtin;
use crate::deep::{self, Carried};
use crate::registry::Resource;
use crate::rest::{Answer, ApiError, ListReply, Reply, Watch, WatchEvent, WatchKind};
use crate::table::{self, IncludeObject};

/// How many bytes of events go into one piece of a stream, at most about.
const STREAM_PIECE: usize = 64 << 10;

/// What a response needs to know besides its answer.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    /// What was negotiated.
    pub accepted: Accepted,
    /// The resource.
    pub resource: &'a Resource,
    /// The version.
    pub version: &'a str,
    /// How much of each object a row carries.
    pub include_object: IncludeObject,
}

/// A response with a value in it.
pub fn value(code: u16, value: &Value, text: Text) -> Response<Body> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    json_bytes(code, bytes.into(), text)
}

/// A response with JSON that is there already.
pub fn json_bytes(code: u16, bytes: Bytes, text: Text) -> Response<Body> {
    let (bytes, media) = match text {
        Text::Json => (bytes, "application/json"),
        Text::Yaml => (yaml(&bytes), "application/yaml"),
    };
    whole(code, media, bytes)
}

fn yaml(json: &Bytes) -> Bytes {
    let value = deep::parse(json).unwrap_or_default();
    serde_saphyr::to_string(&value).unwrap_or_default().into()
}

/// A response with a whole body.
pub fn whole(code: u16, media: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(bytes));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A refusal.
pub fn error(error: &ApiError, text: Text) -> Response<Body> {
    if error.code >= 500 {
        tracing::warn!(code = error.code, message = %error.message, "request failed");
    }
    let mut response = value(error.code, &error.status(), text);
    if let Some(seconds) = error.details.get("retryAfterSeconds").and_then(Value::as_u64) {
        response
            .headers_mut()
            .insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    for warning in &error.warnings {
        warn(&mut response, warning);
    }
    response
}

/// An answer.
pub fn answer(answer: Answer, form: Form<'_>) -> Response<Body> {
    let mut response = match answer.reply {
        Reply::Value { code, value: content } => value(code, &content, form.accepted.text),
        Reply::Object { code, bytes } => match form.accepted.shape {
            Shape::Objects => json_bytes(code, bytes, form.accepted.text),
            shape => match reshape(&bytes, form, shape) {
                Ok(content) => value(code, &content, form.accepted.text),
                Err(problem) => error(&problem, form.accepted.text),
            },
        },
        Reply::Scale(scale) => match scaled(scale, form) {
            Ok(content) => value(200, &content, form.accepted.text),
            Err(problem) => error(&problem, form.accepted.text),
        },
        Reply::List(list) => match list_json(list, form) {
            Ok(bytes) => json_bytes(200, bytes, form.accepted.text),
            Err(problem) => error(&problem, form.accepted.text),
        },
        Reply::Watch(watch) => match form.accepted.text {
            Text::Json => stream(*watch, form),
            Text::Yaml => error(&ApiError::not_acceptable("application/json;stream=watch"), Text::Yaml),
        },
    };
    for warning in answer.warnings {
        warn(&mut response, &warning);
    }
    response
}

/// Adds a warning to a response.
pub fn warn(response: &mut Response<Body>, warning: &str) {
    if let Ok(header) = HeaderValue::from_str(&warning_header(warning)) {
        let headers = response.headers_mut();
        headers.append(HeaderName::from_static("warning"), header);
    }
}

/// A warning as RFC 7234 has it, with the agent left out.
fn warning_header(text: &str) -> String {
    let mut header = String::with_capacity(text.len() + 10);
    header.push_str("299 - \"");
    for letter in text.chars().filter(|letter| !letter.is_control()) {
        if matches!(letter, '"' | '\\') {
            header.push('\\');
        }
        header.push(if letter.is_ascii() { letter } else { '?' });
    }
    header.push('"');
    header
}

fn parse(bytes: &Bytes) -> Result<Value, ApiError> {
    deep::parse(bytes).map_err(ApiError::internal)
}

fn reshape(bytes: &Bytes, form: Form<'_>, shape: Shape) -> Result<Value, ApiError> {
    let object = parse(bytes)?;
    Ok(match shape {
        Shape::Objects => object,
        Shape::Metadata => partial(&object, form.accepted),
        Shape::MetadataList if form.resource.custom.is_some() => {
            return Err(ApiError::unclassified("content is not a list"));
        }
        Shape::MetadataList => {
            let name = go_type(form.resource, &form.resource.kind);
            return Err(ApiError::not_acceptable_as(format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list ({name})"
            )));
        }
        Shape::Table => {
            let revision = object.pointer("/metadata/resourceVersion").cloned();
            let mut table = render_table(form, &[object]);
            if let Some(revision) = revision {
                set_table_revision(&mut table, revision);
            }
            table
        }
    })
}

/// A scale in the form that the client wants.
fn scaled(scale: Value, form: Form<'_>) -> Result<Value, ApiError> {
    Ok(match form.accepted.shape {
        Shape::Objects => scale,
        Shape::Metadata => partial(&scale, form.accepted),
        Shape::MetadataList => {
            return Err(ApiError::not_acceptable_as(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*v1.Scale)",
            ));
        }
        Shape::Table => {
            let revision = scale.pointer("/metadata/resourceVersion").cloned();
            let mut table = table_of(form, &table::scale_columns(), &[scale]);
            if let Some(revision) = revision {
                set_table_revision(&mut table, revision);
            }
            table
        }
    })
}

fn set_table_revision(table: &mut Value, revision: Value) {
    if let Some(table) = table.as_object_mut() {
        table.insert("metadata".to_owned(), json!({ "resourceVersion": revision }));
    }
}

/// What the real server calls the type of an object or of a list.
fn go_type(resource: &Resource, kind: &str) -> String {
    if resource.custom.is_some() {
        let list = if kind == resource.list_kind { "List" } else { "" };
        return format!("*unstructured.Unstructured{list}");
    }
    let package = match resource.group.as_str() {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or_default(),
    };
    format!("*{package}.{kind}")
}

fn partial(object: &Value, accepted: Accepted) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": accepted.meta_version(),
        "metadata": builtin::bare_metadata(object.get("metadata").cloned().unwrap_or_else(|| json!({}))),
    })
}

fn render_table(form: Form<'_>, objects: &[Value]) -> Value {
    let columns = form
        .resource
        .served(form.version)
        .map(|version| version.columns.clone());
    table_of(form, columns.as_deref().map(Vec::as_slice).unwrap_or_default(), objects)
}

fn table_of(form: Form<'_>, columns: &[table::Column], objects: &[Value]) -> Value {
    let mut table = table::render(columns, objects, Timestamp::now(), form.include_object);
    for row in table["rows"].as_array_mut().into_iter().flatten() {
        if row["object"]["kind"] == "PartialObjectMetadata" {
            row["object"]["metadata"] = builtin::bare_metadata(row["object"]["metadata"].take());
        }
    }
    if form.accepted.beta {
        table["apiVersion"] = form.accepted.meta_version().into();
        for row in table["rows"].as_array_mut().into_iter().flatten() {
            if row["object"]["kind"] == "PartialObjectMetadata" {
                row["object"]["apiVersion"] = form.accepted.meta_version().into();
            }
        }
    }
    table
}

fn list_metadata(list: &ListReply) -> Value {
    let mut metadata = json!({ "resourceVersion": list.resource_version.to_string() });
    if !list.continue_token.is_empty() {
        metadata["continue"] = list.continue_token.as_str().into();
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

fn list_json(list: ListReply, form: Form<'_>) -> Result<Bytes, ApiError> {
    let mut metadata = list_metadata(&list);
    if form.resource.custom.is_some() && form.accepted.shape == Shape::Objects && list.continue_token.is_empty() {
        // Lists of custom resources always have one.
        metadata["continue"] = "".into();
    }
    let encode = |value: &Value| serde_json::to_vec(value).map(Bytes::from).map_err(ApiError::internal);
    match form.accepted.shape {
        Shape::Objects => {
            // The items are bytes already: they are only strung together.
            let size: usize = list.items.iter().map(|item| item.len() + 1).sum();
            let mut bytes = BytesMut::with_capacity(size + 256);
            let head = json!({ "kind": list.kind, "apiVersion": list.api_version, "metadata": metadata });
            let head = serde_json::to_vec(&head).map_err(ApiError::internal)?;
            bytes.extend_from_slice(head.strip_suffix(b"}").unwrap_or(&head));
            bytes.extend_from_slice(b",\"items\":[");
            let kind = form.resource.custom.is_none().then(|| told_kind(&list, form.resource));
            for (at, item) in list.items.iter().enumerate() {
                if at > 0 {
                    bytes.put_u8(b',');
                }
                match &kind {
                    None => bytes.extend_from_slice(item),
                    Some(kind) => put_without_kind(&mut bytes, item, kind)?,
                }
            }
            bytes.extend_from_slice(b"]}");
            Ok(bytes.freeze())
        }
        Shape::Metadata => {
            let name = go_type(form.resource, &list.kind);
            Err(ApiError::not_acceptable_as(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({name})"
            )))
        }
        Shape::MetadataList => {
            let items: Vec<Value> = list
                .items
                .iter()
                .map(|item| parse(item).map(|item| partial(&item, form.accepted)))
                .collect::<Result<_, _>>()?;
            // Without objects, this list is null: the real server makes its lists empty before it takes the metadata.
            let items = if items.is_empty() { Value::Null } else { items.into() };
            encode(&json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": form.accepted.meta_version(),
                "metadata": metadata,
                "items": items,
            }))
        }
        Shape::Table => {
            let objects: Vec<Value> = list.items.iter().map(parse).collect::<Result<_, _>>()?;
            let mut table = render_table(form, &objects);
            if let Some(table) = table.as_object_mut() {
                table.insert("metadata".to_owned(), metadata);
            }
            encode(&table)
        }
    }
}

/// How stored objects of a built-in kind begin.
fn told_kind(list: &ListReply, resource: &Resource) -> Vec<u8> {
    let text = |text: &str| Value::from(text).to_string();
    format!(
        "{{\"kind\":{},\"apiVersion\":{},",
        text(&resource.kind),
        text(&list.api_version)
    )
    .into_bytes()
}

/// The items of built-in lists do not repeat what the list tells.
fn put_without_kind(bytes: &mut BytesMut, item: &Bytes, kind: &[u8]) -> Result<(), ApiError> {
    if let Some(rest) = item.strip_prefix(kind) {
        bytes.put_u8(b'{');
        bytes.extend_from_slice(rest);
        return Ok(());
    }
    let mut object = parse(item)?;
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    let rest = serde_json::to_vec(&object).map_err(ApiError::internal)?;
    bytes.extend_from_slice(&rest);
    Ok(())
}

struct Streaming {
    watch: Watch,
    accepted: Accepted,
    include_object: IncludeObject,
    /// Tables name their columns in the first event only.
    columns_sent: bool,
}

fn stream(watch: Watch, form: Form<'_>) -> Response<Body> {
    let state = Streaming {
        watch,
        accepted: form.accepted,
        include_object: form.include_object,
        columns_sent: false,
    };
    let pieces = futures::stream::unfold(state, |mut state| {
        Carried::new(async move {
            let first = state.watch.next().await?;
            if state.accepted.shape == Shape::MetadataList && first.kind != WatchKind::Error {
                // An event is no list: the real server ends here too.
                return None;
            }
            let mut piece = BytesMut::with_capacity(first.object.len() + 64);
            state.write(&first, &mut piece);
            // What is there already goes along; what is not is not waited for.
            while piece.len() < STREAM_PIECE {
                let Some(event) = state.watch.ready() else { break };
                state.write(&event, &mut piece);
            }
            Some((piece.freeze(), state))
        })
    });
    let mut response = Response::new(Body::stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

impl Streaming {
    fn write(&mut self, event: &WatchEvent, piece: &mut BytesMut) {
        let plain = self.accepted.shape == Shape::Objects || event.kind == WatchKind::Error;
        let shaped = if plain { None } else { self.reshape(event) };
        let object = shaped.as_ref().unwrap_or(&event.object);
        piece.reserve(object.len() + 40);
        piece.extend_from_slice(b"{\"type\":\"");
        piece.extend_from_slice(event.kind.name().as_bytes());
        piece.extend_from_slice(b"\",\"object\":");
        piece.extend_from_slice(object);
        piece.extend_from_slice(b"}\n");
    }

    fn reshape(&mut self, event: &WatchEvent) -> Option<Bytes> {
        let request = self.watch.request();
        let form = Form {
            accepted: self.accepted,
            resource: &request.resource,
            version: &request.version,
            include_object: self.include_object,
        };
        let mut value = reshape(&event.object, form, self.accepted.shape).ok()?;
        if self.accepted.shape == Shape::Table {
            if self.columns_sent
                && let Some(table) = value.as_object_mut()
            {
                table.insert("columnDefinitions".to_owned(), Value::Null);
            }
            self.columns_sent = true;
        }
        serde_json::to_vec(&value).ok().map(Bytes::from)
    }
}
