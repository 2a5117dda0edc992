//! The OpenAPI documents, made when they are first asked for and kept until their resources change.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, Response};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::Digest as _;

use super::body::Body;
use super::render;
use crate::openapi::{self, ResourceInfo};
use crate::registry::{Behaviour, Resource, Snapshot, Version};

/// A document as text, with the hash of it.
#[derive(Debug)]
pub struct Document {
    media: &'static str,
    bytes: Bytes,
    hash: String,
}

/// The documents, each with the resources that it was made from.
#[derive(Debug, Default)]
pub struct Cache {
    kept: Mutex<HashMap<String, Kept>>,
}

#[derive(Debug)]
struct Kept {
    made_from: Vec<Arc<Resource>>,
    document: Arc<Document>,
}

fn document(value: &Value) -> Document {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let hash = hex::encode_upper(sha2::Sha512::digest(&bytes));
    Document {
        media: "application/json",
        bytes: bytes.into(),
        hash,
    }
}

impl Cache {
    /// The document of these resources, made anew only when they are not the ones that it was made from.
    fn keep(&self, name: &str, resources: Vec<Arc<Resource>>, make: impl FnOnce() -> Document) -> Arc<Document> {
        if let Some(kept) = self.kept.lock().get(name) {
            let same = kept.made_from.len() == resources.len()
                && kept
                    .made_from
                    .iter()
                    .zip(&resources)
                    .all(|(from, resource)| Arc::ptr_eq(from, resource));
            if same {
                return Arc::clone(&kept.document);
            }
        }
        // Made without the lock: it takes a while, and making it twice does no harm.
        let made = Arc::new(make());
        let kept = Kept {
            made_from: resources,
            document: Arc::clone(&made),
        };
        self.kept.lock().insert(name.to_owned(), kept);
        made
    }

    /// The document of everything.
    pub fn v2(&self, snapshot: &Snapshot) -> Arc<Document> {
        self.keep("v2", snapshot.resources.clone(), || {
            let resources: Vec<ResourceInfo> = snapshot
                .resources
                .iter()
                .flat_map(|resource| {
                    let served = resource.versions.iter().filter(|version| version.served);
                    served.map(|version| info(resource, version))
                })
                .collect();
            document(&openapi::v2_document(&resources))
        })
    }

    /// The document of everything, in protobuf: the same document, so its hash is the same.
    pub fn v2_protobuf(&self, snapshot: &Snapshot) -> Arc<Document> {
        self.keep("v2 in protobuf", snapshot.resources.clone(), || {
            let plain = self.v2(snapshot);
            let value = serde_json::from_slice(&plain.bytes).unwrap_or_default();
            Document {
                media: "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
                bytes: openapi::v2_protobuf(&value).into(),
                hash: plain.hash.clone(),
            }
        })
    }

    /// The document of one version of a group.
    pub fn v3(&self, snapshot: &Snapshot, group: &str, version: &str) -> Option<Arc<Document>> {
        if !snapshot.has_version(group, version) {
            return None;
        }
        let in_group = |resource: &&Arc<Resource>| resource.group == group && resource.served(version).is_some();
        let resources: Vec<Arc<Resource>> = snapshot.resources.iter().filter(in_group).cloned().collect();
        Some(self.keep(&format!("v3/{group}/{version}"), resources.clone(), || {
            let infos: Vec<ResourceInfo> = resources
                .iter()
                .filter_map(|resource| resource.served(version).map(|version| info(resource, version)))
                .collect();
            document(&openapi::v3_document(group, version, &infos))
        }))
    }

    /// Where the documents of the versions are, each with its hash.
    pub fn index(&self, snapshot: &Snapshot) -> Value {
        let mut paths = Map::new();
        for (group, versions) in snapshot.groups() {
            for version in versions {
                let Some(document) = self.v3(snapshot, &group, &version) else {
                    continue;
                };
                let path = if group.is_empty() {
                    format!("api/{version}")
                } else {
                    format!("apis/{group}/{version}")
                };
                let url = format!("/openapi/v3/{path}?hash={}", document.hash);
                paths.insert(path, json!({ "serverRelativeURL": url }));
            }
        }
        json!({ "paths": paths })
    }
}

fn info(resource: &Resource, version: &Version) -> ResourceInfo {
    ResourceInfo {
        group: resource.group.clone(),
        version: version.name.clone(),
        kind: resource.kind.clone(),
        list_kind: resource.list_kind.clone(),
        plural: resource.plural.clone(),
        namespaced: resource.namespaced,
        verbs: resource.verbs().iter().map(|verb| (*verb).to_owned()).collect(),
        status: version.status,
        scale: version.scale.is_some(),
        eviction: resource.behaviour == Behaviour::Pod,
        schema: version.raw_schema.as_deref().cloned(),
        selectable_fields: if resource.custom.is_some() {
            version.selectable_fields.clone()
        } else {
            Vec::new()
        },
    }
}

/// Aggregated discovery as a response, which clients may keep and ask whether it is still so.
pub fn aggregated_response(value: &Value, media: &'static str, headers: &HeaderMap) -> Response<Body> {
    let Document { bytes, hash, .. } = document(value);
    let etag = format!("\"{hash}\"");
    let known = headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let mut response = if known {
        let mut response = render::whole(304, media, Bytes::new());
        response.headers_mut().remove(CONTENT_TYPE);
        response
    } else {
        render::whole(200, media, bytes)
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    response
}

/// The index, as the real server types it.
pub fn index_response(index: &Value) -> Response<Body> {
    render::whole(
        200,
        "text/plain; charset=utf-8",
        serde_json::to_vec(index).unwrap_or_default(),
    )
}

/// There is no document of such a version.
pub fn no_document() -> Response<Body> {
    let mut response = render::whole(404, "", Bytes::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response
}

/// The document is not there in any form that the client takes.
pub fn not_in_that_form() -> Response<Body> {
    let mut response = render::whole(406, "", Bytes::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// A document of the index: asked for with a hash that it no longer has, it says where it is now.
pub fn hashed_response(document: &Document, head: &http::request::Parts, query: &[(String, String)]) -> Response<Body> {
    let asked = query.iter().find(|(name, _)| name == "hash").map(|(_, hash)| hash);
    let place = format!("{}?hash={}", head.uri.path(), document.hash);
    match (asked, HeaderValue::from_str(&place)) {
        (Some(asked), Ok(place)) if !asked.is_empty() && *asked != document.hash => {
            let mut response = render::whole(301, "application/json", Bytes::new());
            response.headers_mut().insert(LOCATION, place);
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
            response
        }
        _ => response(document, &head.headers, query),
    }
}

/// A document as a response; with the right hash in the query it may be cached for good.
pub fn response(document: &Document, headers: &HeaderMap, query: &[(String, String)]) -> Response<Body> {
    let etag = format!("\"{}\"", document.hash);
    let known = headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let mut response = if known {
        render::whole(304, document.media, Bytes::new())
    } else {
        render::whole(200, document.media, document.bytes.clone())
    };
    let fresh = query
        .iter()
        .any(|(name, value)| name == "hash" && *value == document.hash);
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if fresh {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let year = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(365 * 24);
        if let Ok(expires) = HeaderValue::from_str(&year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
            headers.insert(EXPIRES, expires);
        }
    }
    response
}
