//! The type check: that a rule speaks of fields that there are, and calls functions with what they take.
//!
//! The rules of unification are those of `cel-go/checker`; errors are worded as it words them.

use std::collections::HashMap;
use std::rc::Rc;

use super::ast::{Expr, Id, Kind, Literal, Parsed};
use super::functions::{Functions, Overload, type_named};
use super::kinds::{Declared, Type};
use super::parse::Problem;

/// What the check found out.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// The type of each node.
    pub(super) types: HashMap<Id, Type>,
    /// The forms of functions that each call may mean.
    pub(super) overloads: HashMap<Id, Vec<&'static str>>,
    /// Calls whose target is but a part of the function's name.
    pub(super) qualified: HashMap<Id, String>,
    /// Whether `oldSelf` is used.
    pub(super) uses_old_self: bool,
    pub(super) problems: Vec<Problem>,
}

impl Checked {
    pub(super) fn of(&self, expression: &Expr) -> &Type {
        self.types.get(&expression.id).unwrap_or(&Type::Error)
    }
}

/// Checks an expression on `self` (and `oldSelf`, which is optional if `optional_old`) of a schema.
pub(super) fn check(parsed: &Parsed, declared: &Declared, optional_old: bool, functions: &Functions) -> Checked {
    let own = declared.root_type();
    let old = if optional_old {
        Type::optional(own.clone())
    } else {
        own.clone()
    };
    let mut checker = Checker {
        positions: &parsed.positions,
        declared,
        functions,
        scopes: vec![("self".to_owned(), own), ("oldSelf".to_owned(), old)],
        bound: HashMap::new(),
        variables: 0,
        checked: Checked::default(),
    };
    checker.expression(&parsed.root);
    let Checker { bound, mut checked, .. } = checker;
    for kind in checked.types.values_mut() {
        *kind = substitute(&bound, kind, true);
    }
    checked.problems.sort_by_key(|problem| problem.at);
    checked
}

type Bound = HashMap<String, Type>;

struct Checker<'check> {
    positions: &'check [usize],
    declared: &'check Declared,
    functions: &'check Functions,
    scopes: Vec<(String, Type)>,
    bound: Bound,
    variables: usize,
    checked: Checked,
}

fn substitute(bound: &Bound, kind: &Type, to_dyn: bool) -> Type {
    let inner = |inner: &Type| Rc::new(substitute(bound, inner, to_dyn));
    match kind {
        Type::Parameter(name) => match bound.get(name) {
            Some(found) => substitute(bound, found, to_dyn),
            None if to_dyn => Type::Dyn,
            None => kind.clone(),
        },
        Type::List(element) => Type::List(inner(element)),
        Type::Map(key, value) => Type::Map(inner(key), inner(value)),
        Type::Type(Some(of)) => Type::Type(Some(inner(of))),
        Type::Opaque(name, parameters) => Type::Opaque(
            name.clone(),
            parameters.iter().map(|one| substitute(bound, one, to_dyn)).collect(),
        ),
        other => other.clone(),
    }
}

fn inner_types(kind: &Type) -> Vec<&Type> {
    match kind {
        Type::List(element) => vec![element],
        Type::Map(key, value) => vec![key, value],
        Type::Type(Some(of)) => vec![of],
        Type::Opaque(_, parameters) => parameters.iter().collect(),
        _ => Vec::new(),
    }
}

/// Whether a parameter does not occur in a type, which it could then never equal.
fn is_free_of(bound: &Bound, parameter: &Type, within: &Type) -> bool {
    if parameter == within {
        return false;
    }
    match within {
        Type::Parameter(name) => bound.get(name).is_none_or(|found| is_free_of(bound, parameter, found)),
        _ => inner_types(within)
            .into_iter()
            .all(|inner| is_free_of(bound, parameter, inner)),
    }
}

fn is_less_specific(left: &Type, right: &Type) -> bool {
    match (left, right) {
        (Type::Dyn | Type::Parameter(_), _) => true,
        (_, Type::Dyn | Type::Parameter(_)) => false,
        (Type::Opaque(one, left), Type::Opaque(other, right)) => {
            one == other
                && left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| is_less_specific(left, right))
        }
        (Type::List(left), Type::List(right)) => is_less_specific(left, right),
        (Type::Map(one, left), Type::Map(other, right)) => {
            is_less_specific(one, other) && is_less_specific(left, right)
        }
        (Type::Type(_), Type::Type(_)) => true,
        _ => left == right,
    }
}

