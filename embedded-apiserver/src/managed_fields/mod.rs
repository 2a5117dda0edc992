//! Field ownership: `metadata.managedFields` and server-side apply.
//!
//! For: true structured-merge-diff semantics as pure functions. Not for: storing, validating or defaulting objects; the
//! caller does that with the result.

mod entry;
mod set;
mod skeleton;
#[cfg(test)]
mod tests;
mod typed;

use crate::schema::Schema;
use entry::{Entry, Operation};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use set::FieldSet;
use typed::Typed;

/// One field that another manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The manager, worded as in the real message: `"kubectl" using v1`, `"kubectl" with subresource "status" using v1`.
    pub manager: String,
    /// The field's path, such as `.spec.replicas`.
    pub field: String,
}

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Others own fields with other values: 409, reason `Conflict`; each conflict is a cause `FieldManagerConflict`
    /// with message `conflict with …` and its field.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied object does not fit the schema or carries what an applied object must not: 400 or 500 as `code`
    /// says.
    #[error("{message}")]
    Refused {
        /// The HTTP status code: 400 (`BadRequest`) or 500 (no reason).
        code: u16,
        /// What was wrong.
        message: String,
    },
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.manager, only.field
        );
    }
    let mut lines = Vec::new();
    let mut manager = None;
    for conflict in conflicts {
        if manager != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", conflict.manager));
            manager = Some(&conflict.manager);
        }
        lines.push(format!("- {}", conflict.field));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Fields that nobody owns.
const UNOWNED: [&[&str]; 12] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:clusterName"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:resourceVersion"],
];

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Applies `applied` on `live` for `manager`.
///
/// The result carries its new `metadata.managedFields`. When nothing changed it equals `live`, timestamps included.
/// For the main resource of a kind with a status subresource, the caller takes `status` out of `applied` first; for
/// `subresource == "status"`, everything but the status and the metadata is ignored here.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    subresource: &str,
    schema: &Schema,
    now: Timestamp,
) -> Result<Value, ApplyError> {
    let typed = Typed { schema };
    if applied
        .get("metadata")
        .and_then(|metadata| metadata.get("managedFields"))
        .is_some_and(|list| !list.is_null())
    {
        let message = "metadata.managedFields must be nil".to_owned();
        return Err(ApplyError::Refused { code: 400, message });
    }
    let mut errors = Vec::new();
    typed.check(typed.root(), "", applied, &mut errors);
    if !errors.is_empty() {
        let listed = match errors.as_slice() {
            [only] => only.clone(),
            _ => format!("errors:\n  {}", errors.join("\n  ")),
        };
        let message = format!("failed to create typed patch object ({}): {listed}", described(applied));
        return Err(ApplyError::Refused { code: 500, message });
    }
    let narrowed;
    let config = if subresource == "status" {
        narrowed = only_status(applied);
        &narrowed
    } else {
        applied
    };

    let mut base = live.cloned().unwrap_or_else(|| skeleton::empty(applied));
    let mut entries = entry::decode(managed_fields_of(&base)).ok_or_else(|| ApplyError::Refused {
        code: 500,
        message: "failed to decode managed fields: invalid entry".to_owned(),
    })?;
    drop_managed_fields(&mut base);
    let api_version = text(applied, "apiVersion").to_owned();
    let time = now_text(now);
    if entries.is_empty() && live.is_some() {
        // What was there before the first apply gets an owner of its own.
        let empty = skeleton::empty(&base);
        let owner = owner("before-first-apply", Operation::Update, &api_version, subresource);
        update_entries(&typed, &empty, &base, &mut entries, owner, &time);
    }

    let owner = owner(manager, Operation::Apply, &api_version, subresource);
    let request = Request {
        typed: &typed,
        live: &base,
        config,
        owner: &owner,
    };
    let (mut object, mut entries) = match request.apply(entries.clone(), force) {
        Ok(done) => done,
        Err(conflicts) => {
            let left = match (manager, request.client_side_applied()) {
                ("kubectl", Some(allowed)) => conflicts
                    .into_iter()
                    .filter(|(_, path)| !path.is_subset(&allowed))
                    .collect(),
                _ => conflicts,
            };
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(listed(left)));
            }
            request
                .apply(entries, true)
                .map_err(|conflicts| ApplyError::Conflicts(listed(conflicts)))?
        }
    };
    let live_without = &base;
    let changed = object != *live_without || live.is_none();
    if changed && let Some(own) = entries.iter_mut().find(|entry| entry.is_same_owner(&owner)) {
        own.time = Some(time);
    }
    if manager == "kubectl" && subresource.is_empty() {
        renew_last_applied(&mut object, applied);
    }
    entry::encode(&mut object, entries);
    Ok(object)
}

/// Whether the fields of an object can be owned: its values are of the types that its schema says.
pub fn fits(object: &Value, schema: &Schema) -> bool {
    schema.is_built_in() || Typed { schema }.fits(object)
}

