//! What looks like a call and is a loop: `has`, `all`, `exists`, `map` and their like, as `cel-go` expands them.

use super::ast::{Comprehension, Expr, Kind, Literal};
use super::parse::{Nodes, Problem};

/// The variable in which a loop collects its result.
pub(super) const ACCUMULATOR: &str = "@result";
const UNUSED: &str = "#unused";

/// A call without a target.
pub(super) fn global(nodes: &mut Nodes, at: usize, name: &str, mut arguments: Vec<Expr>) -> Result<Expr, Problem> {
    if name == "has" && arguments.len() == 1 {
        let argument = arguments.remove(0);
        let position = nodes.position(argument.id);
        return match argument.kind {
            Kind::Select { operand, field, .. } => Ok(nodes.make(
                at,
                Kind::Select {
                    operand,
                    field,
                    test: true,
                },
            )),
            _ => Err(Problem {
                at: position,
                message: "invalid argument to has() macro".to_owned(),
            }),
        };
    }
    Ok(nodes.call(at, name, arguments))
}

/// A call with a target.
pub(super) fn receiver(
    nodes: &mut Nodes,
    at: usize,
    name: &str,
    target: Expr,
    arguments: Vec<Expr>,
) -> Result<Expr, Problem> {
    let count = arguments.len();
    let (one, two) = (
        matches!(
            (name, count),
            ("all" | "exists" | "exists_one" | "map" | "filter", 2) | ("map", 3)
        ),
        matches!(
            (name, count),
            ("all" | "exists" | "exists_one" | "existsOne", 3)
                | ("transformList" | "transformMap" | "transformMapEntry", 3 | 4)
        ),
    );
    // With three arguments, `map` has a filter and the quantifiers a second variable.
    if name == "optMap" || name == "optFlatMap" {
        if count == 2 {
            return optional_map(nodes, at, name, target, arguments);
        }
    } else if two && name != "map" {
        return Looping::new(nodes, at, arguments, 2)?.make(nodes, name, target);
    } else if one {
        return Looping::new(nodes, at, arguments, 1)?.make(nodes, name, target);
    }
    Ok(nodes.make(
        at,
        Kind::Call {
            function: name.to_owned(),
            target: Some(Box::new(target)),
            arguments,
        },
    ))
}

struct Looping {
    at: usize,
    first: Expr,
    variable: String,
    second: Option<String>,
    rest: Vec<Expr>,
}

impl Looping {
    fn new(nodes: &Nodes, at: usize, mut arguments: Vec<Expr>, variables: usize) -> Result<Self, Problem> {
        let rest = arguments.split_off(variables);
        let mut names = Vec::new();
        for argument in &arguments {
            let problem = |message: &str| Problem {
                at: nodes.position(argument.id),
                message: message.to_owned(),
            };
            let name = argument
                .name()
                .ok_or_else(|| problem("argument must be a simple name"))?;
            if name == ACCUMULATOR || name == "__result__" {
                return Err(problem("iteration variable overwrites accumulator variable"));
            }
            if names.contains(&name) {
                return Err(problem("duplicate variable name"));
            }
            names.push(name);
        }
        let variable = names.first().copied().unwrap_or_default().to_owned();
        let second = names.get(1).map(|name| (*name).to_owned());
        Ok(Self {
            at,
            first: arguments.swap_remove(0),
            variable,
            second,
            rest,
        })
    }

    fn literal(&self, nodes: &mut Nodes, literal: Literal) -> Expr {
        nodes.make(self.at, Kind::Literal(literal))
    }

    fn accumulated(&self, nodes: &mut Nodes) -> Expr {
        nodes.make(self.at, Kind::Ident(ACCUMULATOR.to_owned()))
    }

