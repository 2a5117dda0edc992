//! Walking values as their schema types them: field sets, comparison, merge, removal.
//!
//! For: the structured-merge-diff operations that ownership is made of. Not for: managers.

use super::set::{FieldSet, print_step};
use crate::go::{go_print, go_print_exactly, go_type};
use crate::schema::{ListType, Node, NodeId, Schema, Types};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// What differs between two objects. No path is in more than one set.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

impl Difference {
    fn attach(&mut self, step: String, below: Self) {
        // Most steps have nothing; at most one needs its own copy of the name.
        if !below.removed.is_empty() {
            self.removed.attach(step.clone(), below.removed);
        }
        if !below.modified.is_empty() {
            self.modified.attach(step.clone(), below.modified);
        }
        self.added.attach(step, below.added);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Scalars, and what is owned as a whole.
    Leaf,
    Map,
    /// A set or a map in the form of a list.
    List,
}

/// Whether elements of a list may be listed twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twice {
    Allowed,
    Refused,
}

/// The operations for one schema. A type is a node, or `None` where nothing is known: maps are granular there, lists
/// atomic.
pub(super) struct Typed<'schema> {
    pub(super) schema: &'schema Schema,
}

type Type = Option<NodeId>;

impl Typed<'_> {
    #[allow(clippy::unnecessary_wraps)] // a type like any other, and those may be unknown
    pub(super) fn root(&self) -> Type {
        Some(self.schema.root)
    }

    fn shape(&self, kind: Type, value: &Value) -> Shape {
        let node = kind.map(|id| &self.schema.nodes[id]);
        match value {
            Value::Object(_) => match node {
                Some(node) if node.map_atomic || !(node.types.is_empty() || node.types.contains(Types::OBJECT)) => {
                    Shape::Leaf
                }
                _ => Shape::Map,
            },
            Value::Array(_) => match node {
                Some(node) if node.list_type != ListType::Atomic => Shape::List,
                _ => Shape::Leaf,
            },
            _ => Shape::Leaf,
        }
    }

    fn field(&self, kind: Type, key: &str) -> Type {
        let id = kind?;
        let node = &self.schema.nodes[id];
        if key == "metadata" && (id == self.schema.root || node.embedded_resource) {
            return Some(self.schema.metadata);
        }
        node.child(key)
    }

    /// Whether the key is a declared field rather than a map's key.
    fn is_declared(&self, kind: Type, key: &str) -> bool {
        kind.is_some_and(|id| {
            let node = &self.schema.nodes[id];
            node.properties.contains_key(key)
                || ((id == self.schema.root || node.embedded_resource)
                    && ["apiVersion", "kind", "metadata"].contains(&key))
        })
    }

    fn item(&self, kind: Type) -> Type {
        kind.and_then(|id| self.schema.nodes[id].items)
    }

    /// The type below a step of a field set.
    fn below(&self, kind: Type, step: &str) -> Type {
        match step.strip_prefix("f:") {
            Some(name) => self.field(kind, name),
            None => self.item(kind),
        }
    }

    /// How a list element is known; an error text if it cannot be.
    fn step(&self, kind: Type, item: &Value) -> Result<String, String> {
        let Some(id) = kind else {
            return Err("invalid indexing of non-associative list".to_owned());
        };
        let node = &self.schema.nodes[id];
        if node.list_type == ListType::Set {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(format!("v:{scalar}")),
            };
        }
        let Value::Object(map) = item else {
            return Err(match item {
                Value::Null => "associative list with keys may not have a null element".to_owned(),
                _ => "associative list with keys may not have non-map elements".to_owned(),
            });
        };
        let mut keys = Map::new();
        for key in &node.list_map_keys {
            let default = || {
                let property = *self.schema.nodes[node.items?].properties.get(key)?;
                self.schema.nodes[property].default.clone()
            };
            // An owner that is not told apart by its uid has an empty one, as types of the server's own have it.
            let owners = self.schema.nodes[self.schema.metadata]
                .properties
                .get("ownerReferences");
            let empty = || (owners == Some(&id)).then(|| Value::from(""));
            if let Some(value) = map.get(key).cloned().or_else(default).or_else(empty) {
                keys.insert(key.clone(), value);
            }
        }
        if keys.is_empty() {
            return Err(
                "associative list with keys has an element that omits all key fields".to_owned()
                    + &format!(
                        " {:?} (and doesn't have default values for any key fields)",
                        node.list_map_keys
                    ),
            );
        }
        Ok(format!("k:{}", Value::Object(keys)))
    }

    /// The fields of an applied object.
    pub(super) fn field_set(&self, kind: Type, value: &Value) -> FieldSet {
        let mut set = FieldSet::default();
        match self.shape(kind, value) {
            Shape::Leaf => set.member = true,
            Shape::Map => {
                for (key, child) in value.as_object().into_iter().flatten() {
                    let mut below = self.field_set(self.field(kind, key), child);
                    let empty = child.as_object().is_some_and(Map::is_empty);
                    below.member |= child.is_null() || empty || !self.is_declared(kind, key);
                    set.attach(format!("f:{key}"), below);
                }
            }
            Shape::List => {
                let mut seen = HashSet::new();
                for item in value.as_array().into_iter().flatten() {
                    let Ok(step) = self.step(kind, item) else { continue };
                    let below = if seen.insert(step.clone()) {
                        let mut below = self.field_set(self.item(kind), item);
                        below.member = true;
                        below
                    } else {
                        // Elements that occur twice are owned as a whole.
                        FieldSet::leaf()
                    };
                    set.children.insert(step, below);
                }
            }
        }
        set
    }

    /// What changed from `old` to `new`.
    pub(super) fn compare(&self, kind: Type, old: Option<&Value>, new: Option<&Value>) -> Difference {
        let mut difference = Difference::default();
        match (old, new) {
            (None, None) => {}
            (None, Some(new)) => {
                difference.added = self.everything(kind, new);
            }
            (Some(old), None) => {
                difference.removed = self.everything(kind, old);
            }
            (Some(old), Some(new)) => {
                // Beside a list or map with members, a null is one without.
                let (no_old, no_new) = (blank_beside(old, new), blank_beside(new, old));
                let (old, new) = (no_old.as_ref().unwrap_or(old), no_new.as_ref().unwrap_or(new));
                let (old_shape, new_shape) = (self.shape(kind, old), self.shape(kind, new));
                if old_shape == new_shape && old_shape != Shape::Leaf && !(is_empty(old) && is_empty(new)) {
                    if old_shape == Shape::Map {
                        self.compare_maps(kind, old, new, &mut difference);
                    } else {
                        self.compare_lists(kind, old, new, &mut difference);
                    }
                } else if old != new {
                    difference.modified.member = true;
                    if old_shape != new_shape {
                        difference.removed = self.everything(kind, old);
                        difference.removed.member = false;
                        difference.added = self.everything(kind, new);
                        difference.added.member = false;
                    }
                }
            }
        }
        difference
    }

    fn compare_maps(&self, kind: Type, old: &Value, new: &Value, difference: &mut Difference) {
        let (Value::Object(old), Value::Object(new)) = (old, new) else {
            return;
        };
        let mut one = |key: &String, old: Option<&Value>, new: Option<&Value>| {
            // Scalars first: most fields are, and most have not changed.
            if let (Some(old), Some(new)) = (old, new)
                && !matches!(new, Value::Object(_) | Value::Array(_))
                && old == new
            {
                return;
            }
            let below = self.compare(self.field(kind, key), old, new);
            if !(below.removed.is_empty() && below.modified.is_empty() && below.added.is_empty()) {
                difference.attach(format!("f:{key}"), below);
            }
        };
        for (key, value) in old {
            one(key, Some(value), new.get(key));
        }
        for (key, value) in new {
            if !old.contains_key(key) {
                one(key, None, Some(value));
            }
        }
    }

    fn compare_lists(&self, kind: Type, old: &Value, new: &Value, difference: &mut Difference) {
        let (old, new) = (self.indexed(kind, old), self.indexed(kind, new));
        let item = self.item(kind);
        let nothing = Vec::new();
        let steps = old.keys().chain(new.keys().filter(|step| !old.contains_key(*step)));
        for step in steps {
            let (olds, news) = (old.get(step).unwrap_or(&nothing), new.get(step).unwrap_or(&nothing));
            if olds.len() <= 1 && news.len() <= 1 {
                let below = self.compare(item, olds.first().copied(), news.first().copied());
                difference.attach(step.clone(), below);
            } else if olds != news {
                // Elements that occur twice are compared as a whole.
                let mut below = Difference::default();
                if olds.is_empty() {
                    below.added.member = true;
                } else if news.is_empty() {
                    below.removed.member = true;
                } else {
                    below.modified.member = true;
                }
                difference.attach(step.clone(), below);
            }
        }
    }

    fn indexed<'value>(&self, kind: Type, list: &'value Value) -> HashMap<String, Vec<&'value Value>> {
        let mut index: HashMap<String, Vec<&Value>> = HashMap::new();
        for item in list.as_array().into_iter().flatten() {
            if let Ok(step) = self.step(kind, item) {
                index.entry(step).or_default().push(item);
            }
        }
        index
    }

    /// All paths of a value that was added or removed, with those of its structures.
    fn everything(&self, kind: Type, value: &Value) -> FieldSet {
        let mut set = FieldSet::leaf();
        match self.shape(kind, value) {
            Shape::Leaf => {}
            Shape::Map => {
                for (key, child) in value.as_object().into_iter().flatten() {
                    set.children
                        .insert(format!("f:{key}"), self.everything(self.field(kind, key), child));
                }
            }
            Shape::List => {
                for (step, items) in self.indexed(kind, value) {
                    let below = match items.as_slice() {
                        [only] => self.everything(self.item(kind), only),
                        _ => FieldSet::leaf(),
                    };
                    set.children.insert(step, below);
                }
            }
        }
        set
    }

    /// `new` on top of `old`.
    pub(super) fn merge(&self, kind: Type, old: Option<&Value>, new: Option<&Value>) -> Option<Value> {
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) => (old, new),
            (one, other) => return one.or(other).cloned(),
        };
        match (self.shape(kind, old), self.shape(kind, new)) {
            (Shape::Map, Shape::Map) => {
                let (Value::Object(old), Value::Object(new)) = (old, new) else {
                    return Some(new.clone());
                };
                let mut merged = Map::new();
                for (key, value) in old {
                    if let Some(value) = self.merge(self.field(kind, key), Some(value), new.get(key)) {
                        merged.insert(key.clone(), value);
                    }
                }
                for (key, value) in new {
                    if !old.contains_key(key) {
                        merged.insert(key.clone(), value.clone());
                    }
                }
                Some(Value::Object(merged))
            }
            (Shape::List, Shape::List) => Some(Value::Array(self.merge_lists(kind, old, new))),
            _ => Some(new.clone()),
        }
    }

    /// Applied elements come in their order, the others keep their places between them.
    fn merge_lists(&self, kind: Type, old: &Value, new: &Value) -> Vec<Value> {
        let steps = |list: &Value| -> Vec<(String, Value)> {
            list.as_array()
                .into_iter()
                .flatten()
                .filter_map(|item| self.step(kind, item).ok().map(|step| (step, item.clone())))
                .collect()
        };
        let (left, right) = (steps(old), steps(new));
        let in_left: HashMap<&str, &Value> = left.iter().map(|(step, value)| (step.as_str(), value)).collect();
        let in_right: HashSet<&str> = right.iter().map(|(step, _)| step.as_str()).collect();
        let item = self.item(kind);
        let mut shared = right
            .iter()
            .map(|(step, _)| step.as_str())
            .filter(|step| in_left.contains_key(step));
        let mut next_shared = shared.next();
        let mut merged_right = HashSet::new();
        let mut result = Vec::with_capacity(left.len().max(right.len()));
        let (mut l, mut r) = (0, 0);
        while l < left.len() || r < right.len() {
            if let (Some((step, _)), Some((other, _))) = (left.get(l), right.get(r)) {
                if step == other {
                    merged_right.insert(step.as_str());
                    result.extend(self.merge(item, Some(&left[l].1), Some(&right[r].1)));
                    l += 1;
                    r += 1;
                    next_shared = shared.next();
                    continue;
                }
                if in_right.contains(step.as_str()) && next_shared.is_some_and(|next| next != step) {
                    l += 1;
                    continue;
                }
            }
            if let Some((step, value)) = left.get(l) {
                if !in_right.contains(step.as_str()) {
                    result.push(value.clone());
                    l += 1;
                    continue;
                } else if merged_right.contains(step.as_str()) {
                    l += 1;
                }
            }
            if let Some((step, value)) = right.get(r) {
                merged_right.insert(step.as_str());
                result.extend(self.merge(item, in_left.get(step.as_str()).copied(), Some(value)));
                r += 1;
                if next_shared == Some(step) {
                    next_shared = shared.next();
                }
            }
        }
        result
    }

    /// The value without the paths of a set. What became empty is null: that it was emptied must stay known until
    /// [`Typed::refill`].
    pub(super) fn remove(&self, kind: Type, value: &Value, gone: &FieldSet) -> Value {
        if gone.children.is_empty() {
            return value.clone();
        }
        match (self.shape(kind, value), value) {
            (Shape::Map, Value::Object(map)) => {
                let mut kept = Map::new();
                for (key, child) in map {
                    match gone.children.get(&format!("f:{key}")) {
                        Some(below) if below.member => {}
                        Some(below) => {
                            kept.insert(key.clone(), self.remove(self.field(kind, key), child, below));
                        }
                        None => {
                            kept.insert(key.clone(), child.clone());
                        }
                    }
                }
                if kept.is_empty() && !map.is_empty() {
                    Value::Null
                } else {
                    Value::Object(kept)
                }
            }
            (Shape::List, Value::Array(items)) => {
                let mut kept = Vec::with_capacity(items.len());
                for item in items {
                    match self.step(kind, item).ok().and_then(|step| gone.children.get(&step)) {
                        Some(below) if below.member => {}
                        Some(below) => kept.push(self.remove(self.item(kind), item, below)),
                        None => kept.push(item.clone()),
                    }
                }
                if kept.is_empty() && !items.is_empty() {
                    Value::Null
                } else {
                    Value::Array(kept)
                }
            }
            _ => value.clone(),
        }
    }

    /// Makes what was emptied empty of its kind again: the real server leaves nulls there, which its own schemas refuse.
    pub(super) fn refill(&self, kind: Type, before: &Value, after: &mut Value) {
        match (before, after) {
            (Value::Object(_), after @ Value::Null) => *after = Value::Object(Map::new()),
            (Value::Array(_), after @ Value::Null) => *after = Value::Array(Vec::new()),
            (Value::Object(before), Value::Object(after)) => {
                for (key, child) in after {
                    if let Some(before) = before.get(key) {
                        self.refill(self.field(kind, key), before, child);
                    }
                }
            }
            (Value::Array(before), Value::Array(after)) => {
                let index: HashMap<String, &Value> = before
                    .iter()
                    .filter_map(|item| self.step(kind, item).ok().map(|step| (step, item)))
                    .collect();
                for child in after {
                    if let Some(before) = self.step(kind, child).ok().and_then(|step| index.get(&step)) {
                        self.refill(self.item(kind), before, child);
                    }
                }
            }
            _ => {}
        }
    }

    /// The set with the declared structures on the way to its paths.
    pub(super) fn with_structures(&self, kind: Type, set: &FieldSet) -> FieldSet {
        let mut result = FieldSet {
            member: set.member,
            ..FieldSet::default()
        };
        for (step, below) in &set.children {
            let mut full = self.with_structures(self.below(kind, step), below);
            if !below.children.is_empty() {
                full.member |= step.strip_prefix("f:").is_some_and(|name| self.is_declared(kind, name));
            }
            result.attach(step.clone(), full);
        }
        result
    }

    /// Whether the object can be typed at all; elements may be listed twice.
    pub(super) fn fits(&self, object: &Value) -> bool {
        let mut errors = Vec::new();
        self.look(self.root(), "", object, Twice::Allowed, &mut errors);
        errors.is_empty()
    }

    /// What an applied object must not have: fields that no schema declares, elements that are listed twice.
    pub(super) fn check(&self, kind: Type, path: &str, value: &Value, errors: &mut Vec<String>) {
        self.look(kind, path, value, Twice::Refused, errors);
    }

    fn look(&self, kind: Type, path: &str, value: &Value, twice: Twice, errors: &mut Vec<String>) {
        let node = kind.map(|id| &self.schema.nodes[id]);
        match (self.shape(kind, value), value) {
            (Shape::Map, Value::Object(map)) => {
                for (key, child) in map {
                    let below = format!("{path}.{key}");
                    let known = self.is_declared(kind, key) || self.field(kind, key).is_some();
                    if !known
                        && node.is_some_and(|node| !node.preserve_unknown && node.additional == Default::default())
                    {
                        errors.push(format!("{below}: field not declared in schema"));
                        // The real server looks no further in this map.
                        break;
                    }
                    self.look(self.field(kind, key), &below, child, twice, errors);
                }
            }
            (Shape::List, Value::Array(items)) => {
                let mut seen = HashSet::new();
                for (index, item) in items.iter().enumerate() {
                    match self.step(kind, item) {
                        Err(error) => errors.push(format!("{path}: element {index}: {error}")),
                        Ok(step) => {
                            let printed = print_step(&step);
                            if seen.insert(step) || twice == Twice::Allowed {
                                self.look(self.item(kind), &format!("{path}{printed}"), item, twice, errors);
                            } else {
                                errors.push(format!("{path}: duplicate entries for key {printed}"));
                            }
                        }
                    }
                }
            }
            _ => {
                if let Some(problem) = node.and_then(|node| mismatch(node, value)) {
                    errors.push(format!("{path}: {problem}"));
                } else if let Value::Array(items) = value {
                    // What is owned as a whole is checked in its parts all the same.
                    for (index, item) in items.iter().enumerate() {
                        self.look(self.item(kind), &format!("{path}[{index}]"), item, twice, errors);
                    }
                } else if let Value::Object(map) = value {
                    for (key, child) in map {
                        self.look(self.field(kind, key), &format!("{path}.{key}"), child, twice, errors);
                    }
                }
            }
        }
    }
}

