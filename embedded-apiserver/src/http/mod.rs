//! HTTP: from a request to the verbs and back. Routing, authorization, bodies, discovery, OpenAPI, health.

mod body;
mod discovery;
mod documents;
mod health;
mod metrics;
mod negotiate;
mod path;
mod protobuf;
mod render;
mod request_body;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method, Request, Response};
use jiff::Timestamp;
use serde_json::json;

pub use body::Body;
pub use path::decode_percent;
use path::{ResourcePath, Route};

use crate::access::{self, Attributes, Caller, Decision, Refused, User};
use crate::deep::{self, Carried};
use crate::registry::{Behaviour, Resource, Snapshot};
use crate::rest::{self, ApiError, BodyFormat, Core, Verb};
use crate::table::IncludeObject;

/// What requests are answered from.
#[derive(Debug)]
pub struct Handler {
    /// Objects and resources.
    pub core: Arc<Core>,
    documents: documents::Cache,
}

impl Handler {
    /// A handler over a core.
    pub fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            documents: documents::Cache::default(),
        }
    }

    /// Answers a request of whoever the connection is of.
    pub async fn handle<B>(self: Arc<Self>, caller: Caller, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let text = negotiate::refusal(request.headers());
        let warning = authorization(request.headers()).and_then(access::header_warning);
        // The last resort: a bug ends one request, not the connection.
        let answered = AssertUnwindSafe(Carried::new(self.respond(caller, request)))
            .catch_unwind()
            .await;
        let mut response =
            match answered.unwrap_or_else(|_| Err(ApiError::internal("the request ended in a bug of the server"))) {
                Ok(response) => response,
                Err(error) => render::error(&error, text),
            };
        if let Some(warning) = warning {
            render::warn(&mut response, warning);
        }
        response
    }

    async fn respond<B>(&self, caller: Caller, request: Request<B>) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let Some(decoded) = decode_percent(path) else {
            return Ok(malformed_page());
        };
        let user = self.authenticate(caller, &head.headers)?;
        let user = match access::wanted(&head.headers) {
            Ok(None) => user,
            Ok(Some(wanted)) => {
                for need in &wanted.needs {
                    self.demand(&user, need)?;
                }
                wanted.user
            }
            Err(Refused(why)) => return Ok(unreadable_headers(&head.uri, &why)),
        };
        let query = path::query(head.uri.query().unwrap_or_default());
        let parts: Vec<&str> = decoded.trim_matches('/').split('/').collect();
        let attributes = Attributes::of_request(&head.method, &decoded, &parts, &query);
        self.demand(&user, &attributes)?;
        match path::route(path) {
            Route::Malformed => Ok(malformed_page()),
            Route::Resource(place) if is_same(&place, &attributes) => {
                self.resource(user, &head, place, &query, body).await
            }
            route => self.document(&head, route, &query),
        }
    }

    /// Who asks.
    fn authenticate(&self, caller: Caller, headers: &HeaderMap) -> Result<User, ApiError> {
        let authorization = authorization(headers);
        let core = &self.core;
        let audiences = [access::ISSUER.to_owned()];
        core.access
            .authenticate(&core.store, caller, authorization, &audiences, Timestamp::now())
            .map(|authenticated| authenticated.user)
            .map_err(|error| {
                tracing::debug!(%error, "unable to authenticate a request");
                ApiError::unauthorized()
            })
    }

    /// Refuses what the user may not.
    fn demand(&self, user: &User, attributes: &Attributes) -> Result<(), ApiError> {
        let decision = self.core.access.authorize(&self.core.store, user, attributes);
        if decision.allowed {
            return Ok(());
        }
        Err(forbidden(user, attributes, &decision))
    }

    /// Everything that is not a resource.
    fn document(
        &self,
        head: &http::request::Parts,
        route: Route,
        query: &[(String, String)],
    ) -> Result<Response<Body>, ApiError> {
        // Some of the real server's handlers look at the path alone.
        let any_method = matches!(
            route,
            Route::Health(_)
                | Route::Groups { core: false }
                | Route::Group(_)
                | Route::OpenApiV2
                | Route::OpenApiV3Index
                | Route::OpenApiV3 { .. }
                | Route::Unknown(_)
        );
        if !any_method && !matches!(head.method, Method::GET | Method::HEAD) {
            return Err(ApiError::method_not_allowed());
        }
        let snapshot = self.core.registry.snapshot();
        let text = |group: &str| {
            negotiate::resource(&head.headers)
                .map(|accepted| accepted.text)
                .map_err(|error| refused_form(&snapshot, group, &head.headers, error))
        };
        let json = |value| Ok(render::value(200, &value, text("")?));
        match route {
            Route::Version => Ok(render::value(200, &version(), negotiate::Text::Json)),
            Route::Health(path) => Ok(health::answer(&path, query)),
            Route::Metrics => Ok(render::whole(
                200,
                metrics::MEDIA,
                metrics::text(&snapshot, &self.core.store),
            )),
            Route::Root => {
                let paths = discovery::paths(&snapshot);
                json(json!({ "paths": paths }))
            }
            Route::Groups { core } => match negotiate::aggregated_discovery(&head.headers)? {
                Some(version) => {
                    let value = discovery::aggregated(&snapshot, core, version);
                    Ok(documents::aggregated_response(&value, AGGREGATED, &head.headers))
                }
                None if core => json(discovery::core_versions()),
                None => json(discovery::groups(&snapshot)),
            },
            Route::Group(group) => match discovery::group(&snapshot, &group) {
                Some(value) => Ok(render::value(200, &value, text(&group)?)),
                None => Ok(not_found_page()),
            },
            Route::Resources { group, version } => match discovery::resources(&snapshot, &group, &version) {
                Some(value) => Ok(render::value(200, &value, text(&group)?)),
                None => not_served(&snapshot, &group),
            },
            Route::OpenIdConfiguration => Ok(open_id(&self.core.access.discovery(), "application/json")),
            Route::OpenIdKeys => Ok(open_id(&self.core.access.keys.public(), "application/jwk-set+json")),
            Route::OpenApiV2 => {
                let document = match negotiate::openapi_v2(&head.headers) {
                    None => return Ok(documents::not_in_that_form()),
                    Some(negotiate::DocumentForm::Json) => self.documents.v2(&snapshot),
                    Some(negotiate::DocumentForm::Protobuf) => self.documents.v2_protobuf(&snapshot),
                };
                Ok(documents::response(&document, &head.headers, query))
            }
            Route::OpenApiV3Index => Ok(documents::index_response(&self.documents.index(&snapshot))),
            Route::OpenApiV3 { group, version } => {
                if !negotiate::openapi_v3(&head.headers) {
                    return Ok(documents::not_in_that_form());
                }
                match self.documents.v3(&snapshot, &group, &version) {
                    Some(document) => Ok(documents::hashed_response(&document, head, query)),
                    None => Ok(documents::no_document()),
                }
            }
            Route::Unknown(path) => not_served(&snapshot, path.as_deref().unwrap_or("/")),
            Route::Resource(_) | Route::Malformed => Ok(not_found_page()),
        }
    }

    async fn resource<B>(
        &self,
        user: User,
        head: &http::request::Parts,
        place: ResourcePath,
        query: &[(String, String)],
        sent: B,
    ) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let options = path::options(query)?;
        let verb = path::verb(&head.method, &place, &options);
        let snapshot = self.core.registry.snapshot();
        let Some(resource) = snapshot
            .find(&place.group, &place.resource)
            .filter(|resource| resource.served(&place.version).is_some())
        else {
            return not_served(&snapshot, &place.group);
        };
        if place.name.is_empty() && !place.subresource.is_empty() && resource.custom.is_none() {
            return not_served(&snapshot, &place.group);
        }
        let in_namespace = !place.namespace.is_empty();
        let listed = place.name.is_empty() && matches!(verb, Some(Verb::List | Verb::Watch));
        if resource.custom.is_some() && resource.namespaced && !in_namespace && !listed {
            return not_served(&snapshot, &place.group);
        }
        let (verb, place) = if resource.custom.is_some() {
            custom_verb(head, verb, place, resource)?
        } else {
            (built_in_verb(verb, &place, resource)?, place)
        };
        let in_namespace = !place.namespace.is_empty();
        // Of namespaced resources, only collections can be asked for in all namespaces at once.
        let misplaced = if resource.namespaced {
            !in_namespace && (!place.name.is_empty() || matches!(verb, Verb::Create | Verb::DeleteCollection))
        } else {
            in_namespace
        };
        if misplaced {
            // Where a collection is read in all namespaces, there is a path, though not for this method.
            if resource.custom.is_none() && resource.namespaced && place.name.is_empty() {
                return Err(ApiError::method_not_allowed());
            }
            return not_served(&snapshot, &place.group);
        }
        if resource.custom.is_none() && !negotiate::names_written_type(&head.headers) {
            return Err(ApiError::not_available(negotiate::RESOURCE_TYPES));
        }
        let tables = !matches!(place.subresource.as_str(), "finalize" | "eviction" | "token");
        let accepted = negotiate::resource_as(&head.headers, tables)?;
        // Nothing is read of what leads nowhere.
        rest::check_path(verb, resource, &place.version, &place.name, &place.subresource)?;
        let format = body_format(&head.headers, verb, resource);
        if verb == Verb::Patch && place.name.is_empty() {
            format?;
            return Err(ApiError::bad_request("name must be provided"));
        }
        let mut body = Bytes::new();
        // What a deletion is told need not be told.
        let mut format = match format {
            Err(error) if matches!(verb, Verb::Delete | Verb::DeleteCollection) => {
                body = request_body::read(&head.headers, sent).await?;
                if body.is_empty() {
                    BodyFormat::Json
                } else {
                    return Err(error);
                }
            }
            format => {
                let format = format?;
                if verb.mutates() {
                    body = request_body::read(&head.headers, sent).await?;
                }
                format
            }
        };
        if format == BodyFormat::Protobuf {
            format = BodyFormat::Json;
            if !body.is_empty() {
                body = from_protobuf(&body, resource)?;
            }
        }
        let include_object = include_object(query);
        let request = rest::Request {
            user,
            resource: Arc::clone(resource),
            version: place.version,
            namespace: place.namespace,
            name: place.name,
            subresource: place.subresource,
            options,
            body,
            format,
            user_agent: head
                .headers
                .get(USER_AGENT)
                .and_then(|agent| agent.to_str().ok())
                .unwrap_or_default()
                .to_owned(),
            now: Timestamp::now(),
        };
        let version = request.version.clone();
        let core = Arc::clone(&self.core);
        let answer = if verb.mutates() {
            // A task of its own: what was begun is finished, even if the client goes away, and a bug that panics
            // ends this request alone.
            deep::look(&request.body);
            tokio::spawn(Carried::new(async move { rest::carry_out(&core, verb, request).await }))
                .await
                .map_err(|_| ApiError::internal("the request ended in a bug of the server"))??
        } else {
            rest::carry_out(&core, verb, request).await?
        };
        let form = render::Form {
            accepted,
            resource,
            version: &version,
            include_object: match include_object {
                Ok(included) => included,
                Err(_) if accepted.shape != negotiate::Shape::Table => IncludeObject::default(),
                Err(error) => return Err(error),
            },
        };
        let mut response = render::answer(answer, form);
        if head.method == Method::HEAD {
            *response.body_mut() = Body::whole(Bytes::new());
        }
        Ok(response)
    }
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok())
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether what was judged is what is served: both come from the path, by different rules.
fn is_same(place: &ResourcePath, judged: &Attributes) -> bool {
    let named = place.name == judged.name || place.name.is_empty();
    let within = place.namespace == judged.namespace || place.resource == "namespaces";
    let resource = place.group == judged.group && place.resource == judged.resource;
    judged.is_resource && resource && place.subresource == judged.subresource && named && within
}

