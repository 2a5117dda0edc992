//! The types of expressions, and what a schema says of its values: names of fields, sizes.
//!
//! For: `typing` and `cost`. The rules are those of `apiserver/pkg/cel/common/schemas.go`.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde_json::Value;

use super::escape;

/// A type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Error,
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Null,
    Duration,
    Timestamp,
    List(Rc<Type>),
    Map(Rc<Type>, Rc<Type>),
    /// An object of the schema, by its place in [`Declared`].
    Object(usize),
    /// A type as a value.
    #[allow(clippy::enum_variant_names)] // the language calls it so
    Type(Option<Rc<Type>>),
    /// To be found out.
    Parameter(String),
    /// A type of a library: its name, what it holds.
    Opaque(String, Vec<Type>),
}

impl Type {
    pub(super) fn list(element: Self) -> Self {
        Self::List(Rc::new(element))
    }

    pub(super) fn map(key: Self, value: Self) -> Self {
        Self::Map(Rc::new(key), Rc::new(value))
    }

    pub(super) fn optional(inner: Self) -> Self {
        Self::Opaque("optional_type".to_owned(), vec![inner])
    }

    /// What is in an optional.
    pub(super) fn unwrapped(&self) -> Option<&Self> {
        match self {
            Self::Opaque(name, inner) if name == "optional_type" => inner.first(),
            _ => None,
        }
    }

    pub(super) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// Reads `map(string, list(A))`.
    pub(super) fn named(text: &str) -> Self {
        let (name, inner) = match text.split_once('(') {
            Some((name, rest)) => (name, rest.strip_suffix(')').unwrap_or(rest)),
            None => (text, ""),
        };
        let one = || Rc::new(Self::named(inner));
        match name {
            "dyn" => Self::Dyn,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::Text,
            "bytes" => Self::Bytes,
            "null" => Self::Null,
            "duration" => Self::Duration,
            "timestamp" => Self::Timestamp,
            "list" => Self::List(one()),
            "type" => Self::Type((!inner.is_empty()).then(one)),
            "map" => {
                let (key, value) = inner.split_once(", ").unwrap_or((inner, "dyn"));
                Self::map(Self::named(key), Self::named(value))
            }
            _ if name.len() == 1 => Self::Parameter(name.to_owned()),
            _ if inner.is_empty() => Self::Opaque(name.to_owned(), Vec::new()),
            _ => Self::Opaque(name.to_owned(), vec![Self::named(inner)]),
        }
    }

    /// The type as errors print it.
    pub(super) fn shown(&self, declared: &Declared) -> String {
        match self {
            Self::Error => "!error!".to_owned(),
            Self::Dyn => "dyn".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Uint => "uint".to_owned(),
            Self::Double => "double".to_owned(),
            Self::Text => "string".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Null => "null".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Timestamp => "timestamp".to_owned(),
            Self::List(element) => format!("list({})", element.shown(declared)),
            Self::Map(key, value) => format!("map({}, {})", key.shown(declared), value.shown(declared)),
            Self::Object(place) => declared.of(*place).name.clone(),
            Self::Type(None) => "type".to_owned(),
            Self::Type(Some(inner)) => format!("type({})", inner.shown(declared)),
            Self::Parameter(name) => name.clone(),
            Self::Opaque(name, inner) if inner.is_empty() => name.clone(),
            Self::Opaque(name, inner) => {
                let inner: Vec<String> = inner.iter().map(|inner| inner.shown(declared)).collect();
                format!("{name}({})", inner.join(", "))
            }
        }
    }
}

/// What a schema says of one value.
#[derive(Debug, Clone)]
pub(super) struct Declaration {
    pub(super) kind: Type,
    /// The fields of an object, by their names in expressions.
    pub(super) fields: BTreeMap<String, usize>,
    pub(super) key: Option<usize>,
    pub(super) element: Option<usize>,
    /// How many elements, members or bytes there may be; 0 for what has no size.
    pub(super) max_elements: u64,
    /// How many bytes of JSON there are at least.
    pub(super) min_size: u64,
    name: String,
}

/// All declarations of a schema; the first one is that of `self`.
#[derive(Debug)]
pub(super) struct Declared {
    all: Vec<Declaration>,
    root: usize,
}

/// The size of the largest request, which bounds what no schema bounds.
pub(super) const MAX_REQUEST: u64 = 3 * 1024 * 1024;
/// The longest text, less its quotes.
const MAX_TEXT: u64 = MAX_REQUEST - 2;

impl Declared {
    /// Reads a schema; nothing if its values cannot be spoken of in rules.
    pub(super) fn new(schema: &Value, is_resource: bool) -> Option<Self> {
        let mut declared = Self {
            all: Vec::new(),
            root: 0,
        };
        declared.root = declared.read(schema, is_resource, "selfType")?;
        Some(declared)
    }

