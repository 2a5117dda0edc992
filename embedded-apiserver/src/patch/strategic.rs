//! Strategic merge patches: merge patches that know which lists are merged, and by which key.
//!
//! For: `kubectl apply`, `edit` and `patch` on built-in kinds. Not for: custom resources, which the real server refuses
//! this patch for too.

use super::{PatchError, Patched, no_map};
use crate::go::go_type;
use crate::schema::{Node, NodeId, Schema, decode_exact, go_json};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch with the merge keys and strategies of a built-in kind's schema.
pub fn strategic_merge_patch(live: &Value, patch: &[u8], schema: &Schema) -> Result<Patched, PatchError> {
    let (patch, strict_findings) = decode_map(patch)?;
    let merger = Merger { schema };
    let original = live.as_object().cloned().unwrap_or_default();
    let object = merger.map(original, patch, Some(schema.root))?;
    Ok(Patched {
        object: Value::Object(object),
        strict_findings,
    })
}

/// Decodes a strategic merge patch, in which null stands for an empty one.
fn decode_map(patch: &[u8]) -> Result<(Map<String, Value>, Vec<String>), PatchError> {
    match decode_exact(patch).map_err(|error| PatchError::BadRequest(error.to_string()))? {
        (Value::Object(map), findings) => Ok((map, findings)),
        (Value::Null, findings) => Ok((Map::new(), findings)),
        (other, _) => Err(PatchError::BadRequest(no_map(&other))),
    }
}

/// A patch as errors show it: as Go's `%v` prints maps; none if it is no patch.
pub fn shown(patch: &[u8]) -> Option<String> {
    decode_map(patch).ok().map(|(patch, _)| go_map(&patch))
}

struct Merger<'schema> {
    schema: &'schema Schema,
}

