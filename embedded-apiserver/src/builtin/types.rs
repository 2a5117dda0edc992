//! The Go types of the built-in kinds, as the real server decodes and writes them.
//!
//! For: one table that says which fields there are, of which type, and which of them are left out when empty. Not for:
//! what is done with it, which `form` and `defaults` say.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A type.
#[derive(Debug)]
pub(super) struct Type {
    pub(super) shape: Shape,
    /// As the real server names it in errors: `[]v1.Container`.
    pub(super) name: String,
}

/// What a type is made of.
#[derive(Debug)]
pub(super) enum Shape {
    Text,
    Flag,
    /// With this many bits.
    Integer(u32),
    Float,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// Any JSON.
    Raw,
    /// A struct or something else in its place: part of a schema.
    Either(Alternative),
    List(Box<Type>),
    Map(Box<Type>),
    Pointer(Box<Type>),
    /// By its name.
    Struct(&'static str),
}

/// What may stand in the place of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alternative {
    Schemas,
    Flag,
    Texts,
}

impl Alternative {
    /// The struct that the other form is of.
    pub(super) const STRUCT: &'static str = "apiextensions.JSONSchemaProps";
}

/// A field of a struct.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    /// Left out when empty.
    pub(super) omit_empty: bool,
    /// Left out when it is a struct without any value.
    pub(super) omit_zero: bool,
}

/// A struct.
#[derive(Debug)]
pub(super) struct Struct {
    /// With the API group: `core.PodSpec`.
    pub(super) name: &'static str,
    pub(super) fields: Vec<Field>,
    positions: HashMap<&'static str, usize>,
}

impl Struct {
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.positions.get(name).and_then(|position| self.fields.get(*position))
    }

    /// The name without the group, as errors show it.
    pub(super) fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

static STRUCTS: LazyLock<HashMap<&'static str, Struct>> = LazyLock::new(|| {
    let mut structs: HashMap<&'static str, Struct> = HashMap::new();
    let mut current = "";
    for line in include_str!("types.txt").lines().filter(|line| !line.starts_with('#')) {
        let Some(line) = line.strip_prefix(' ') else {
            current = line;
            structs.insert(
                line,
                Struct {
                    name: line,
                    fields: Vec::new(),
                    positions: HashMap::new(),
                },
            );
            continue;
        };
        let mut words = line.split(' ');
        if let (Some(name), Some(kind), Some(owner)) = (words.next(), words.next(), structs.get_mut(current)) {
            let options: Vec<&str> = words.collect();
            owner.positions.insert(name, owner.fields.len());
            owner.fields.push(Field {
                name,
                kind: Type::read(kind),
                omit_empty: options.contains(&"omitempty"),
                omit_zero: options.contains(&"omitzero"),
            });
        }
    }
    structs
});

/// The struct of this name, such as `core.PodSpec`.
pub(super) fn named(name: &str) -> Option<&'static Struct> {
    STRUCTS.get(name)
}

/// The struct of a kind that is decoded by the table; policies of access and reviews have rules of their own.
pub(super) fn of_kind(group: &str, kind: &str) -> Option<&'static Struct> {
    let package = match group {
        "" => "core",
        "apps" => "apps",
        "coordination.k8s.io" => "coordination",
        "events.k8s.io" => "events",
        "policy" => "policy",
        _ => return None,
    };
    named(&format!("{package}.{kind}"))
}

/// The struct of a kind whose types are checked by the table; besides those of [`of_kind`], the kinds that take their
/// form by rules of their own.
pub(super) fn checked(group: &str, kind: &str) -> Option<&'static Struct> {
    let package = match group {
        "apiextensions.k8s.io" => "apiextensions",
        "authentication.k8s.io" => "authentication",
        "authorization.k8s.io" => "authorization",
        "rbac.authorization.k8s.io" => "rbac",
        _ => return of_kind(group, kind),
    };
    named(&format!("{package}.{kind}"))
}