fn most_general(left: &Type, right: &Type) -> Type {
    if is_less_specific(left, right) { left } else { right }.clone()
}

/// Whether `kind` may stand for the parameter; and whether something already does.
fn stands_for(bound: &mut Bound, kind: &Type, parameter: &Type) -> (bool, bool) {
    if kind == parameter {
        return (true, true);
    }
    let Type::Parameter(name) = parameter else {
        return (false, false);
    };
    if let Some(found) = bound.get(name).cloned() {
        if *kind == found {
            return (true, true);
        }
        if assign(bound, kind, &found) {
            let general = most_general(kind, &found);
            if is_free_of(bound, parameter, &general) {
                bound.insert(name.clone(), general);
            }
            return (true, true);
        }
        return (false, true);
    }
    if is_free_of(bound, parameter, kind) {
        bound.insert(name.clone(), kind.clone());
        return (true, false);
    }
    (false, false)
}

fn assign(bound: &mut Bound, left: &Type, right: &Type) -> bool {
    if matches!(right, Type::Parameter(_)) {
        let (valid, taken) = stands_for(bound, left, right);
        if valid || taken {
            return valid;
        }
    }
    if matches!(left, Type::Parameter(_)) {
        return stands_for(bound, right, left).0;
    }
    if left.is_dyn_or_error() || right.is_dyn_or_error() {
        return true;
    }
    let nullable = |kind: &Type| {
        matches!(
            kind,
            Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp | Type::Null
        )
    };
    match (left, right) {
        (Type::Null, other) | (other, Type::Null) => nullable(other),
        (Type::Type(_), Type::Type(_)) => true,
        (Type::Opaque(one, left), Type::Opaque(other, right)) => one == other && assign_all(bound, left, right),
        (Type::List(left), Type::List(right)) => assign(bound, left, right),
        (Type::Map(one, left), Type::Map(other, right)) => assign(bound, one, other) && assign(bound, left, right),
        _ => left == right,
    }
}

fn assign_all(bound: &mut Bound, left: &[Type], right: &[Type]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| assign(bound, left, right))
}

