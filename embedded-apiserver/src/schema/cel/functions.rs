//! The functions that rules may call, from a table.

use std::collections::HashMap;

use super::kinds::Type;

const TABLE: &str = include_str!("functions.txt");

/// One form of a function.
#[derive(Debug)]
pub(super) struct Overload {
    pub(super) id: &'static str,
    pub(super) is_method: bool,
    /// With the target first, if it is a method.
    pub(super) parameters: Vec<Type>,
    pub(super) result: Type,
}

/// All functions by name.
pub(super) type Functions = HashMap<&'static str, Vec<Overload>>;

thread_local! {
    static FUNCTIONS: Functions = read();
}

/// Calls `use_them` with the functions; they are read once in each thread.
pub(super) fn with<R>(use_them: impl FnOnce(&Functions) -> R) -> R {
    FUNCTIONS.with(use_them)
}

fn read() -> Functions {
    let mut functions = Functions::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.split(" | ").map(str::trim);
        let head: Vec<&'static str> = parts.next().unwrap_or_default().split(' ').collect();
        let ([name, id, style], Some(parameters), Some(result)) = (head.as_slice(), parts.next(), parts.next()) else {
            continue;
        };
        let parameters = parameters
            .split("; ")
            .filter(|parameter| !parameter.is_empty())
            .map(Type::named)
            .collect();
        functions.entry(name).or_default().push(Overload {
            id,
            is_method: *style == "m",
            parameters,
            result: Type::named(result),
        });
    }
    functions
}

/// What a name means that no variable has: a type.
pub(super) fn type_named(name: &str) -> Option<Type> {
    let inner = match name {
        "bool" | "bytes" | "double" | "int" | "string" | "uint" => Type::named(name),
        "null_type" => Type::Null,
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => return Some(Type::Type(Some(std::rc::Rc::new(Type::Type(None))))),
        "net.IP"
        | "net.CIDR"
        | "kubernetes.Quantity"
        | "kubernetes.URL"
        | "kubernetes.Semver"
        | "kubernetes.NamedFormat" => Type::Opaque(name.to_owned(), Vec::new()),
        "optional_type" => Type::optional(Type::Dyn),
        _ => return None,
    };
    Some(Type::Type(Some(std::rc::Rc::new(inner))))
}
