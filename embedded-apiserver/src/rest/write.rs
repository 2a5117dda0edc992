//! Create and update: from a body to a stored object.

use std::sync::Arc;

use serde_json::Value;

use super::object::{is_deleting, metadata_text, set_metadata};
use super::{ApiError, BodyFormat, Core, Reply, Request, convert, decode, prepare, role, strategy};
use crate::managed_fields;
use crate::registry::{Behaviour, custom};
use crate::schema::{go_quote, in_document_order};
use crate::storage::{Change, Encoded, Expect, Guard, Key, Store, Stored, Write, WriteError};

/// How often a write that lost a race is tried again before the client is told.
pub const ATTEMPTS: usize = 16;

/// Creates an object from a body.
pub async fn create(core: &Arc<Core>, request: &Request, warnings: &mut Vec<String>) -> Result<Reply, ApiError> {
    let object = read(request, warnings)?;
    if metadata_text(&object, "resourceVersion")
        .parse::<u64>()
        .is_ok_and(|revision| revision != 0)
    {
        return Err(ApiError::unclassified(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    create_object(core, request, object, true, warnings).await
}

/// Reads the body of a create or an update.
pub fn read(request: &Request, warnings: &mut Vec<String>) -> Result<Value, ApiError> {
    let (mut object, mut findings) = decode::object(request, decode::Expected::by(request))?;
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let refuse = |why: String| decode::not_handled(request, &kind, &request.version, &why);
    let unknown = prepare::prune_and_default(request, &mut object)
        .map_err(|why| refuse(decode::as_written(&request.body, &why).into_owned()))?;
    findings.extend(unknown);
    if request.resource.custom.is_none() && request.format == BodyFormat::Json {
        in_document_order(&request.body, &mut findings);
    }
    prepare::judge_findings(request, findings, warnings).map_err(refuse)?;
    warnings.extend(prepare::single_owners(&mut object));
    Ok(object)
}

/// How often a generated name is drawn again when it is taken.
const NAME_ATTEMPTS: usize = 8;

/// Creates a decoded object; `manage` records its fields' manager.
pub async fn create_object(
    core: &Arc<Core>,
    request: &Request,
    object: Value,
    manage: bool,
    warnings: &mut Vec<String>,
) -> Result<Reply, ApiError> {
    let generates = metadata_text(&object, "name").is_empty() && !metadata_text(&object, "generateName").is_empty();
    if generates {
        for _ in 1..NAME_ATTEMPTS {
            match create_once(core, request, object.clone(), manage, warnings).await {
                Err(error) if error.reason == "AlreadyExists" => {}
                other => return other,
            }
        }
    }
    create_once(core, request, object, manage, warnings).await
}

async fn create_once(
    core: &Arc<Core>,
    request: &Request,
    mut object: Value,
    manage: bool,
    warnings: &mut Vec<String>,
) -> Result<Reply, ApiError> {
    prepare::check_place(request, &mut object)?;
    let asked = match metadata_text(&object, "name") {
        "" => metadata_text(&object, "generateName").to_owned(),
        name => name.to_owned(),
    };
    check_namespace(core, request, &asked)?;
    role::confirm(core, request, &object, None)?;
    convert::check_conversion(&request.resource, &request.version, &request.resource.storage_version)?;
    prepare::generate_name(&mut object);
    if let Some(why) = crate::builtin::refusal(&request.resource, &object) {
        return Err(ApiError::forbidden(
            request.subject(metadata_text(&object, "name")),
            &why,
        ));
    }
    prepare::create(request, &mut object, manage)?;
    prepare::check(request, &object, None)?;
    warnings.extend(prepare::warnings(request, &object, None));
    let name = metadata_text(&object, "name").to_owned();
    if request
        .resource
        .custom
        .as_ref()
        .is_some_and(|origin| origin.terminating)
    {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::forbidden(request.subject(&name), why));
    }
    let key = request.key(&name);
    if request.options.dry_run {
        if core.store.get(&key).is_some() {
            return Err(taken(core, request, &name));
        }
        return value_reply(201, &object);
    }
    let mut guards = Vec::new();
    if request.resource.namespaced {
        guards.push(Guard::Live(Key::new(&NAMESPACES.into(), "", &request.namespace)));
    }
    if request.resource.custom.is_some() {
        guards.push(Guard::Live(Key::new(
            &crate::registry::DEFINITIONS.into(),
            "",
            &request.resource.storage,
        )));
    }
    let written = put(core, request, &name, Expect::Absent, object, guards).await;
    let stored = match written {
        Ok(stored) => stored,
        Err(WriteError::Guard) => {
            check_namespace(core, request, &name)?;
            return Err(ApiError::unavailable(
                "the namespace changed at the same time; try again",
            ));
        }
        Err(WriteError::Exists(_)) => return Err(taken(core, request, &name)),
        Err(error) => return Err(storage_error(request, &name, &error)),
    };
    after_write(core, request.resource.behaviour, &name).await;
    Ok(Reply::Object {
        code: 201,
        bytes: convert::bytes(&request.resource, &request.version, &stored)?,
    })
}

/// The refusal of a name that another object has, or had until it goes.
fn taken(core: &Core, request: &Request, name: &str) -> ApiError {
    let mut error = ApiError::already_exists(request.subject(name));
    if core
        .store
        .get(&request.key(name))
        .is_some_and(|stored| stored.deleting())
    {
        error.message = format!("object is being deleted: {}", error.message);
    }
    error
}

/// The storage name of namespaces.
pub const NAMESPACES: &str = "namespaces";

/// New objects need a namespace that exists and stays.
fn check_namespace(core: &Core, request: &Request, name: &str) -> Result<(), ApiError> {
    if !request.resource.namespaced {
        return Ok(());
    }
    let namespace = &request.namespace;
    let key = Key::new(&NAMESPACES.into(), "", namespace);
    let Some(stored) = core.store.get(&key) else {
        return Err(ApiError::not_found(super::Subject {
            group: "",
            kind: NAMESPACES,
            name: namespace,
        }));
    };
    if stored.deleting() {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(
            ApiError::forbidden(request.subject(name), &why).with_cause(&super::cause(
                "NamespaceTerminating",
                "metadata.namespace",
                format!("namespace {namespace} is being terminated"),
            )),
        );
    }
    Ok(())
}

/// Replaces an object with a body.
pub async fn update(core: &Arc<Core>, request: &Request, warnings: &mut Vec<String>) -> Result<Reply, ApiError> {
    let mut object = read(request, warnings)?;
    prepare::check_place(request, &mut object)?;
    let uid = metadata_text(&object, "uid").to_owned();
    let missing = core.store.get(&request.key(&request.name)).is_none();
    if missing && request.subresource.is_empty() && request.resource.allows_create_on_update() {
        if !uid.is_empty() {
            return Err(uid_mismatch(request, &uid, ""));
        }
        return create_object(core, request, object, true, warnings).await;
    }
    replace(core, request, true, warnings, |live, _| {
        let present = metadata_text(live, "uid");
        if !uid.is_empty() && uid != present {
            return Err(uid_mismatch(request, &uid, present));
        }
        Ok(object.clone())
    })
    .await
}

/// The refusal of a UID that is not the object's, with the place where the real server keeps the object.
pub fn uid_mismatch(request: &Request, wanted: &str, present: &str) -> ApiError {
    let resource = &request.resource;
    let kept = match (
        resource.custom.is_some() || resource.group == "apiextensions.k8s.io",
        resource.plural.as_str(),
    ) {
        (true, plural) => format!("{}/{plural}", resource.group),
        (false, "nodes") => "minions".to_owned(),
        (false, plural) => plural.to_owned(),
    };
    let place: Vec<&str> = [kept.as_str(), &request.namespace, &request.name]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
         failed: UID in precondition: {wanted}, UID in object meta: {present}",
        place.join("/")
    );
    ApiError::conflict(request.subject(&request.name), &why)
}

/// The revision that a write is bound to, 0 for none.
fn wanted_revision(object: &Value) -> Result<u64, ApiError> {
    match metadata_text(object, "resourceVersion") {
        "" => Ok(0),
        text => text.parse().map_err(|_| {
            ApiError::unclassified(format!("strconv.ParseUint: parsing {}: invalid syntax", go_quote(text)))
        }),
    }
}

/// Reads the object, has it changed, writes it; goes round again when another write came between.
///
/// A revision in the changed object is a condition: if it is not the present one, the write is refused. `manage`
/// records the manager of the changed fields. What is warned of in several rounds is told once, when it is answered.
pub async fn replace(
    core: &Arc<Core>,
    request: &Request,
    manage: bool,
    warnings: &mut Vec<String>,
    mut change: impl FnMut(&Value, &mut Vec<String>) -> Result<Value, ApiError>,
) -> Result<Reply, ApiError> {
    let name = &request.name;
    let key = request.key(name);
    for _ in 0..ATTEMPTS {
        let stored = core
            .store
            .get(&key)
            .ok_or_else(|| ApiError::not_found(request.subject(name)))?;
        let live = convert::load(&request.resource, &request.version, &stored)?;
        let mut object = change(&live, warnings)?;
        match wanted_revision(&object)? {
            0 if request.resource.allows_unconditional_update() => {}
            0 => {
                let missing = super::cause(
                    "FieldValueInvalid",
                    "metadata.resourceVersion",
                    "Invalid value: 0: must be specified for an update",
                );
                return Err(ApiError::invalid(request.subject(name), &[missing]));
            }
            wanted if wanted == stored.revision => {}
            _ => return Err(ApiError::modified(request.subject(name))),
        }
        role::confirm(core, request, &object, Some(&live))?;
        prepare::update(request, &live, &mut object, manage)?;
        set_metadata(&mut object, "resourceVersion", Some(stored.revision.to_string().into()));
        prepare::check(request, &object, Some(&live))?;
        warnings.extend(prepare::warnings(request, &object, Some(&live)));
        if prepare::is_finished(request, &object) {
            if request.options.dry_run {
                return value_reply(200, &object);
            }
            match remove(&core.store, &key, &stored, Vec::new()).await {
                Ok(_) => {
                    after_write(core, request.resource.behaviour, name).await;
                    return value_reply(200, &object);
                }
                Err(WriteError::Conflict(_) | WriteError::NotFound) => continue,
                Err(error) => return Err(storage_error(request, name, &error)),
            }
        }
        if prepare::is_unchanged(&live, &object) {
            return Ok(Reply::Object {
                code: 200,
                bytes: convert::bytes(&request.resource, &request.version, &stored)?,
            });
        }
        if request.options.dry_run {
            return value_reply(200, &object);
        }
        match put(
            core,
            request,
            name,
            Expect::Revision(stored.revision),
            object,
            Vec::new(),
        )
        .await
        {
            Ok(stored) => {
                after_write(core, request.resource.behaviour, name).await;
                return Ok(Reply::Object {
                    code: 200,
                    bytes: convert::bytes(&request.resource, &request.version, &stored)?,
                });
            }
            Err(WriteError::Conflict(_) | WriteError::NotFound) => {}
            Err(error) => return Err(storage_error(request, name, &error)),
        }
    }
    Err(ApiError::modified(request.subject(name)))
}

/// How large an object may be, in bytes: what etcd takes in one request (1.5 MiB), less what such a request has around
/// the object.
const MAX_STORED: usize = 1536 * 1024 - 512;
/// What the client of etcd does not even send.
const MAX_SENT: usize = 2 * 1024 * 1024;

/// What the real server passes on of etcd's refusal, or of its client's.
fn too_large(size: usize) -> String {
    if size < MAX_SENT {
        return "etcdserver: request is too large".to_owned();
    }
    format!("rpc error: code = ResourceExhausted desc = trying to send message larger than max ({size} vs. {MAX_SENT})")
}

/// Writes an object of the request's version.
async fn put(
    core: &Core,
    request: &Request,
    name: &str,
    expect: Expect,
    object: Value,
    guards: Vec<Guard>,
) -> Result<Arc<Stored>, WriteError> {
    let mut object = convert::to_storage(&request.resource, &request.version, object);
    let encode =
        |object: &Value| Encoded::new(object).map_err(|error| WriteError::Unavailable(error.to_string().into()));
    let mut encoded = encode(&object)?;
    // Who owns which field is given up before the object is refused, but not by those who say what they own.
    if encoded.size() > MAX_STORED && request.format != BodyFormat::Apply {
        set_metadata(&mut object, "managedFields", None);
        encoded = encode(&object)?;
    }
    if encoded.size() > MAX_STORED {
        return Err(WriteError::TooLarge(encoded.size()));
    }
    core.store
        .write(Write {
            key: request.key(name),
            expect,
            guards,
            change: Change::Put(encoded),
        })
        .await
}

/// Removes an object in the given revision. Watchers get its last stored state.
pub async fn remove(store: &Store, key: &Key, stored: &Stored, guards: Vec<Guard>) -> Result<Arc<Stored>, WriteError> {
    let unreadable = |error: &dyn std::fmt::Display| WriteError::Unavailable(error.to_string().into());
    let last = stored.value().map_err(|error| unreadable(&error))?;
    let encoded = Encoded::new(&last).map_err(|error| unreadable(&error))?;
    let expect = Expect::Revision(stored.revision);
    store
        .write(Write {
            key: key.clone(),
            expect,
            guards,
            change: Change::Delete(encoded),
        })
        .await
}

/// Errors of the store that a client can only be told.
pub fn storage_error(request: &Request, name: &str, error: &WriteError) -> ApiError {
    match error {
        WriteError::Exists(_) => ApiError::already_exists(request.subject(name)),
        WriteError::Conflict(_) => ApiError::modified(request.subject(name)),
        WriteError::NotFound => ApiError::not_found(request.subject(name)),
        WriteError::Guard => ApiError::unavailable("the object changed at the same time; try again"),
        WriteError::TooLarge(size) => ApiError::unclassified(too_large(*size)),
        WriteError::Unavailable(_) => ApiError::unclassified(error.to_string()),
    }
}

/// An object that is answered but was not read from the store.
pub fn value_reply(code: u16, object: &Value) -> Result<Reply, ApiError> {
    let bytes = serde_json::to_vec(object).map_err(ApiError::internal)?.into();
    Ok(Reply::Object { code, bytes })
}

/// Changes a stored object for the server's own purposes; `change` says whether there is anything to write.
///
/// An object that is being deleted and has nothing left to wait for is removed.
pub async fn rewrite(core: &Core, key: &Key, mut change: impl FnMut(&mut Value) -> bool) -> Result<(), WriteError> {
    loop {
        let Some(stored) = core.store.get(key) else {
            return Ok(());
        };
        let unreadable = |error: &dyn std::fmt::Display| WriteError::Unavailable(error.to_string().into());
        let mut object = stored.value().map_err(|error| unreadable(&error))?;
        let changed = change(&mut object);
        let registry = core.registry.snapshot();
        let held = registry
            .by_storage(&key.resource)
            .is_some_and(|resource| strategy::holds_back_deletion(resource, &object));
        let done = super::object::finalizers(&object).is_empty() && !super::object::has_grace(&object) && !held;
        let written = if is_deleting(&object) && done {
            let guards = match key.resource.as_ref() {
                NAMESPACES => vec![Guard::NamespaceEmpty(key.object.name.to_string())],
                // A definition has the name under which its objects are stored.
                crate::registry::DEFINITIONS => vec![Guard::ResourceEmpty(Arc::clone(&key.object.name))],
                _ => Vec::new(),
            };
            remove(&core.store, key, &stored, guards).await
        } else if changed {
            let encoded = Encoded::new(&object).map_err(|error| unreadable(&error))?;
            let expect = Expect::Revision(stored.revision);
            core.store
                .write(Write {
                    key: key.clone(),
                    expect,
                    guards: Vec::new(),
                    change: Change::Put(encoded),
                })
                .await
        } else {
            return Ok(());
        };
        match written {
            Ok(_) => return Ok(()),
            Err(WriteError::Conflict(_) | WriteError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The name under which the server's own controllers own fields.
const CONTROLLER: &str = "kube-controller-manager";

/// As [`rewrite`], with the fields that change owned by the controllers.
pub async fn tend(
    core: &Core,
    key: &Key,
    subresource: &str,
    change: impl FnMut(&mut Value) -> bool,
) -> Result<(), WriteError> {
    tend_as(core, key, CONTROLLER, subresource, change).await
}

/// As [`rewrite`], with the fields that change owned by a manager.
pub async fn tend_as(
    core: &Core,
    key: &Key,
    manager: &str,
    subresource: &str,
    mut change: impl FnMut(&mut Value) -> bool,
) -> Result<(), WriteError> {
    rewrite(core, key, |object| {
        let before = object.clone();
        if !change(object) {
            return false;
        }
        let registry = core.registry.snapshot();
        let resource = registry.by_storage(&key.resource);
        let version = resource.and_then(|resource| resource.served(&resource.storage_version));
        if let (Some(resource), Some(schema)) = (resource, version.and_then(|version| version.schema.as_ref())) {
            let api_version = resource.api_version(&resource.storage_version);
            let now = jiff::Timestamp::now();
            managed_fields::update(Some(&before), object, manager, subresource, &api_version, schema, now);
        }
        true
    })
    .await
}

/// What follows a write before it is answered: definitions are settled and served.
pub async fn after_write(core: &Arc<Core>, behaviour: Behaviour, name: &str) {
    if behaviour == Behaviour::CustomResourceDefinition {
        settle_definition(core, name).await;
    }
}

/// Brings a definition's status in order and the served resources up to date.
pub async fn settle_definition(core: &Core, name: &str) {
    let key = Key::new(&crate::registry::DEFINITIONS.into(), "", name);
    let now = super::now_text(jiff::Timestamp::now());
    let settled = rewrite(core, &key, |definition| {
        let status = custom::settled_status(definition, &taken_names(core, name), &now);
        let changed = definition.get("status") != Some(&status);
        super::object::set_field(definition, "status", Some(status));
        changed
    })
    .await;
    if let Err(error) = settled {
        tracing::error!(definition = name, %error, "unable to settle a definition");
    }
    core.registry.reload(&core.store);
}

/// The names that other definitions of the same group have been given.
fn taken_names(core: &Core, name: &str) -> custom::TakenNames {
    let group = name.split_once('.').map_or("", |(_, group)| group);
    let mut taken = custom::TakenNames::default();
    for (other, stored) in core.store.list_all(crate::registry::DEFINITIONS, None) {
        let same_group = other.name.split_once('.').is_some_and(|(_, other)| other == group);
        if *other.name != *name
            && same_group
            && let Ok(definition) = stored.value()
        {
            taken.add(&definition);
        }
    }
    taken
}