impl Checker<'_> {
    fn problem(&mut self, id: Id, message: String) {
        let at = self.positions.get(id).copied().unwrap_or_default();
        self.checked.problems.push(Problem { at, message });
    }

    fn shown(&self, kind: &Type) -> String {
        kind.shown(self.declared)
    }

    fn fresh(&mut self) -> Type {
        self.variables += 1;
        Type::Parameter(format!("_var{}", self.variables - 1))
    }

    fn assign(&mut self, left: &Type, right: &Type) -> bool {
        let mut bound = self.bound.clone();
        let fits = assign(&mut bound, left, right);
        if fits {
            self.bound = bound;
        }
        fits
    }

    fn variable(&mut self, name: &str) -> Option<Type> {
        let found = self.scopes.iter().rev().find(|(variable, _)| variable == name);
        if let Some((_, kind)) = found {
            self.checked.uses_old_self |= name == "oldSelf";
            return Some(kind.clone());
        }
        type_named(name)
    }

    fn expression(&mut self, expression: &Expr) -> Type {
        let kind = self.found(expression);
        self.checked.types.insert(expression.id, kind.clone());
        kind
    }

    fn found(&mut self, expression: &Expr) -> Type {
        let id = expression.id;
        match &expression.kind {
            Kind::Literal(literal) => match literal {
                Literal::Null => Type::Null,
                Literal::Bool(_) => Type::Bool,
                Literal::Int(_) => Type::Int,
                Literal::Uint(_) => Type::Uint,
                Literal::Double(_) => Type::Double,
                Literal::Text(_) => Type::Text,
                Literal::Bytes(_) => Type::Bytes,
            },
            Kind::Ident(name) => self.variable(name).unwrap_or_else(|| {
                self.undeclared(id, name);
                Type::Error
            }),
            Kind::Select { operand, field, test } => {
                if let Some(found) = expression.qualified_name().and_then(|name| type_named(&name)) {
                    return found;
                }
                let found = self.select(id, operand, field, false);
                if *test { Type::Bool } else { found }
            }
            Kind::Call {
                function,
                target,
                arguments,
            } => self.call(id, function, target.as_deref(), arguments),
            Kind::List { elements, optional } => {
                let mut joined = None;
                for (at, element) in elements.iter().enumerate() {
                    let mut kind = self.expression(element);
                    if optional.contains(&at) {
                        kind = self.unwrap(element, kind);
                    }
                    joined = Some(self.join(element.id, joined, kind));
                }
                let element = joined.unwrap_or_else(|| self.fresh());
                Type::list(element)
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for entry in entries {
                    let key = self.expression(&entry.key);
                    keys = Some(self.join(entry.key.id, keys, key));
                    let mut value = self.expression(&entry.value);
                    if entry.optional {
                        value = self.unwrap(&entry.value, value);
                    }
                    values = Some(self.join(entry.value.id, values, value));
                }
                let key = keys.unwrap_or_else(|| self.fresh());
                let value = values.unwrap_or_else(|| self.fresh());
                Type::map(key, value)
            }
            Kind::Struct(name, fields) => {
                for field in fields {
                    self.expression(field);
                }
                self.undeclared(id, name);
                Type::Error
            }
            Kind::Comprehension(comprehension) => {
                let range = self.expression(&comprehension.range);
                let collected = self.expression(&comprehension.init);
                let range = substitute(&self.bound, &range, false);
                let depth = self.scopes.len();
                self.scopes.push((comprehension.accumulator.clone(), collected.clone()));
                let (first, second) = match &range {
                    Type::List(element) if comprehension.second.is_some() => (Type::Int, (**element).clone()),
                    Type::List(element) => ((**element).clone(), Type::Error),
                    Type::Map(key, value) => ((**key).clone(), (**value).clone()),
                    Type::Dyn | Type::Error | Type::Parameter(_) => {
                        self.assign(&Type::Dyn, &range);
                        (Type::Dyn, Type::Dyn)
                    }
                    other => {
                        let message = format!(
                            "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                            self.shown(other)
                        );
                        self.problem(comprehension.range.id, message);
                        (Type::Error, Type::Error)
                    }
                };
                self.scopes.push((comprehension.variable.clone(), first));
                if let Some(name) = &comprehension.second {
                    self.scopes.push((name.clone(), second));
                }
                let condition = self.expression(&comprehension.condition);
                self.expect(comprehension.condition.id, &Type::Bool, &condition);
                let step = self.expression(&comprehension.step);
                self.expect(comprehension.step.id, &collected, &step);
                self.scopes.truncate(depth + 1);
                let result = self.expression(&comprehension.result);
                self.scopes.truncate(depth);
                substitute(&self.bound, &result, false)
            }
        }
    }

    fn undeclared(&mut self, id: Id, name: &str) {
        self.problem(id, format!("undeclared reference to '{name}' (in container '')"));
    }

    fn expect(&mut self, id: Id, expected: &Type, found: &Type) {
        if !self.assign(expected, found) {
            let message = format!(
                "expected type '{}' but found '{}'",
                self.shown(expected),
                self.shown(found)
            );
            self.problem(id, message);
        }
    }

    /// What is in an optional element or value.
    fn unwrap(&mut self, expression: &Expr, kind: Type) -> Type {
        if let Some(inner) = kind.unwrapped() {
            return inner.clone();
        }
        if kind != Type::Dyn {
            let wanted = self.shown(&Type::optional(kind.clone()));
            let message = format!("expected type '{wanted}' but found '{}'", self.shown(&kind));
            self.problem(expression.id, message);
        }
        kind
    }

    /// Elements of one list have to be of one type.
    fn join(&mut self, id: Id, before: Option<Type>, now: Type) -> Type {
        let Some(before) = before else { return now };
        if self.assign(&before, &now) {
            return most_general(&before, &now);
        }
        let message = format!(
            "expected type '{}' but found '{}'",
            self.shown(&before),
            self.shown(&now)
        );
        self.problem(id, message);
        Type::Error
    }

    fn select(&mut self, id: Id, operand: &Expr, field: &str, optional: bool) -> Type {
        let kind = self.expression(operand);
        let kind = substitute(&self.bound, &kind, false);
        let inner = kind.unwrapped();
        let found = match inner.unwrap_or(&kind) {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(place) => match self.declared.of(*place).fields.get(field) {
                Some(place) => self.declared.of(*place).kind.clone(),
                None => {
                    self.problem(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            parameter @ Type::Parameter(_) => {
                self.assign(&Type::Dyn, parameter);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                let message = format!("type '{}' does not support field selection", self.shown(other));
                self.problem(id, message);
                Type::Dyn
            }
        };
        let found = substitute(&self.bound, &found, false);
        if inner.is_some() || optional {
            Type::optional(found)
        } else {
            found
        }
    }

    fn call(&mut self, id: Id, function: &str, target: Option<&Expr>, arguments: &[Expr]) -> Type {
        if function == "_?._" {
            let (Some(operand), Some(field)) = (arguments.first(), arguments.get(1)) else {
                return Type::Error;
            };
            let Kind::Literal(Literal::Text(name)) = &field.kind else {
                return Type::Error;
            };
            self.checked.types.insert(field.id, Type::Text);
            self.checked.overloads.insert(id, vec!["select_optional_field"]);
            return self.select(id, operand, name, true);
        }
        let mut kinds: Vec<Type> = arguments.iter().map(|argument| self.expression(argument)).collect();
        let functions = self.functions;
        let Some(target) = target else {
            return match functions.get(function) {
                Some(overloads) => self.resolve(id, function, overloads, false, kinds, arguments),
                None => {
                    self.undeclared(id, function);
                    Type::Error
                }
            };
        };
        let qualified = target.qualified_name().map(|prefix| format!("{prefix}.{function}"));
        if let Some(name) = qualified
            && let Some(overloads) = functions.get(name.as_str())
        {
            let found = self.resolve(id, &name, overloads, false, kinds, arguments);
            self.checked.qualified.insert(id, name);
            return found;
        }
        let target = self.expression(target);
        kinds.insert(0, target);
        match functions.get(function) {
            Some(overloads) => self.resolve(id, function, overloads, true, kinds, arguments),
            None => {
                self.undeclared(id, function);
                Type::Error
            }
        }
    }

    fn resolve(
        &mut self,
        id: Id,
        function: &str,
        overloads: &[Overload],
        is_method: bool,
        kinds: Vec<Type>,
        arguments: &[Expr],
    ) -> Type {
        if matches!(function, "_&&_" | "_||_") {
            let mut fits = true;
            for (kind, argument) in kinds.iter().zip(arguments) {
                if !self.assign(kind, &Type::Bool) {
                    let message = format!("expected type 'bool' but found '{}'", self.shown(kind));
                    self.problem(argument.id, message);
                    fits = false;
                }
            }
            let overload = if function == "_&&_" {
                "logical_and"
            } else {
                "logical_or"
            };
            self.checked.overloads.insert(id, vec![overload]);
            return if fits { Type::Bool } else { Type::Error };
        }
        let mut result: Option<Type> = None;
        let mut matching = Vec::new();
        for overload in overloads.iter().filter(|overload| overload.is_method == is_method) {
            let mut own = Bound::new();
            for parameter in overload.parameters.iter().chain([&overload.result]) {
                self.instantiate(parameter, &mut own);
            }
            let parameters: Vec<Type> = overload
                .parameters
                .iter()
                .map(|parameter| substitute(&own, parameter, false))
                .collect();
            let mut bound = self.bound.clone();
            if !assign_all(&mut bound, &kinds, &parameters) {
                continue;
            }
            self.bound = bound;
            matching.push(overload.id);
            let found = substitute(&self.bound, &substitute(&own, &overload.result, false), false);
            result = Some(match result {
                None => found,
                Some(Type::Dyn) => Type::Dyn,
                Some(before) if before == found => before,
                Some(_) => Type::Dyn,
            });
        }
        if let Some(result) = result {
            self.checked.overloads.insert(id, matching);
            return result;
        }
        let mut shown: Vec<String> = kinds
            .iter()
            .map(|kind| self.shown(&substitute(&self.bound, kind, true)))
            .collect();
        let receiver = if is_method {
            format!("{}.", shown.remove(0))
        } else {
            String::new()
        };
        let message = format!(
            "found no matching overload for '{function}' applied to '{receiver}({})'",
            shown.join(", ")
        );
        self.problem(id, message);
        Type::Error
    }

    fn instantiate(&mut self, kind: &Type, own: &mut Bound) {
        if let Type::Parameter(name) = kind {
            if !own.contains_key(name) {
                let fresh = self.fresh();
                own.insert(name.clone(), fresh);
            }
            return;
        }
        for inner in inner_types(kind) {
            self.instantiate(inner, own);
        }
    }
}