/// Go's name of a type: the packages of all API groups are called `v1`.
fn go_name(name: &str) -> String {
    match name.split_once('.') {
        Some((package @ ("types" | "resource" | "intstr" | "runtime"), rest)) => format!("{package}.{rest}"),
        Some((_, rest)) => format!("v1.{rest}"),
        None => name.to_owned(),
    }
}

impl Type {
    fn read(text: &'static str) -> Self {
        // A named type stands before what it is; the names in the brackets of a map have no `=`.
        if let Some((name, rest)) = text.split_once('=').filter(|(name, _)| !name.contains(['[', '*'])) {
            return Self {
                shape: Self::read(rest).shape,
                name: go_name(name),
            };
        }
        let (shape, name) = if let Some(rest) = text.strip_prefix('*') {
            let inner = Self::read(rest);
            let name = inner.name.clone();
            (Shape::Pointer(Box::new(inner)), name)
        } else if text == "[]byte" {
            (Shape::Bytes, "[]uint8".to_owned())
        } else if let Some(rest) = text.strip_prefix("[]") {
            let inner = Self::read(rest);
            let name = format!("[]{}", inner.name);
            (Shape::List(Box::new(inner)), name)
        } else if let Some(rest) = text.strip_prefix("map[string]") {
            let inner = Self::read(rest);
            let name = format!("map[string]{}", inner.name);
            (Shape::Map(Box::new(inner)), name)
        } else {
            let shape = match text {
                "string" => Shape::Text,
                "bool" => Shape::Flag,
                "int32" => Shape::Integer(32),
                "int64" => Shape::Integer(64),
                "meta.Time" => Shape::Time,
                "meta.MicroTime" => Shape::MicroTime,
                "resource.Quantity" => Shape::Quantity,
                "intstr.IntOrString" => Shape::IntOrString,
                "float64" => Shape::Float,
                "meta.FieldsV1" | "runtime.RawExtension" | "apiextensions.JSON" => Shape::Raw,
                "apiextensions.JSONSchemaPropsOrArray" => Shape::Either(Alternative::Schemas),
                "apiextensions.JSONSchemaPropsOrBool" => Shape::Either(Alternative::Flag),
                "apiextensions.JSONSchemaPropsOrStringArray" => Shape::Either(Alternative::Texts),
                name => Shape::Struct(name),
            };
            (shape, go_name(text))
        };
        Self { shape, name }
    }

    /// The struct that it is, or points to.
    pub(super) fn target(&self) -> Option<&'static Struct> {
        match &self.shape {
            Shape::Struct(name) => named(name),
            Shape::Pointer(inner) => inner.target(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_and_closed() {
        fn check(kind: &Type) {
            match &kind.shape {
                Shape::Struct(name) => assert!(named(name).is_some(), "{name} is missing"),
                Shape::List(inner) | Shape::Map(inner) | Shape::Pointer(inner) => check(inner),
                _ => {}
            }
        }
        for each in STRUCTS.values() {
            assert!(!each.name.contains('='));
            each.fields.iter().for_each(|field| check(&field.kind));
        }
        let spec = named("core.PodSpec").expect("known");
        assert_eq!(spec.short_name(), "PodSpec");
        let name = |field: &str| spec.field(field).map(|field| field.kind.name.as_str());
        assert_eq!(name("containers"), Some("[]v1.Container"));
        assert_eq!(name("dnsPolicy"), Some("v1.DNSPolicy"));
        assert_eq!(name("overhead"), Some("v1.ResourceList"));
        assert_eq!(name("terminationGracePeriodSeconds"), Some("int64"));
        assert!(of_kind("events.k8s.io", "Event").is_some());
        assert!(of_kind("apiextensions.k8s.io", "CustomResourceDefinition").is_none());
        assert!(checked("apiextensions.k8s.io", "CustomResourceDefinition").is_some());
        assert!(checked("rbac.authorization.k8s.io", "Role").is_some());
        assert!(checked("", "Pod").is_some());
        assert!(named(Alternative::STRUCT).is_some());
    }
}
