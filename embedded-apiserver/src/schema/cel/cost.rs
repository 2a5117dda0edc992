//! What a rule costs at most, as `cel-go/checker/cost.go` and `apiserver/pkg/cel/library/cost.go` estimate it.
//!
//! Rules that may be too expensive are refused when they are made; so that the same ones are refused, the estimate has
//! to be the same.

use std::collections::HashMap;

use super::ast::{Comprehension, Expr, Id, Kind, Literal};
use super::kinds::{Declared, Type};
use super::macros::ACCUMULATOR;
use super::typing::Checked;

/// From the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    min: u64,
    max: u64,
}

const UNKNOWN: Range = Range { min: 0, max: u64::MAX };
const NOTHING: Range = Range { min: 0, max: 0 };
/// What going through a text costs for each character.
const TRAVERSAL: f64 = 0.1;
/// What each character of a regular expression costs.
const PATTERN: f64 = 0.25;
const LIST: Range = Range::fixed(10);
const MAP: Range = Range::fixed(30);
const MESSAGE: Range = Range::fixed(40);

impl Range {
    const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    fn add(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }

    fn multiply(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }

    /// Multiplied and rounded up.
    fn times(self, factor: f64) -> Self {
        // A cast from a float keeps to the bounds.
        let one = |value: u64| (value as f64 * factor).ceil() as u64;
        Self {
            min: one(self.min),
            max: one(self.max),
        }
    }