impl<'schema> Merger<'schema> {
    fn node(&self, id: Option<NodeId>) -> Option<&'schema Node> {
        id.map(|id| &self.schema.nodes[id])
    }

    fn map(
        &self,
        mut original: Map<String, Value>,
        mut patch: Map<String, Value>,
        id: Option<NodeId>,
    ) -> Result<Map<String, Value>, PatchError> {
        match patch.get(DIRECTIVE) {
            None => {}
            Some(Value::String(directive)) if directive == "replace" => {
                patch.remove(DIRECTIVE);
                return Ok(patch);
            }
            Some(Value::String(directive)) if directive == "delete" => return Ok(Map::new()),
            Some(other) => return Err(unknown_directive(other, &patch)),
        }
        retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch, id)?;
        let node = self.node(id);
        for (key, value) in patch {
            if let Some(field) = key.strip_prefix(DELETE_FROM_LIST) {
                if let (Some(Value::Array(items)), Value::Array(gone)) = (original.get_mut(field), &value) {
                    items.retain(|item| !gone.contains(item));
                }
                continue;
            }
            if value.is_null() {
                original.remove(&key);
                continue;
            }
            let child = node.and_then(|node| node.child(&key));
            let merged = match (original.remove(&key), value) {
                (Some(Value::Object(old)), Value::Object(new)) => Some(Value::Object(self.map(old, new, child)?)),
                (Some(Value::Array(old)), Value::Array(new)) => {
                    Some(Value::Array(self.list_or_replace(old, new, child)?))
                }
                (_, value) => without_directives(without_nulls(value)),
            };
            if let Some(merged) = merged {
                original.insert(key, merged);
            }
        }
        Ok(original)
    }

    /// Lists that come with the order of their elements are merged first, then put into that order.
    fn ordered_lists(
        &self,
        original: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
        id: Option<NodeId>,
    ) -> Result<(), PatchError> {
        let orders: Vec<String> = patch
            .keys()
            .filter(|key| key.starts_with(ELEMENT_ORDER))
            .cloned()
            .collect();
        for key in orders {
            let field = key[ELEMENT_ORDER.len()..].to_owned();
            let order = list_of(patch.remove(&key).unwrap_or_default())?;
            let child = self.node(id).and_then(|node| node.child(&field));
            let merge_key = self.node(child).and_then(|node| node.patch_merge_key.as_deref());
            let server = original.remove(&field).map(list_of).transpose()?;
            let patched = patch.remove(&field).map(list_of).transpose()?;
            if let Some(patched) = &patched {
                consistent(patched, &order, merge_key)?;
            }
            let server_order = server.clone().unwrap_or_default();
            let merged = match (server, patched) {
                (None, None) => continue,
                (Some(server), None) => server,
                (None, Some(patched)) => patched.into_iter().filter_map(without_directives).collect(),
                (Some(server), Some(patched)) => self.list_or_replace(server, patched, child)?,
            };
            original.insert(field, Value::Array(in_order(merged, &order, &server_order, merge_key)));
        }
        Ok(())
    }

    fn list_or_replace(
        &self,
        original: Vec<Value>,
        patch: Vec<Value>,
        id: Option<NodeId>,
    ) -> Result<Vec<Value>, PatchError> {
        match self.node(id) {
            Some(node) if node.patch_merge => self.list(original, patch, node),
            _ => Ok(patch),
        }
    }

    fn list(&self, original: Vec<Value>, patch: Vec<Value>, node: &Node) -> Result<Vec<Value>, PatchError> {
        same_types(&original, &patch)?;
        let Some(merge_key) = node.patch_merge_key.as_deref() else {
            let server_order = original.clone();
            let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
            for item in original.into_iter().chain(patch.iter().cloned()) {
                if !merged.contains(&item) {
                    merged.push(item);
                }
            }
            return Ok(in_order(merged, &patch, &server_order, None));
        };
        let mut merged = original;
        let mut plain = Vec::with_capacity(patch.len());
        let mut replace = false;
        for item in patch {
            let Value::Object(element) = item else {
                return Err(PatchError::Unclassified(format!(
                    "cannot merge lists without merge key for {merge_key}"
                )));
            };
            match element.get(DIRECTIVE).map(|directive| directive.as_str()) {
                None => plain.push(element),
                Some(Some("delete")) => {
                    let key = element
                        .get(merge_key)
                        .ok_or_else(|| no_merge_key(&element, merge_key))?;
                    merged.retain(|candidate| candidate.get(merge_key) != Some(key));
                }
                Some(Some("replace")) => replace = true,
                Some(Some("merge")) => {
                    return Err(PatchError::Unclassified(
                        "merging lists cannot yet be specified in the patch".to_owned(),
                    ));
                }
                Some(_) => {
                    let directive = element.get(DIRECTIVE).cloned().unwrap_or_default();
                    return Err(unknown_directive(&directive, &element));
                }
            }
        }
        if replace {
            return Ok(plain.into_iter().map(Value::Object).collect());
        }
        let server_order = merged.clone();
        let patch_order: Vec<Value> = plain.iter().cloned().map(Value::Object).collect();
        for element in plain {
            let key = element
                .get(merge_key)
                .ok_or_else(|| no_merge_key(&element, merge_key))?;
            match merged
                .iter_mut()
                .find(|candidate| candidate.get(merge_key) == Some(key))
            {
                Some(Value::Object(found)) => {
                    *found = self.map(std::mem::take(found), element, node.items)?;
                }
                _ => merged.push(Value::Object(element)),
            }
        }
        Ok(in_order(merged, &patch_order, &server_order, Some(merge_key)))
    }
}

/// `$retainKeys` lists all keys that stay; the patch may set no others.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = directive else {
        return Err(PatchError::BadRequest("invalid patch format of retainKeys".to_owned()));
    };
    let retained = |key: &String| keys.iter().any(|kept| kept == key.as_str());
    let directs = |key: &str| key.starts_with(DELETE_FROM_LIST) || key.starts_with(ELEMENT_ORDER);
    if patch
        .iter()
        .any(|(key, value)| !directs(key) && !value.is_null() && !retained(key))
    {
        return Err(PatchError::BadRequest("invalid patch format of retainKeys".to_owned()));
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

/// A list; anything else is refused.
fn list_of(value: Value) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(items) => Ok(items),
        // As Go prints the type of nothing.
        Value::Null => Err(PatchError::Unclassified(
            "expected a []interface {}, but received a %!s(<nil>)".to_owned(),
        )),
        other => Err(PatchError::Unclassified(format!(
            "expected a []interface {{}}, but received a {}",
            go_type(&other)
        ))),
    }
}