fn forbidden(user: &User, attributes: &Attributes, decision: &Decision) -> ApiError {
    let mut why = attributes.denial(user);
    if !decision.reason.is_empty() {
        why = format!("{why}: {}", decision.reason);
    }
    if !attributes.is_resource {
        return ApiError::forbidden_path(&why);
    }
    ApiError::forbidden(
        rest::Subject {
            group: &attributes.group,
            kind: &attributes.resource,
            name: &attributes.name,
        },
        &why,
    )
}

/// How much of each object a row carries.
fn include_object(query: &[(String, String)]) -> Result<IncludeObject, ApiError> {
    let value = query.iter().find(|(name, _)| name == "includeObject");
    match value.map(|(_, value)| value.as_str()).unwrap_or_default() {
        "None" => Ok(IncludeObject::None),
        "Object" => Ok(IncludeObject::Object),
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        other => Err(ApiError::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
             'Object', 'None', or empty"
        ))),
    }
}

/// What the real server answers to headers that it cannot follow.
fn unreadable_headers(uri: &http::Uri, why: &str) -> Response<Body> {
    let place = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let text = format!("Internal Server Error: {place:?}: {why}\n");
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    render::whole(500, "text/plain; charset=utf-8", text)
}

/// The verb of a request for a built-in resource, whose paths and methods are routed before anything else.
fn built_in_verb(verb: Option<Verb>, place: &ResourcePath, resource: &Resource) -> Result<Verb, ApiError> {
    let named = !place.name.is_empty();
    if place.more || (named && resource.behaviour == Behaviour::Review) {
        return Err(ApiError::no_such_resource());
    }
    match verb {
        Some(Verb::Update | Verb::Patch) if !named => Err(ApiError::method_not_allowed()),
        Some(Verb::Create) if named && place.subresource.is_empty() => Err(ApiError::method_not_allowed()),
        Some(verb) => Ok(verb),
        None => Err(ApiError::method_not_allowed()),
    }
}