    fn union(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// The sizes of what is in a list or map.
#[derive(Debug, Clone, Copy)]
struct Entries {
    is_list: bool,
    key: Range,
    value: Range,
}

impl Entries {
    fn union(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (one, other) = (one?, other?);
        Some(Self {
            is_list: one.is_list,
            key: one.key.union(other.key),
            value: one.value.union(other.value),
        })
    }
}

type Path = Vec<String>;

#[derive(Debug, Clone)]
struct Variable {
    name: String,
    path: Path,
    size: Option<Range>,
    entries: Option<Entries>,
}

/// What evaluating the expression costs at most.
pub(super) fn estimate(root: &Expr, checked: &Checked, declared: &Declared) -> u64 {
    let mut estimator = Estimator {
        checked,
        declared,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        variables: Vec::new(),
    };
    estimator.cost(root).max
}

struct Estimator<'estimate> {
    checked: &'estimate Checked,
    declared: &'estimate Declared,
    paths: HashMap<Id, Path>,
    sizes: HashMap<Id, Range>,
    entries: HashMap<Id, Entries>,
    variables: Vec<Variable>,
}

/// A call's own cost, and the size of what it makes.
type Call = (Range, Option<Range>);

impl Estimator<'_> {
    fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().rev().find(|variable| variable.name == name)
    }

    fn variable_of(&self, expression: &Expr) -> Option<&Variable> {
        expression.name().and_then(|name| self.variable(name))
    }

    fn path(&self, expression: &Expr) -> Path {
        if let Some(variable) = self.variable_of(expression) {
            return variable.path.clone();
        }
        self.paths.get(&expression.id).cloned().unwrap_or_default()
    }

    /// What the schema says of the size at a path.
    fn declared_size(&self, path: &[String]) -> Option<Range> {
        let (_, rest) = path.split_first()?;
        let mut here = self.declared.root();
        for name in rest {
            let next = match name.as_str() {
                "@items" | "@values" => here.element,
                "@keys" => here.key,
                field => here.fields.get(field).copied(),
            };
            here = self.declared.of(next?);
        }
        Some(Range {
            min: 0,
            max: here.max_elements,
        })
    }

    fn size(&mut self, expression: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expression.id) {
            return Some(*size);
        }
        let own = match &expression.kind {
            Kind::Literal(Literal::Text(text)) => Some(text.chars().count()),
            Kind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            Kind::Literal(_) => Some(1),
            Kind::List { elements, .. } => Some(elements.len()),
            Kind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(own) = own {
            return Some(Range::fixed(own as u64));
        }
        if let Some(size) = self.declared_size(&self.path(expression)) {
            self.sizes.insert(expression.id, size);
            return Some(size);
        }
        if is_scalar(self.checked.of(expression)) {
            return Some(Range::fixed(1));
        }
        self.variable_of(expression).and_then(|variable| variable.size)
    }

    fn size_or_unknown(&mut self, expression: &Expr) -> Range {
        self.size(expression).unwrap_or(UNKNOWN)
    }

    fn entries(&self, expression: &Expr) -> Option<Entries> {
        let found = self.entries.get(&expression.id).copied();
        found.or_else(|| self.variable_of(expression).and_then(|variable| variable.entries))
    }

    /// Library functions do not see the paths of what loops collect.
    fn library_size(&mut self, expression: &Expr) -> Range {
        self.size(expression)
            .or_else(|| {
                let path = self.path(expression);
                let hidden = path.first().is_some_and(|first| first == ACCUMULATOR);
                if hidden { None } else { self.declared_size(&path) }
            })
            .unwrap_or(UNKNOWN)
    }

    fn cost(&mut self, expression: &Expr) -> Range {
        match &expression.kind {
            Kind::Literal(_) => NOTHING,
            Kind::Ident(name) => {
                let path = match self.variable(name) {
                    Some(variable) => variable.path.clone(),
                    None => vec![name.clone()],
                };
                self.paths.insert(expression.id, path);
                Range::fixed(1)
            }
            Kind::Select {
                operand, test: true, ..
            } => self.cost(operand),
            Kind::Select { operand, field, .. } => {
                let mut sum = self.cost(operand);
                if matches!(
                    self.checked.of(operand),
                    Type::Map(..) | Type::Object(_) | Type::Parameter(_)
                ) {
                    sum = sum.add(Range::fixed(1));
                }
                let mut path = self.path(operand);
                path.push(field.clone());
                self.paths.insert(expression.id, path);
                sum
            }
            Kind::Call {
                function,
                target,
                arguments,
            } => self.call(expression, function, target.as_deref(), arguments),
            Kind::List { elements, .. } => {
                let mut sum = LIST;
                let mut value = Range {
                    min: if elements.is_empty() { 0 } else { u64::MAX },
                    max: 0,
                };
                for element in elements {
                    sum = sum.add(self.cost(element));
                    value = value.union(self.size_or_unknown(element));
                }
                let entries = Entries {
                    is_list: true,
                    key: Range::fixed(1),
                    value,
                };
                self.entries.insert(expression.id, entries);
                sum
            }
            Kind::Map(members) => {
                let mut sum = MAP;
                let none = Range {
                    min: if members.is_empty() { 0 } else { u64::MAX },
                    max: 0,
                };
                let (mut key, mut value) = (none, none);
                for member in members {
                    sum = sum.add(self.cost(&member.key)).add(self.cost(&member.value));
                    key = key.union(self.size_or_unknown(&member.key));
                    value = value.union(self.size_or_unknown(&member.value));
                }
                let entries = Entries {
                    is_list: false,
                    key,
                    value,
                };
                self.entries.insert(expression.id, entries);
                sum
            }
            Kind::Struct(_, fields) => fields.iter().fold(MESSAGE, |sum, field| sum.add(self.cost(field))),
            Kind::Comprehension(comprehension) if is_binding(comprehension) => {
                let sum = self.cost(&comprehension.range).add(self.cost(&comprehension.init));
                self.push_local(&comprehension.accumulator, &comprehension.init);
                let sum = sum.add(self.cost(&comprehension.result));
                self.variables.pop();
                self.copy_sizes(expression.id, &comprehension.result);
                sum
            }
            Kind::Comprehension(comprehension) => self.comprehension(expression.id, comprehension),
        }
    }

    fn copy_sizes(&mut self, to: Id, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to, size);
        }
        if let Some(entries) = self.entries(from) {
            self.entries.insert(to, entries);
        }
    }

    fn push_local(&mut self, name: &str, expression: &Expr) {
        let variable = Variable {
            name: name.to_owned(),
            path: self.path(expression),
            entries: self.entries(expression),
            size: self.size(expression),
        };
        self.variables.push(variable);
    }

    fn push_iteration(&mut self, name: &str, part: &str, size: Option<Range>, range: &Expr) {
        let mut path = self.path(range);
        path.push(part.to_owned());
        self.variables.push(Variable {
            name: name.to_owned(),
            path,
            size,
            entries: None,
        });
    }

    fn comprehension(&mut self, id: Id, comprehension: &Comprehension) -> Range {
        let range = &comprehension.range;
        let mut sum = self.cost(range).add(self.cost(&comprehension.init));
        self.push_local(&comprehension.accumulator, &comprehension.init);
        let entries = self.entries(range);
        let is_list = entries.map_or_else(
            || matches!(self.checked.of(range), Type::List(_)),
            |entries| entries.is_list,
        );
        let (key, value) = (entries.map(|entries| entries.key), entries.map(|entries| entries.value));
        let before = self.variables.len();
        match &comprehension.second {
            Some(second) => {
                let (keys, values) = if is_list {
                    ("@indices", "@items")
                } else {
                    ("@keys", "@values")
                };
                self.push_iteration(&comprehension.variable, keys, key, range);
                self.push_iteration(second, values, value, range);
            }
            None if is_list => self.push_iteration(&comprehension.variable, "@items", value, range),
            None => self.push_iteration(&comprehension.variable, "@keys", key, range),
        }
        let condition = self.cost(&comprehension.condition);
        let step = self.cost(&comprehension.step);
        self.variables.truncate(before);
        sum = sum.add(self.cost(&comprehension.result));
        self.variables.pop();
        let count = self.size_or_unknown(range);
        sum = sum.add(count.multiply(step.add(condition)));
        match &comprehension.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&comprehension.init) {
                    self.sizes.insert(id, size);
                }
            }
            Kind::List { .. } | Kind::Map(_) => {
                self.sizes.insert(id, count);
                if let Some(entries) = self.entries(&comprehension.step) {
                    self.entries.insert(id, entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn call(&mut self, expression: &Expr, function: &str, target: Option<&Expr>, arguments: &[Expr]) -> Range {
        let qualified = self.checked.qualified.get(&expression.id).cloned();
        let (name, target) = match &qualified {
            Some(name) => (name.as_str(), None),
            None => (function, target),
        };
        if name == "dyn"
            && let [argument] = arguments
        {
            let cost = self.cost(argument).add(Range::fixed(1));
            self.copy_sizes(expression.id, argument);
            return cost;
        }
        let costs: Vec<Range> = arguments.iter().map(|argument| self.cost(argument)).collect();
        let Some(overloads) = self.checked.overloads.get(&expression.id).cloned() else {
            return NOTHING;
        };
        let sum = target.map_or(NOTHING, |target| self.cost(target));
        let mut cost = Range { min: u64::MAX, max: 0 };
        let mut result: Option<Range> = None;
        for overload in overloads {
            let (own, size) = self.overload(expression, name, overload, target, arguments, &costs);
            cost = cost.union(own);
            if let Some(size) = size {
                result = Some(result.map_or(size, |before| before.union(size)));
            }
            if let ("index_list" | "index_map", Some(container)) = (overload, arguments.first()) {
                result = self.entries(container).map(|entries| entries.value);
                let mut path = self.path(container);
                let part = if overload == "index_list" { "@items" } else { "@values" };
                path.push(part.to_owned());
                self.paths.insert(expression.id, path);
            }
            if result.is_none() {
                result = self.size(expression);
            }
        }
        if let Some(result) = result {
            self.sizes.insert(expression.id, result);
        }
        sum.add(cost)
    }

    fn overload(
        &mut self,
        expression: &Expr,
        function: &str,
        overload: &str,
        target: Option<&Expr>,
        arguments: &[Expr],
        costs: &[Range],
    ) -> Call {
        let sum = costs.iter().fold(NOTHING, |sum, cost| sum.add(*cost));
        let found = self
            .sets(overload, arguments)
            .or_else(|| self.library(function, overload, target, arguments));
        if let Some((cost, size)) = found {
            return (cost.add(sum), size);
        }
        let simple = (Range::fixed(1).add(sum), None);
        match (overload, target, arguments) {
            ("string_format", Some(target), _) => (self.size_or_unknown(target).times(TRAVERSAL).add(sum), None),
            ("string_to_bytes" | "bytes_to_string" | "strings_quote", _, [argument]) => {
                let size = self.size_or_unknown(argument);
                let result = match overload {
                    "string_to_bytes" => Range {
                        min: size.min,
                        max: size.max.wrapping_mul(4),
                    },
                    "bytes_to_string" => Range {
                        min: size.min / 4,
                        max: size.max,
                    },
                    _ => Range {
                        min: size.min.wrapping_add(2),
                        max: size.max.wrapping_mul(2).wrapping_add(2),
                    },
                };
                (size.times(TRAVERSAL).add(sum), Some(result))
            }
            ("starts_with_string" | "ends_with_string", _, [argument]) => {
                (self.size_or_unknown(argument).times(TRAVERSAL).add(sum), None)
            }
            ("in_list", _, [_, list]) => (self.size_or_unknown(list).add(sum), None),
            ("matches_string", Some(target), [pattern]) => {
                let text = self.size_or_unknown(target).add(Range::fixed(1)).times(TRAVERSAL);
                let pattern = self.size_or_unknown(pattern).times(PATTERN);
                (text.multiply(pattern).add(sum), None)
            }
            ("contains_string", Some(target), [part]) => {
                let text = self.size_or_unknown(target).times(TRAVERSAL);
                let part = self.size_or_unknown(part).times(TRAVERSAL);
                (text.multiply(part).add(sum), None)
            }
            ("logical_or" | "logical_and", ..) => {
                let least = costs.first().map_or(0, |cost| cost.min);
                (
                    Range {
                        min: least,
                        max: sum.max,
                    },
                    None,
                )
            }
            ("conditional", _, [_, yes, no]) => {
                let size = self.size_or_unknown(yes).union(self.size_or_unknown(no));
                if let Some(entries) = Entries::union(self.entries(yes), self.entries(no)) {
                    self.entries.insert(expression.id, entries);
                }
                let (condition, branches) = match costs {
                    [condition, yes, no] => (*condition, yes.union(*no)),
                    _ => (NOTHING, NOTHING),
                };
                (condition.add(branches), Some(size))
            }
            ("add_string" | "add_bytes" | "add_list", _, [left, right]) => {
                let size = self.size_or_unknown(left).add(self.size_or_unknown(right));
                if let Some(entries) = Entries::union(self.entries(left), self.entries(right)) {
                    self.entries.insert(expression.id, entries);
                }
                let own = if overload == "add_list" {
                    Range::fixed(1)
                } else {
                    size.times(TRAVERSAL)
                };
                (own.add(sum), Some(size))
            }
            (_, _, [left, right]) if is_comparison(overload) => {
                let max = self.size_or_unknown(left).max.min(self.size_or_unknown(right).max);
                let range = Range {
                    min: u64::from(max > 0),
                    max,
                };
                (range.times(TRAVERSAL).add(sum), None)
            }
            _ => simple,
        }
    }

    fn sets(&mut self, overload: &str, arguments: &[Expr]) -> Option<Call> {
        let factor = match overload {
            "list_sets_contains_list" | "list_sets_intersects_list" => 1.0,
            // Both ways.
            "list_sets_equivalent_list" => 2.0,
            _ => return None,
        };
        let [one, other] = arguments else { return None };
        let product = self.library_size(one).multiply(self.library_size(other));
        Some((product.times(factor).add(Range::fixed(1)), None))
    }

    /// The functions that Kubernetes adds.
    fn library(&mut self, function: &str, overload: &str, target: Option<&Expr>, arguments: &[Expr]) -> Option<Call> {
        let one = Some((Range::fixed(1), None));
        match function {
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
                let target = target?;
                let size = self.library_size(target);
                match self.checked.of(target).clone() {
                    Type::List(element) => {
                        let mut each = Range::fixed(1);
                        if matches!(*element, Type::Text | Type::Bytes) {
                            each = each.add(self.element_size(target).times(TRAVERSAL));
                        }
                        Some((size.multiply(each), None))
                    }
                    _ => Some((size.times(TRAVERSAL), None)),
                }
            }
            "url" if arguments.len() == 1 => {
                let size = self.library_size(arguments.first()?);
                Some((size.times(TRAVERSAL), Some(size)))
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                let size = self.library_size(target?);
                Some((size.times(TRAVERSAL), Some(size)))
            }
            "replace" => {
                let [from, to, ..] = arguments else { return None };
                let size = self.library_size(target?);
                let (from, to) = (self.library_size(from), self.library_size(to));
                Some((size.times(2.0 * TRAVERSAL), Some(replaced(size, from, to))))
            }
            "split" => {
                let size = self.library_size(target?);
                let limit = match arguments.get(1).map(|limit| &limit.kind) {
                    Some(Kind::Literal(Literal::Int(limit))) => u64::try_from(*limit).unwrap_or(u64::MAX),
                    _ => size.max,
                };
                Some((size.times(2.0 * TRAVERSAL), Some(Range { min: 0, max: limit })))
            }
            "join" => {
                let target = target?;
                let count = self.library_size(target);
                let mut size = count.multiply(self.element_size(target));
                if let Some(separator) = arguments.first() {
                    let between = Range {
                        min: count.min.saturating_sub(1),
                        max: count.max.saturating_sub(1),
                    };
                    size = size.add(self.library_size(separator).multiply(between));
                }
                Some((size.times(TRAVERSAL), Some(size)))
            }
            "find" | "findAll" => {
                let size = self.library_size(target?);
                let pattern = self.library_size(arguments.first()?).times(PATTERN);
                let text = size.add(Range::fixed(1)).times(TRAVERSAL);
                Some((text.multiply(pattern), Some(Range { min: 0, max: size.max })))
            }
            "ip" if overload == "cidr_ip" => one,
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                Some((self.library_size(arguments.first()?).times(TRAVERSAL), None))
            }
            "ip.isCanonical" => Some((self.library_size(arguments.first()?).times(2.0 * TRAVERSAL), None)),
            "containsIP" | "containsCIDR" => {
                let argument = arguments.first()?;
                let address = Range { min: 4, max: 16 };
                let mut cost = address.add(address).times(TRAVERSAL);
                if function == "containsCIDR" {
                    cost = cost.add(address.times(TRAVERSAL)).add(Range::fixed(1));
                }
                if overload.ends_with("_string") {
                    cost = cost.add(self.library_size(argument).times(TRAVERSAL));
                }
                Some((cost, None))
            }
            "validate" => {
                let size = self.library_size(arguments.first()?);
                // The longest pattern of a named format has 128 characters.
                Some((size.times(TRAVERSAL).times(128.0 * PATTERN), None))
            }
            "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast"
            | "format.named"
            | "sign"
            | "asInteger"
            | "isInteger"
            | "asApproximateFloat"
            | "isGreaterThan"
            | "isLessThan"
            | "compareTo"
            | "add"
            | "sub"
            | "major"
            | "minor"
            | "patch"
            | "getScheme"
            | "getHostname"
            | "getHost"
            | "getPort"
            | "getEscapedPath"
            | "getQuery" => one,
            "_==_" => {
                let [left, right] = arguments else { return None };
                match (self.checked.of(left), self.checked.of(right)) {
                    (Type::Opaque(name, _), Type::Opaque(other, _)) if name == other => match name.as_str() {
                        "net.IP" | "net.CIDR" | "kubernetes.Quantity" | "kubernetes.Semver" => one,
                        // The longest name of a format has 64 characters.
                        "kubernetes.NamedFormat" => Some((Range { min: 1, max: 64 }.times(TRAVERSAL), None)),
                        "kubernetes.URL" => {
                            let size = self.size(right).unwrap_or(Range::fixed(1));
                            Some((Range { min: 1, max: size.max }.times(TRAVERSAL), None))
                        }
                        _ => None,
                    },
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// How large an element of a list may be.
    fn element_size(&self, list: &Expr) -> Range {
        let mut path = self.path(list);
        if path.is_empty() || path.first().is_some_and(|first| first == ACCUMULATOR) {
            return UNKNOWN;
        }
        path.push("@items".to_owned());
        self.declared_size(&path).unwrap_or(UNKNOWN)
    }
}

fn is_scalar(kind: &Type) -> bool {
    match kind {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        other => other.unwrapped().is_some_and(is_scalar),
    }
}

fn is_comparison(overload: &str) -> bool {
    matches!(overload, "equals" | "not_equals")
        || (["less", "greater"].iter().any(|prefix| overload.starts_with(prefix))
            && (overload.ends_with("_string") || overload.ends_with("_bytes")))
}

/// Whether a loop is only there to give a value a name.
fn is_binding(comprehension: &Comprehension) -> bool {
    matches!(&comprehension.range.kind, Kind::List { elements, .. } if elements.is_empty())
        && matches!(comprehension.condition.kind, Kind::Literal(Literal::Bool(false)))
        && comprehension.accumulator != ACCUMULATOR
}

/// How long a text may become when parts of it are replaced.
fn replaced(size: Range, from: Range, to: Range) -> Range {
    let (mut count, mut kept) = (NOTHING, NOTHING);
    if from.min == 0 {
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if to.max <= from.min {
        kept.max = size.max;
    } else {
        count.max = (size.max as f64 / from.min as f64).ceil() as u64;
    }
    if from.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if from.max <= to.min {
        kept.min = size.min;
    } else {
        count.min = (size.min as f64 / from.max as f64).ceil() as u64;
    }
    count.multiply(to).add(kept)
}