/// The elements of lists that are merged must be all of one type.
fn same_types(original: &[Value], patch: &[Value]) -> Result<(), PatchError> {
    let mut types = original.iter().chain(patch).map(go_type);
    let Some(first) = types.next() else { return Ok(()) };
    if first == "[]interface {}" {
        return Err(PatchError::invalid("lists of lists are not supported"));
    }
    if types.all(|other| other == first) {
        return Ok(());
    }
    let lists = [original, patch].map(|list| go_print(&Value::Array(list.to_vec())));
    Err(PatchError::Unclassified(format!(
        "list element types are not identical: [{}]",
        lists.join(" ")
    )))
}

/// The identity of a list element: its merge key's value, or itself.
fn identity<'value>(item: &'value Value, merge_key: Option<&str>) -> Option<&'value Value> {
    match merge_key {
        Some(key) => item.get(key),
        None => Some(item),
    }
}

fn position(list: &[Value], item: &Value, merge_key: Option<&str>) -> Option<usize> {
    let wanted = identity(item, merge_key)?;
    list.iter()
        .position(|candidate| identity(candidate, merge_key) == Some(wanted))
}

/// Elements that the patch knows come in its order; the others keep their places before those that followed them.
fn in_order(merged: Vec<Value>, patch_order: &[Value], server_order: &[Value], merge_key: Option<&str>) -> Vec<Value> {
    let (mut patched, mut server_only): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| position(patch_order, item, merge_key).is_some());
    patched.sort_by_key(|item| position(patch_order, item, merge_key));
    server_only.sort_by_key(|item| position(server_order, item, merge_key).unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(patched.len() + server_only.len());
    let mut server_only = server_only.into_iter().peekable();
    for item in patched {
        while let Some(candidate) = server_only.peek() {
            let before = match (
                position(server_order, candidate, merge_key),
                position(server_order, &item, merge_key),
            ) {
                (Some(candidate), Some(item)) => candidate < item,
                _ => false,
            };
            if !before {
                break;
            }
            result.extend(server_only.next());
        }
        result.push(item);
    }
    result.extend(server_only);
    result
}

/// The elements of the patch must come in the order that it declares.
fn consistent(patch: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut next = 0;
    for item in patch {
        if item
            .get(DIRECTIVE)
            .is_some_and(|directive| directive == "delete" || directive == "replace")
        {
            continue;
        }
        match position(&order[next.min(order.len())..], item, merge_key) {
            Some(offset) => next += offset + 1,
            None => {
                let [patch, order] = [patch, order].map(|list| go_print(&Value::Array(list.to_vec())));
                return Err(PatchError::Unclassified(format!(
                    "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n"
                )));
            }
        }
    }
    Ok(())
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// What is left of a patch's value when there is nothing to merge it with.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) => {
            if map.contains_key(DIRECTIVE) {
                return None;
            }
            Some(Value::Object(
                map.into_iter()
                    .filter_map(|(key, value)| without_directives(value).map(|value| (key, value)))
                    .collect(),
            ))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

fn no_merge_key(element: &Map<String, Value>, merge_key: &str) -> PatchError {
    PatchError::Unclassified(format!(
        "map: {} does not contain declared merge key: {merge_key}",
        go_map(element)
    ))
}

fn unknown_directive(directive: &Value, map: &Map<String, Value>) -> PatchError {
    let name = directive.as_str().map_or_else(|| directive.to_string(), str::to_owned);
    PatchError::Unclassified(format!("unknown patch type: {name} in map: {}", go_map(map)))
}

/// A map as Go's `%v` prints it.
fn go_map(map: &Map<String, Value>) -> String {
    let members: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}:{}", go_print(value)))
        .collect();
    format!("map[{}]", members.join(" "))
}

fn go_print(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => go_map(map),
        other => go_json(other),
    }
}