    pub(super) fn root(&self) -> &Declaration {
        self.of(self.root)
    }

    pub(super) fn root_type(&self) -> Type {
        self.root().kind.clone()
    }

    pub(super) fn of(&self, place: usize) -> &Declaration {
        &self.all[place]
    }

    fn add(&mut self, kind: Type, max_elements: u64, min_size: u64) -> usize {
        self.all.push(Declaration {
            kind,
            fields: BTreeMap::new(),
            key: None,
            element: None,
            max_elements,
            min_size,
            name: String::new(),
        });
        self.all.len() - 1
    }

    fn read(&mut self, schema: &Value, is_resource: bool, name: &str) -> Option<usize> {
        let count = |key: &str| {
            schema
                .get(key)
                .and_then(Value::as_i64)
                .map(|count| u64::try_from(count).unwrap_or_default())
        };
        let flag = |schema: &Value, key: &str| schema.get(key) == Some(&Value::Bool(true));
        let embedded = |schema: &Value| flag(schema, "x-kubernetes-embedded-resource");
        // A character may take four bytes.
        let length = count("maxLength").map(|length| length.saturating_mul(4));
        if flag(schema, "x-kubernetes-int-or-string") {
            return Some(self.add(Type::Dyn, length.unwrap_or(MAX_TEXT), 1));
        }
        match schema.get("type").and_then(Value::as_str)? {
            "array" => {
                let items = schema.get("items")?;
                let element = self.read(items, embedded(items), &format!("{name}.@idx"))?;
                let (kind, size) = (self.of(element).kind.clone(), self.of(element).min_size);
                let most = count("maxItems").unwrap_or((MAX_REQUEST - 2) / (size + 1));
                let place = self.add(Type::list(kind), most, 2);
                self.all[place].element = Some(element);
                Some(place)
            }
            "object" => {
                if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
                    let element = self.read(values, embedded(values), &format!("{name}.@elem"))?;
                    let (kind, size) = (self.of(element).kind.clone(), self.of(element).min_size);
                    // Each key takes two quotes, a colon, a comma and at least two letters.
                    let most = count("maxProperties").unwrap_or((MAX_REQUEST - 2) / (size + 6));
                    // Nothing bounds how long a key is, and no one asks.
                    let key = self.add(Type::Text, 0, 2);
                    let place = self.add(Type::map(Type::Text, kind), most, 2);
                    self.all[place].element = Some(element);
                    self.all[place].key = Some(key);
                    return Some(place);
                }
                Some(self.object(schema, is_resource, name))
            }
            "string" => Some(match schema.get("format").and_then(Value::as_str) {
                Some("byte") => self.add(Type::Bytes, count("maxLength").unwrap_or(MAX_TEXT), 2),
                Some("duration") => self.add(Type::Duration, 32, 3),
                Some("date") => self.add(Type::Timestamp, 12, 12),
                Some("date-time") => self.add(Type::Timestamp, 32, 21),
                _ => {
                    let longest = schema.get("enum").and_then(Value::as_array).map(|allowed| {
                        let texts = allowed.iter().filter_map(Value::as_str);
                        texts.map(|text| text.len() as u64).max().unwrap_or_default()
                    });
                    self.add(Type::Text, length.or(longest).unwrap_or(MAX_TEXT), 2)
                }
            }),
            "boolean" => Some(self.add(Type::Bool, 0, 4)),
            "number" => Some(self.add(Type::Double, 0, 1)),
            "integer" => Some(self.add(Type::Int, 0, 1)),
            _ => None,
        }
    }

    fn object(&mut self, schema: &Value, is_resource: bool, name: &str) -> usize {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut properties: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, property) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            properties.insert(name, property.clone());
        }
        if is_resource {
            let text = serde_json::json!({ "type": "string" });
            properties.insert("kind", text.clone());
            properties.insert("apiVersion", text.clone());
            let named = serde_json::json!({ "type": "object", "properties": { "name": text, "generateName": text } });
            properties.insert("metadata", named);
        }
        let mut fields = BTreeMap::new();
        let mut size = 2;
        for (property, schema) in properties {
            let embedded = schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
            let field = escape(property);
            let Some(place) = self.read(&schema, embedded, &format!("{name}.{field}")) else {
                continue;
            };
            if required.contains(&property) && schema.get("default").is_none_or(Value::is_null) {
                size += property.len() as u64 + self.of(place).min_size + 4;
            }
            fields.insert(field, place);
        }
        let place = self.add(Type::Dyn, 0, size);
        let declaration = &mut self.all[place];
        declaration.kind = Type::Object(place);
        declaration.fields = fields;
        name.clone_into(&mut declaration.name);
        place
    }
}

impl fmt::Display for Declaration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}