/// Moves field ownership after a write that is not an apply (create, update, the other patches).
///
/// `new` is the object as it will be stored, with the `managedFields` that the client sent (or none). Afterwards it
/// has the right ones.
pub fn update(
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    api_version: &str,
    schema: &Schema,
    now: Timestamp,
) {
    let sent = if subresource.is_empty() {
        managed_fields_of(new)
    } else {
        None
    };
    let known = || entry::decode(old.and_then(managed_fields_of)).unwrap_or_default();
    let mut entries = match sent {
        Some(Value::Array(list)) if list.is_empty() || list.iter().all(|entry| *entry == json!({})) => Vec::new(),
        Some(list) => entry::decode(Some(list))
            .filter(|entries| !entries.is_empty())
            .unwrap_or_else(known),
        None => known(),
    };
    drop_managed_fields(new);
    if entries.is_empty() && old.is_some() {
        // Ownership was given up; it starts again with the first apply.
        return;
    }
    let typed = Typed { schema };
    let owner = owner(manager, Operation::Update, api_version, subresource);
    let empty;
    let old = match old {
        Some(old) => old,
        None => {
            empty = skeleton::empty(new);
            &empty
        }
    };
    // Types of built-in kinds are right once they are decoded; of custom ones only validation says so, which may not
    // look at everything. What has no type is nobody's.
    if [&*new, old].into_iter().any(|object| !fits(object, schema)) {
        return;
    }
    update_entries(&typed, old, new, &mut entries, owner, &now_text(now));
    entry::cap_updaters(&mut entries);
    entry::encode(new, entries);
}

fn owner(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Entry {
    Entry {
        manager: if manager.is_empty() { "unknown" } else { manager }.to_owned(),
        operation,
        api_version: api_version.to_owned(),
        subresource: subresource.to_owned(),
        time: None,
        fields: FieldSet::default(),
    }
}

/// What changed belongs to `owner` now, and to nobody else.
fn update_entries(typed: &Typed<'_>, old: &Value, new: &Value, entries: &mut Vec<Entry>, mut owner: Entry, time: &str) {
    let mut difference = typed.compare(typed.root(), Some(old), Some(new));
    // The managed fields themselves are not part of what is compared.
    for set in [&mut difference.removed, &mut difference.modified, &mut difference.added] {
        set.remove(&["f:metadata", "f:managedFields"]);
    }
    let mut changed = difference.modified.union(&difference.added);
    if !changed.is_empty() || !difference.removed.is_empty() {
        for entry in entries.iter_mut() {
            entry.fields = std::mem::take(&mut entry.fields)
                .difference(&changed)
                .difference(&difference.removed);
        }
        entries.retain(|entry| !entry.fields.is_empty());
    }
    strip(&mut changed);
    if changed.is_empty() {
        return;
    }
    match entries.iter_mut().find(|entry| entry.is_same_owner(&owner)) {
        Some(own) => {
            own.fields = std::mem::take(&mut own.fields).union(&changed);
            own.time = Some(time.to_owned());
        }
        None => {
            owner.fields = changed;
            owner.time = Some(time.to_owned());
            entries.push(owner);
        }
    }
}

/// An apply, with its managers known.
struct Request<'request> {
    typed: &'request Typed<'request>,
    live: &'request Value,
    config: &'request Value,
    owner: &'request Entry,
}

/// The owners in conflict, each with one path.
type Conflicting = Vec<(Entry, FieldSet)>;

impl Request<'_> {
    fn apply(&self, mut entries: Vec<Entry>, force: bool) -> Result<(Value, Vec<Entry>), Conflicting> {
        let root = self.typed.root();
        let merged = self
            .typed
            .merge(root, Some(self.live), Some(self.config))
            .unwrap_or_else(|| self.config.clone());
        let mut set = self.typed.field_set(root, self.config);
        set.member = false;
        let position = entries.iter().position(|entry| entry.is_same_owner(self.owner));
        let (last, time) = match position {
            Some(position) => {
                let last = entries.remove(position);
                (last.fields, last.time)
            }
            None => (FieldSet::default(), None),
        };
        let mut own = Entry {
            time,
            fields: set,
            ..self.owner.clone()
        };
        let object = self.prune(merged, &entries, &own.fields, &last);

        let difference = self.typed.compare(root, Some(self.live), Some(&object));
        let changed = difference.modified.union(&difference.added);
        let mut conflicts = Vec::new();
        for entry in &mut entries {
            let taken = entry.fields.intersection(&changed);
            if !taken.is_empty() {
                conflicts.push((entry.clone(), taken.clone()));
            }
            entry.fields = std::mem::take(&mut entry.fields)
                .difference(&taken)
                .difference(&difference.removed);
        }
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        strip(&mut own.fields);
        entries.push(own);
        entries.retain(|entry| !entry.fields.is_empty());
        Ok((object, entries))
    }

    /// Removes what this manager applied last time, does not apply now, and nobody else owns.
    fn prune(&self, merged: Value, others: &[Entry], own: &FieldSet, last: &FieldSet) -> Value {
        if last.is_empty() {
            return merged;
        }
        let (typed, root) = (self.typed, self.typed.root());
        let last = typed.with_structures(root, last);
        let pruned = typed.remove(root, &merged, &last);
        let present = typed.with_structures(root, &typed.field_set(root, &merged));

        // Back comes what others, or the new configuration, own…
        let owned = others
            .iter()
            .fold(own.clone(), |owned, entry| owned.union(&entry.fields));
        let kept = typed
            .with_structures(root, &typed.field_set(root, &pruned))
            .union(&typed.with_structures(root, &owned));
        let pruned = typed.remove(root, &merged, &present.clone().difference(&kept));

        // …and what went along although this manager never owned it.
        let kept = typed.with_structures(root, &typed.field_set(root, &pruned));
        let mut left = typed.remove(root, &merged, &present.difference(&kept).intersection(&last));
        typed.refill(root, &merged, &mut left);
        left
    }

    /// The fields that client-side apply set and nobody has changed since: `kubectl` may take them over.
    fn client_side_applied(&self) -> Option<FieldSet> {
        let annotation = self
            .live
            .get("metadata")?
            .get("annotations")?
            .get(LAST_APPLIED)?
            .as_str()?;
        let (applied, _) = crate::schema::decode_strict(annotation.as_bytes()).ok()?;
        if text(&applied, "apiVersion") != text(self.config, "apiVersion") {
            return None;
        }
        let root = self.typed.root();
        let difference = self.typed.compare(root, Some(&applied), Some(self.live));
        let set = self.typed.field_set(root, &applied);
        Some(
            set.difference(&difference.modified)
                .difference(&difference.added)
                .difference(&difference.removed),
        )
    }
}

