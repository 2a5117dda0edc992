//! Sets of fields, in the form of FieldsV1.
//!
//! For: union, intersection, difference, reading, writing and printing. Not for: knowing which fields an object has.

use crate::schema::go_quote;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of paths, as a tree. The steps are kept as FieldsV1 writes them (`f:spec`, `k:{"name":"a"}`, `v:"x"`): their
/// text is canonical, so that no other form is needed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FieldSet {
    /// Whether the path to here is in the set.
    pub(super) member: bool,
    pub(super) children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// Whether neither this path nor one below is in the set.
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// A set with only the path to here.
    pub(super) fn leaf() -> Self {
        Self {
            member: true,
            children: BTreeMap::new(),
        }
    }

    /// Puts a subset under a step, unless it is empty.
    pub(super) fn attach(&mut self, step: String, subset: Self) {
        if !subset.is_empty() {
            self.children.insert(step, subset);
        }
    }

    pub(crate) fn union(mut self, other: &Self) -> Self {
        self.member |= other.member;
        for (step, subset) in &other.children {
            match self.children.remove(step) {
                Some(own) => self.children.insert(step.clone(), own.union(subset)),
                None => self.children.insert(step.clone(), subset.clone()),
            };
        }
        self
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut result = Self {
            member: self.member && other.member,
            children: BTreeMap::new(),
        };
        for (step, subset) in &self.children {
            if let Some(theirs) = other.children.get(step) {
                result.attach(step.clone(), subset.intersection(theirs));
            }
        }
        result
    }

    /// The paths that are not, exactly so, in `other`.
    pub(crate) fn difference(mut self, other: &Self) -> Self {
        self.member &= !other.member;
        for (step, theirs) in &other.children {
            if let Some(own) = self.children.remove(step) {
                self.attach(step.clone(), own.difference(theirs));
            }
        }
        self
    }

    /// Whether every path is in `other` too.
    pub(super) fn is_subset(&self, other: &Self) -> bool {
        (!self.member || other.member)
            && self
                .children
                .iter()
                .all(|(step, subset)| other.children.get(step).is_some_and(|theirs| subset.is_subset(theirs)))
    }

    /// Takes a path out of the set, but not those below it.
    pub(super) fn remove(&mut self, path: &[&str]) {
        match path {
            [] => self.member = false,
            [step, rest @ ..] => {
                if let Some(subset) = self.children.get_mut(*step) {
                    subset.remove(rest);
                    if subset.is_empty() {
                        self.children.remove(*step);
                    }
                }
            }
        }
    }

    /// Reads FieldsV1.
    pub(crate) fn decode(fields: &Value) -> Option<Self> {
        let map = fields.as_object()?;
        let mut set = Self::default();
        for (step, below) in map {
            if step == "." {
                set.member = true;
                continue;
            }
            let known = ["f:", "k:", "v:", "i:"].iter().any(|prefix| step.starts_with(prefix));
            let below = below.as_object()?;
            if !known {
                return None;
            }
            let subset = if below.is_empty() {
                Self::leaf()
            } else {
                Self::decode_members(below)?
            };
            set.children.insert(step.clone(), subset);
        }
        Some(set)
    }

    fn decode_members(map: &Map<String, Value>) -> Option<Self> {
        let mut set = Self::default();
        for (step, below) in map {
            if step == "." {
                set.member = true;
            } else {
                let below = below.as_object()?;
                let subset = if below.is_empty() {
                    Self::leaf()
                } else {
                    Self::decode_members(below)?
                };
                set.children.insert(step.clone(), subset);
            }
        }
        Some(set)
    }

    /// Writes FieldsV1.
    pub(crate) fn encode(&self) -> Value {
        let mut map = Map::new();
        for (step, subset) in &self.children {
            let mut below = subset.encode();
            if subset.member
                && !subset.children.is_empty()
                && let Value::Object(below) = &mut below
            {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(step.clone(), below);
        }
        Value::Object(map)
    }

    /// All paths as messages print them: `.spec.containers[name="a"].image`. At each level those that end there come
    /// first, as the real server lists them.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        if self.member {
            paths.push(String::new());
        }
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &str, paths: &mut Vec<String>) {
        let printed: Vec<(String, &Self)> = self
            .children
            .iter()
            .map(|(step, subset)| (format!("{prefix}{}", print_step(step)), subset))
            .collect();
        paths.extend(
            printed
                .iter()
                .filter(|(_, subset)| subset.member)
                .map(|(path, _)| path.clone()),
        );
        for (path, subset) in &printed {
            subset.collect_paths(path, paths);
        }
    }
}

/// A step as messages print it.
pub(super) fn print_step(step: &str) -> String {
    let scalar = |value: &Value| value.as_str().map_or_else(|| value.to_string(), go_quote);
    match step.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("k:", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys
                .iter()
                .map(|(key, value)| format!("{key}={}", scalar(value)))
                .collect();
            format!("[{}]", keys.join(","))
        }
        Some(("v:", value)) => {
            format!(
                "[={}]",
                serde_json::from_str(value)
                    .as_ref()
                    .map_or_else(|_| value.to_owned(), scalar)
            )
        }
        Some((_, rest)) => format!("[{rest}]"),
        None => step.to_owned(),
    }
}