    fn make(mut self, nodes: &mut Nodes, name: &str, target: Expr) -> Result<Expr, Problem> {
        let at = self.at;
        let last = self.rest.pop().ok_or_else(|| Problem {
            at,
            message: "argument is missing".to_owned(),
        })?;
        let filter = self.rest.pop();
        let (init, condition, step, result) = match name {
            "all" | "exists" => {
                let (start, operator) = if name == "all" { (true, "_&&_") } else { (false, "_||_") };
                let init = self.literal(nodes, Literal::Bool(start));
                let mut going = self.accumulated(nodes);
                if name == "exists" {
                    going = nodes.call(at, "!_", vec![going]);
                }
                let condition = nodes.call(at, "@not_strictly_false", vec![going]);
                let accumulated = self.accumulated(nodes);
                let step = nodes.call(at, operator, vec![accumulated, last]);
                (init, condition, step, self.accumulated(nodes))
            }
            "exists_one" | "existsOne" => {
                let init = self.literal(nodes, Literal::Int(0));
                let condition = self.literal(nodes, Literal::Bool(true));
                let (accumulated, one) = (self.accumulated(nodes), self.literal(nodes, Literal::Int(1)));
                let more = nodes.call(at, "_+_", vec![accumulated, one]);
                let same = self.accumulated(nodes);
                let step = nodes.call(at, "_?_:_", vec![last, more, same]);
                let (accumulated, one) = (self.accumulated(nodes), self.literal(nodes, Literal::Int(1)));
                let result = nodes.call(at, "_==_", vec![accumulated, one]);
                (init, condition, step, result)
            }
            _ => {
                let maps = name.starts_with("transformMap");
                let empty = if maps {
                    Kind::Map(Vec::new())
                } else {
                    Kind::List {
                        elements: Vec::new(),
                        optional: Vec::new(),
                    }
                };
                let init = nodes.make(at, empty);
                let condition = self.literal(nodes, Literal::Bool(true));
                let (element, filter) = if name == "filter" {
                    (self.first.clone(), Some(last))
                } else {
                    (last, filter)
                };
                let accumulated = self.accumulated(nodes);
                let mut step = match name {
                    "transformMap" => {
                        let key = nodes.make(at, Kind::Ident(self.variable.clone()));
                        nodes.call(at, "cel.@mapInsert", vec![accumulated, key, element])
                    }
                    "transformMapEntry" => nodes.call(at, "cel.@mapInsert", vec![accumulated, element]),
                    _ => {
                        let list = Kind::List {
                            elements: vec![element],
                            optional: Vec::new(),
                        };
                        let list = nodes.make(at, list);
                        nodes.call(at, "_+_", vec![accumulated, list])
                    }
                };
                if let Some(filter) = filter {
                    let same = self.accumulated(nodes);
                    step = nodes.call(at, "_?_:_", vec![filter, step, same]);
                }
                (init, condition, step, self.accumulated(nodes))
            }
        };
        let comprehension = Comprehension {
            range: target,
            variable: self.variable,
            second: self.second,
            accumulator: ACCUMULATOR.to_owned(),
            init,
            condition,
            step,
            result,
        };
        Ok(nodes.make(at, Kind::Comprehension(Box::new(comprehension))))
    }
}

/// `a.optMap(x, f(x))`: `a.hasValue() ? optional.of(f(a.value())) : optional.none()`.
fn optional_map(
    nodes: &mut Nodes,
    at: usize,
    name: &str,
    target: Expr,
    mut arguments: Vec<Expr>,
) -> Result<Expr, Problem> {
    let (mapped, variable) = (arguments.pop(), arguments.pop());
    let (Some(mapped), Some(variable)) = (mapped, variable) else {
        return Err(Problem {
            at,
            message: "argument is missing".to_owned(),
        });
    };
    let Some(variable) = variable.name().map(str::to_owned) else {
        return Err(Problem {
            at: nodes.position(variable.id),
            message: format!("{name}() variable name must be a simple identifier"),
        });
    };
    let method = |nodes: &mut Nodes, target: Expr, function: &str| {
        nodes.make(
            at,
            Kind::Call {
                function: function.to_owned(),
                target: Some(Box::new(target)),
                arguments: Vec::new(),
            },
        )
    };
    let optional = |nodes: &mut Nodes, function: &str, arguments: Vec<Expr>| {
        let target = nodes.make(at, Kind::Ident("optional".to_owned()));
        nodes.make(
            at,
            Kind::Call {
                function: function.to_owned(),
                target: Some(Box::new(target)),
                arguments,
            },
        )
    };
    let again = renumbered(nodes, &target);
    let present = method(nodes, target, "hasValue");
    let init = method(nodes, again, "value");
    let range = nodes.make(
        at,
        Kind::List {
            elements: Vec::new(),
            optional: Vec::new(),
        },
    );
    let condition = nodes.make(at, Kind::Literal(Literal::Bool(false)));
    let step = nodes.make(at, Kind::Ident(variable.clone()));
    let bound = Comprehension {
        range,
        variable: UNUSED.to_owned(),
        second: None,
        accumulator: variable,
        init,
        condition,
        step,
        result: mapped,
    };
    let bound = nodes.make(at, Kind::Comprehension(Box::new(bound)));
    let some = if name == "optMap" {
        optional(nodes, "of", vec![bound])
    } else {
        bound
    };
    let none = optional(nodes, "none", Vec::new());
    Ok(nodes.call(at, "_?_:_", vec![present, some, none]))
}

/// A copy with numbers of its own: what is found out of a node must not be said of its copy.
fn renumbered(nodes: &mut Nodes, expression: &Expr) -> Expr {
    let at = nodes.position(expression.id);
    let kind = match &expression.kind {
        Kind::Select { operand, field, test } => Kind::Select {
            operand: Box::new(renumbered(nodes, operand)),
            field: field.clone(),
            test: *test,
        },
        Kind::Call {
            function,
            target,
            arguments,
        } => Kind::Call {
            function: function.clone(),
            target: target.as_ref().map(|target| Box::new(renumbered(nodes, target))),
            arguments: arguments.iter().map(|argument| renumbered(nodes, argument)).collect(),
        },
        Kind::List { elements, optional } => Kind::List {
            elements: elements.iter().map(|element| renumbered(nodes, element)).collect(),
            optional: optional.clone(),
        },
        other => other.clone(),
    };
    nodes.make(at, kind)
}
