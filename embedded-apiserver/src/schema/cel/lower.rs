//! From the checked tree to the one that the CEL library evaluates.
//!
//! The library knows loops with one variable only: those with two go through pairs.

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr as Lowered, IdedEntryExpr, ListExpr, LiteralValue, MapEntryExpr,
    MapExpr, SelectExpr,
};

use super::ast::{Comprehension, Expr, Kind, Literal};

/// Makes a list of pairs from a list or map; `types` registers it.
pub(super) const PAIRS: &str = "@pairs";

/// The same expression for the library.
pub(super) fn lower(expression: &Expr) -> IdedExpr {
    let expr = match &expression.kind {
        Kind::Literal(literal) => Lowered::Literal(match literal {
            Literal::Null => LiteralValue::Null,
            Literal::Bool(value) => LiteralValue::Boolean((*value).into()),
            Literal::Int(value) => LiteralValue::Int((*value).into()),
            Literal::Uint(value) => LiteralValue::UInt((*value).into()),
            Literal::Double(value) => LiteralValue::Double((*value).into()),
            Literal::Text(value) => LiteralValue::String(value.clone().into()),
            Literal::Bytes(value) => LiteralValue::Bytes(value.clone().into()),
        }),
        Kind::Ident(name) => Lowered::Ident(name.clone()),
        Kind::Select { operand, field, test } => Lowered::Select(SelectExpr {
            operand: Box::new(lower(operand)),
            field: field.clone(),
            test: *test,
        }),
        Kind::Call {
            function,
            target,
            arguments,
        } => Lowered::Call(CallExpr {
            // A field that is not there is an error for the library, an index that is not is none.
            func_name: if function == "_?._" {
                "_[?_]".to_owned()
            } else {
                function.clone()
            },
            target: target.as_ref().map(|target| Box::new(lower(target))),
            args: arguments.iter().map(lower).collect(),
        }),
        Kind::List { elements, optional } => Lowered::List(ListExpr {
            elements: elements.iter().map(lower).collect(),
            optional_indices: optional.clone(),
        }),
        Kind::Map(entries) => Lowered::Map(MapExpr {
            entries: entries
                .iter()
                .map(|entry| IdedEntryExpr {
                    id: 0,
                    expr: EntryExpr::MapEntry(MapEntryExpr {
                        key: lower(&entry.key),
                        value: lower(&entry.value),
                        optional: entry.optional,
                    }),
                })
                .collect(),
        }),
        // The type check knows no messages and refuses them all.
        Kind::Struct(..) => Lowered::Literal(LiteralValue::Null),
        Kind::Comprehension(comprehension) => Lowered::Comprehension(Box::new(loop_of(comprehension))),
    };
    IdedExpr {
        id: expression.id as u64,
        expr,
    }
}

fn loop_of(comprehension: &Comprehension) -> ComprehensionExpr {
    let mut range = lower(&comprehension.range);
    let mut variable = comprehension.variable.clone();
    let mut step = lower(&comprehension.step);
    if let Some(second) = &comprehension.second {
        range = ided(Lowered::Call(CallExpr {
            func_name: PAIRS.to_owned(),
            target: None,
            args: vec![range],
        }));
        // A name of its own, so that no inner loop hides it.
        variable = format!("@pair{}", comprehension.range.id);
        for (index, name) in [&comprehension.variable, second].into_iter().enumerate() {
            replace(&mut step, name, &variable, index as i64);
        }
    }
    ComprehensionExpr {
        iter_range: range,
        iter_var: variable,
        iter_var2: None,
        accu_var: comprehension.accumulator.clone(),
        accu_init: lower(&comprehension.init),
        loop_cond: lower(&comprehension.condition),
        loop_step: step,
        result: lower(&comprehension.result),
    }
}

fn ided(expr: Lowered) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

/// Puts an element of the pair in the place of a variable, but where a loop has one of the same name.
fn replace(expression: &mut IdedExpr, name: &str, pair: &str, index: i64) {
    match &mut expression.expr {
        Lowered::Ident(found) if found == name => {
            let pair = ided(Lowered::Ident(pair.to_owned()));
            let index = ided(Lowered::Literal(LiteralValue::Int(index.into())));
            expression.expr = Lowered::Call(CallExpr {
                func_name: "_[_]".to_owned(),
                target: None,
                args: vec![pair, index],
            });
        }
        Lowered::Select(select) => replace(&mut select.operand, name, pair, index),
        Lowered::Call(call) => {
            if let Some(target) = &mut call.target {
                replace(target, name, pair, index);
            }
            for argument in &mut call.args {
                replace(argument, name, pair, index);
            }
        }
        Lowered::List(list) => {
            for element in &mut list.elements {
                replace(element, name, pair, index);
            }
        }
        Lowered::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    replace(&mut entry.key, name, pair, index);
                    replace(&mut entry.value, name, pair, index);
                }
            }
        }
        Lowered::Comprehension(inner) => {
            replace(&mut inner.iter_range, name, pair, index);
            replace(&mut inner.accu_init, name, pair, index);
            if inner.iter_var != name && inner.accu_var != name {
                replace(&mut inner.loop_cond, name, pair, index);
                replace(&mut inner.loop_step, name, pair, index);
                replace(&mut inner.result, name, pair, index);
            }
        }
        _ => {}
    }
}