/// The verb of a request for a custom resource: one handler serves them all, whatever the path and the method.
fn custom_verb(
    head: &http::request::Parts,
    verb: Option<Verb>,
    mut place: ResourcePath,
    resource: &Resource,
) -> Result<(Verb, ResourcePath), ApiError> {
    match verb {
        Some(Verb::Update) if place.name.is_empty() && place.subresource.is_empty() => {
            Err(ApiError::bad_request("name must be provided"))
        }
        Some(Verb::Create) if place.subresource.is_empty() => {
            place.name.clear();
            Ok((Verb::Create, place))
        }
        Some(verb) => Ok((verb, place)),
        None if head.method == Method::HEAD && place.name.is_empty() => Ok((Verb::List, place)),
        None if head.method == Method::HEAD => Ok((Verb::Get, place)),
        None => Err(ApiError::method_not_supported(
            rest::Subject {
                group: &resource.group,
                kind: &resource.plural,
                name: "",
            },
            "",
        )),
    }
}

fn body_format(headers: &HeaderMap, verb: Verb, resource: &Resource) -> Result<BodyFormat, ApiError> {
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|media| media.to_str().ok())
        .unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if verb == Verb::Patch {
        return match media.as_str() {
            "application/json-patch+json" => Ok(BodyFormat::JsonPatch),
            "application/merge-patch+json" => Ok(BodyFormat::MergePatch),
            "application/strategic-merge-patch+json" => Ok(BodyFormat::StrategicMergePatch),
            "application/apply-patch+yaml" => Ok(BodyFormat::Apply),
            _ if resource.custom.is_some() => Err(ApiError::unsupported_media_type(rest::CUSTOM_PATCHES)),
            _ => Err(ApiError::unsupported_patch()),
        };
    }
    match media.as_str() {
        // Curl without a header sends a form; the real server takes an absent type as JSON.
        "" if !headers.contains_key(CONTENT_TYPE) => Ok(BodyFormat::Json),
        "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        protobuf::MEDIA_TYPE => Ok(BodyFormat::Protobuf),
        _ if !verb.mutates() => Ok(BodyFormat::Json),
        _ => Err(ApiError::unsupported_media_type(negotiate::RESOURCE_TYPES)),
    }
}