/// What is wrong with the type of a value.
fn mismatch(node: &Node, value: &Value) -> Option<String> {
    if value.is_null() || node.int_or_string || node.types.is_empty() {
        return None;
    }
    let is = |types: Types| node.types.contains(types);
    match value {
        Value::Object(_) if is(Types::OBJECT) => None,
        Value::Array(_) if is(Types::ARRAY) => None,
        Value::String(_) if is(Types::STRING) => None,
        Value::Number(_) if is(Types::INTEGER.union(Types::NUMBER)) => None,
        Value::Bool(_) if is(Types::BOOLEAN) => None,
        _ if is(Types::OBJECT) => Some(format!("expected map, got &{{{}}}", go_print(value))),
        _ if is(Types::ARRAY) => Some(format!("expected list, got &{{{}}}", go_print(value))),
        _ if is(Types::STRING) => Some(format!(
            "expected string, got &value.valueUnstructured{{Value:{}}}",
            go_print_exactly(value)
        )),
        _ if is(Types::BOOLEAN) => Some(format!("expected boolean, got &{{{}}}", go_print(value))),
        _ => Some(format!("expected numeric (int or float), got {}", go_type(value))),
    }
}

/// What stands for a null beside a list or a map that has members.
fn blank_beside(value: &Value, other: &Value) -> Option<Value> {
    match other {
        Value::Array(items) if value.is_null() && !items.is_empty() => Some(Value::Array(Vec::new())),
        Value::Object(map) if value.is_null() && !map.is_empty() => Some(Value::Object(Map::new())),
        _ => None,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Null => true,
        _ => false,
    }
}
