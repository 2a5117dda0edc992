//! The compiled form of a schema: nodes in one arena, so that recursive built-in schemas need no special case.
//!
//! For: the other files of this module, and for field ownership and patches, which walk the same nodes. Not for: what
//! an operation does at a node.

use super::cel::Rule;
use super::format::Format;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// The index of a node in its schema's arena.
pub(crate) type NodeId = usize;

/// What the keys beyond `properties` may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Additional {
    /// Not said.
    #[default]
    Absent,
    /// `true`: anything.
    Any,
    /// `false`: nothing.
    Forbidden,
    /// Values of this schema.
    Schema(NodeId),
}

/// How a list's elements are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// By their value.
    Set,
    /// By the values of `list_map_keys`.
    Map,
}

/// The JSON types that a node allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Types(u8);

impl Types {
    pub(crate) const OBJECT: Self = Self(1);
    pub(crate) const ARRAY: Self = Self(2);
    pub(crate) const STRING: Self = Self(4);
    pub(crate) const INTEGER: Self = Self(8);
    pub(crate) const NUMBER: Self = Self(16);
    pub(crate) const BOOLEAN: Self = Self(32);

    const NAMES: [(&'static str, Self); 6] = [
        ("object", Self::OBJECT),
        ("array", Self::ARRAY),
        ("string", Self::STRING),
        ("integer", Self::INTEGER),
        ("number", Self::NUMBER),
        ("boolean", Self::BOOLEAN),
    ];

    pub(crate) fn named(name: &str) -> Self {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map_or(Self(0), |(_, types)| *types)
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One schema node.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) types: Types,
    /// The types as the real server writes them in messages: `integer`, `integer,string`, or empty.
    pub(crate) type_text: String,
    /// The type as CEL errors print it: empty for int-or-string.
    pub(crate) declared_type: String,
    pub(crate) nullable: bool,
    pub(crate) format: Option<Format>,
    pub(crate) default: Option<Value>,
    pub(crate) properties: BTreeMap<String, NodeId>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<NodeId>,
    pub(crate) required: Vec<String>,
    pub(crate) allowed: Vec<Value>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) minimum_length: Option<u64>,
    pub(crate) maximum_length: Option<u64>,
    pub(crate) minimum_items: Option<u64>,
    pub(crate) maximum_items: Option<u64>,
    pub(crate) minimum_properties: Option<u64>,
    pub(crate) maximum_properties: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) pattern: Option<Regex>,
    pub(crate) any_of: Vec<NodeId>,
    pub(crate) one_of: Vec<NodeId>,
    pub(crate) all_of: Vec<NodeId>,
    pub(crate) not: Option<NodeId>,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded_resource: bool,
    pub(crate) int_or_string: bool,
    pub(crate) list_type: ListType,
    pub(crate) list_map_keys: Vec<String>,
    pub(crate) map_atomic: bool,
    /// Strategic merge: the key of list elements; lists with one are merged, others replaced.
    pub(crate) patch_merge_key: Option<String>,
    /// Strategic merge: a list of scalars is merged as a set.
    pub(crate) patch_merge: bool,
    pub(crate) rules: Vec<Rule>,
    /// Whether this node or one below has CEL rules.
    pub(crate) rules_below: bool,
    /// Whether this node or one below has a list of type set or map.
    pub(crate) list_types_below: bool,
    /// Whether this node or one below is an embedded resource.
    pub(crate) embedded_below: bool,
    /// Whether this node or one below has a default.
    pub(crate) defaults_below: bool,
}

impl Node {
    /// The schema of the value under `key`, if it is known.
    pub(crate) fn child(&self, key: &str) -> Option<NodeId> {
        self.properties.get(key).copied().or(match self.additional {
            Additional::Schema(id) => Some(id),
            _ => None,
        })
    }
}