/// From here on, the object is JSON like all others.
fn from_protobuf(body: &Bytes, resource: &Resource) -> Result<Bytes, ApiError> {
    let object = protobuf::decode(body).map_err(|error| match error {
        protobuf::ProtobufError::UnknownKind(_) => ApiError::unsupported_media_type(negotiate::RESOURCE_TYPES),
        malformed => rest::unrecognized(&resource.kind, body, &malformed.to_string()),
    })?;
    serde_json::to_vec(&object).map(Bytes::from).map_err(ApiError::internal)
}

/// Paths of built-in groups are refused by what routes them, before any handler.
fn refused_form(snapshot: &Snapshot, group: &str, headers: &HeaderMap, error: ApiError) -> ApiError {
    if snapshot.is_built_in(group) && !negotiate::names_written_type(headers) {
        ApiError::not_available(negotiate::RESOURCE_TYPES)
    } else {
        error
    }
}

/// What is said of a path in a group: built-in groups answer themselves, beyond them is nobody who does.
fn not_served(snapshot: &Snapshot, group: &str) -> Result<Response<Body>, ApiError> {
    if snapshot.is_built_in(group) {
        Err(ApiError::no_such_resource())
    } else {
        Ok(not_found_page())
    }
}

/// What the real server's HTTP library answers before anyone sees the request.
fn malformed_page() -> Response<Body> {
    let mut page = render::whole(400, "text/plain; charset=utf-8", "400 Bad Request");
    page.headers_mut().remove(CACHE_CONTROL);
    page
}

/// A document about the signer of tokens, which may be kept for an hour.
fn open_id(document: &serde_json::Value, media: &'static str) -> Response<Body> {
    let mut response = render::whole(200, media, document.to_string());
    let kept = http::HeaderValue::from_static("public, max-age=3600");
    response.headers_mut().insert(CACHE_CONTROL, kept);
    response
}

fn not_found_page() -> Response<Body> {
    render::whole(404, "text/plain; charset=utf-8", "404 page not found\n")
}

fn version() -> serde_json::Value {
    json!({
        "major": "1",
        "minor": "34",
        "emulationMajor": "1",
        "emulationMinor": "34",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "33",
        "gitVersion": "v1.34.0+outrigger",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
    })
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