/// The conflicts, one for each path, sorted by manager.
fn listed(conflicting: Conflicting) -> Vec<Conflict> {
    let mut conflicts: Vec<Conflict> = conflicting
        .iter()
        .flat_map(|(entry, fields)| {
            let manager = entry.printed();
            fields.paths().into_iter().map(move |field| Conflict {
                manager: manager.clone(),
                field,
            })
        })
        .collect();
    conflicts.sort_by(|one, other| one.manager.cmp(&other.manager));
    conflicts
}

fn strip(set: &mut FieldSet) {
    set.member = false;
    for path in UNOWNED {
        set.remove(path);
    }
}

fn only_status(applied: &Value) -> Value {
    let mut narrowed = Map::new();
    for key in ["apiVersion", "kind", "metadata", "status"] {
        if let Some(value) = applied.get(key) {
            narrowed.insert(key.to_owned(), value.clone());
        }
    }
    Value::Object(narrowed)
}

/// Keeps client-side apply's annotation in step, so that one may go back to it.
fn renew_last_applied(object: &mut Value, applied: &Value) {
    let annotation = object
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("annotations"))
        .and_then(|annotations| annotations.get_mut(LAST_APPLIED))
        .filter(|annotation| annotation.as_str().is_some_and(|text| !text.is_empty()));
    let Some(annotation) = annotation else { return };
    let mut configuration = applied.clone();
    if let Some(metadata) = configuration.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
    }
    *annotation = Value::String(format!("{configuration}\n"));
}

fn managed_fields_of(object: &Value) -> Option<&Value> {
    object
        .get("metadata")?
        .get("managedFields")
        .filter(|list| !list.is_null())
}

fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn text<'object>(object: &'object Value, key: &str) -> &'object str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn now_text(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An object as messages name it: `default/name; group/v1, Kind=Kind`.
fn described(object: &Value) -> String {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    format!(
        "{}/{}; {}",
        text(metadata, "namespace"),
        text(metadata, "name"),
        type_of(object)
    )
}

/// An object's type as messages name it: `group/v1, Kind=Kind`, with nothing before the slash for the core group.
pub fn type_of(object: &Value) -> String {
    let api_version = text(object, "apiVersion");
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={}", text(object, "kind"))
}

/// Moves one field of an object that another kind of object stands for, as the replicas that a scale shows.
///
/// Whoever owned the field loses it to `manager`, unless the field is gone. The new owner has no time, as in the real
/// server, which looks for it where it cannot be.
pub fn move_field(object: &mut Value, path: &[&str], gone: bool, manager: &str, subresource: &str, api_version: &str) {
    // Where nobody owns anything, that starts with the first apply only.
    let Some(mut entries) = entry::decode(managed_fields_of(object)).filter(|entries| !entries.is_empty()) else {
        return;
    };
    let mut field = FieldSet::leaf();
    for part in path.iter().rev() {
        let mut parent = FieldSet::default();
        parent.attach(format!("f:{part}"), field);
        field = parent;
    }
    let mut owner = owner(manager, Operation::Update, api_version, subresource);
    for entry in &mut entries {
        if entry.is_same_owner(&owner) {
            owner.time.clone_from(&entry.time);
        }
        entry.fields = std::mem::take(&mut entry.fields).difference(&field);
    }
    entries.retain(|entry| !entry.fields.is_empty() && !entry.is_same_owner(&owner));
    if !gone {
        owner.fields = field;
        entries.push(owner);
    }
    drop_managed_fields(object);
    entry::encode(object, entries);
}

/// The versions in which an object's fields are owned.
pub fn versions(object: &Value) -> Vec<&str> {
    managed_fields_of(object)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|entry| text(entry, "apiVersion"))
        .collect()
}
