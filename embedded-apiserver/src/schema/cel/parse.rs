//! From text to a tree, with positions and with macros expanded.
//!
//! For: expressions that the grammar of the CEL library accepts; what it refuses is refused in its words.

use super::ast::{Entry, Expr, Id, Kind, Literal, Parsed};
use super::lexer::{Token, Word, tokens};
use super::macros;

/// Deeper nesting is refused by the library's own parser before.
const MAX_DEPTH: usize = 250;

/// An error at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The offset in the text.
    pub(super) at: usize,
    pub(super) message: String,
}

/// Parses an expression that is known to be well formed.
pub(super) fn parse(source: &str) -> Result<Parsed, Problem> {
    let unreadable = |at: usize| Problem {
        at,
        message: "Syntax error: the expression could not be read".to_owned(),
    };
    let mut parser = Parser {
        tokens: tokens(source).ok_or_else(|| unreadable(0))?,
        next: 0,
        end: source.len(),
        depth: 0,
        nodes: Nodes::default(),
    };
    let root = parser.expression()?;
    if parser.next < parser.tokens.len() {
        return Err(unreadable(parser.at()));
    }
    Ok(Parsed {
        root,
        positions: parser.nodes.positions,
    })
}

/// Makes nodes.
#[derive(Default)]
pub(super) struct Nodes {
    positions: Vec<usize>,
}

impl Nodes {
    pub(super) fn make(&mut self, at: usize, kind: Kind) -> Expr {
        self.positions.push(at);
        Expr {
            id: self.positions.len() - 1,
            kind,
        }
    }

    pub(super) fn position(&self, id: Id) -> usize {
        self.positions.get(id).copied().unwrap_or_default()
    }

    /// A call of a function or operator.
    pub(super) fn call(&mut self, at: usize, function: &str, arguments: Vec<Expr>) -> Expr {
        self.make(
            at,
            Kind::Call {
                function: function.to_owned(),
                target: None,
                arguments,
            },
        )
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    end: usize,
    depth: usize,
    nodes: Nodes,
}

/// Operators that take two operands, from those that bind least.
const BINARY: [&[(&str, &str)]; 5] = [
    &[("||", "_||_")],
    &[("&&", "_&&_")],
    &[
        ("==", "_==_"),
        ("!=", "_!=_"),
        ("<=", "_<=_"),
        (">=", "_>=_"),
        ("<", "_<_"),
        (">", "_>_"),
        ("in", "@in"),
    ],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

impl Parser {
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |token| token.at)
    }

    fn is(&self, sign: &str) -> bool {
        match self.tokens.get(self.next).map(|token| &token.word) {
            Some(Word::Sign(found)) => *found == sign,
            Some(Word::Name(name)) => sign == "in" && name == "in",
            _ => false,
        }
    }

    fn take(&mut self, sign: &str) -> Option<usize> {
        self.is(sign).then(|| {
            let at = self.at();
            self.next += 1;
            at
        })
    }

    fn expect(&mut self, sign: &str) -> Result<usize, Problem> {
        self.take(sign).ok_or_else(|| Problem {
            at: self.at(),
            message: format!("Syntax error: expecting '{sign}'"),
        })
    }

    fn name(&mut self) -> Result<String, Problem> {
        if let Some(Word::Name(name)) = self.tokens.get(self.next).map(|token| &token.word) {
            let name = name.clone();
            self.next += 1;
            return Ok(name);
        }
        Err(Problem {
            at: self.at(),
            message: "Syntax error: expecting an identifier".to_owned(),
        })
    }

    fn expression(&mut self) -> Result<Expr, Problem> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Problem {
                at: self.at(),
                message: "expression recursion limit exceeded".to_owned(),
            });
        }
        let condition = self.binary(0)?;
        let made = match self.take("?") {
            None => condition,
            Some(at) => {
                let yes = self.binary(0)?;
                self.expect(":")?;
                let no = self.expression()?;
                self.nodes.call(at, "_?_:_", vec![condition, yes, no])
            }
        };
        self.depth -= 1;
        Ok(made)
    }

    fn binary(&mut self, level: usize) -> Result<Expr, Problem> {
        let Some(operators) = BINARY.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        loop {
            let Some((sign, function)) = operators.iter().find(|(sign, _)| self.is(sign)) else {
                return Ok(left);
            };
            let at = self.expect(sign)?;
            let right = self.binary(level + 1)?;
            left = self.nodes.call(at, function, vec![left, right]);
        }
    }

    fn unary(&mut self) -> Result<Expr, Problem> {
        for (sign, function) in [("!", "!_"), ("-", "-_")] {
            if !self.is(sign) {
                continue;
            }
            let at = self.at();
            let negative = self.tokens.get(self.next + 1).map(|token| &token.word);
            // A sign before a number belongs to it.
            if sign == "-"
                && let Some(Word::Number(number)) = negative
            {
                let literal = match number {
                    Literal::Int(value) => Literal::Int(value.wrapping_neg()),
                    Literal::Double(value) => Literal::Double(-value),
                    other => other.clone(),
                };
                self.next += 2;
                let literal = self.nodes.make(at, Kind::Literal(literal));
                return self.member(literal);
            }
            let mut count = 0;
            while self.take(sign).is_some() {
                count += 1;
            }
            let operand = self.unary_operand()?;
            return Ok(if count % 2 == 0 {
                operand
            } else {
                self.nodes.call(at, function, vec![operand])
            });
        }
        self.unary_operand()
    }

    fn unary_operand(&mut self) -> Result<Expr, Problem> {
        let primary = self.primary()?;
        self.member(primary)
    }

    fn member(&mut self, mut operand: Expr) -> Result<Expr, Problem> {
        loop {
            if let Some(at) = self.take(".") {
                let optional = self.take("?").is_some();
                let quoted = self.take("`").is_some();
                let field = self.name()?;
                if quoted {
                    self.expect("`")?;
                }
                if optional {
                    let field = self.nodes.make(at, Kind::Literal(Literal::Text(field)));
                    operand = self.nodes.call(at, "_?._", vec![operand, field]);
                } else if self.is("(") {
                    let at = self.expect("(")?;
                    let arguments = self.arguments(")")?;
                    operand = macros::receiver(&mut self.nodes, at, &field, operand, arguments)?;
                } else {
                    operand = self.nodes.make(
                        at,
                        Kind::Select {
                            operand: Box::new(operand),
                            field,
                            test: false,
                        },
                    );
                }
            } else if let Some(at) = self.take("[") {
                let optional = self.take("?").is_some();
                let index = self.expression()?;
                self.expect("]")?;
                let function = if optional { "_[?_]" } else { "_[_]" };
                operand = self.nodes.call(at, function, vec![operand, index]);
            } else {
                return Ok(operand);
            }
        }
    }

    fn arguments(&mut self, end: &str) -> Result<Vec<Expr>, Problem> {
        let mut arguments = Vec::new();
        while self.take(end).is_none() {
            arguments.push(self.expression()?);
            if self.take(",").is_none() {
                self.expect(end)?;
                break;
            }
        }
        Ok(arguments)
    }

    fn primary(&mut self) -> Result<Expr, Problem> {
        let at = self.at();
        let word = self.tokens.get(self.next).map(|token| token.word.clone());
        match word {
            Some(Word::Number(literal) | Word::Text(literal)) => {
                self.next += 1;
                Ok(self.nodes.make(at, Kind::Literal(literal)))
            }
            Some(Word::Sign("(")) => {
                self.next += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Some(Word::Sign("[")) => self.list(),
            Some(Word::Sign("{")) => self.map(),
            Some(Word::Sign(".")) => {
                self.next += 1;
                self.named(at)
            }
            _ => self.named(at),
        }
    }

    fn named(&mut self, at: usize) -> Result<Expr, Problem> {
        let name = self.name()?;
        let literal = match name.as_str() {
            "true" => Some(Literal::Bool(true)),
            "false" => Some(Literal::Bool(false)),
            "null" => Some(Literal::Null),
            _ => None,
        };
        if let Some(literal) = literal {
            return Ok(self.nodes.make(at, Kind::Literal(literal)));
        }
        if self.is("(") {
            let at = self.expect("(")?;
            let arguments = self.arguments(")")?;
            return macros::global(&mut self.nodes, at, &name, arguments);
        }
        if let Some((message, after)) = self.message_name(&name) {
            self.next = after;
            let at = self.expect("{")?;
            let mut fields = Vec::new();
            while self.take("}").is_none() {
                self.take("?");
                self.name()?;
                self.expect(":")?;
                fields.push(self.expression()?);
                if self.take(",").is_none() {
                    self.expect("}")?;
                    break;
                }
            }
            return Ok(self.nodes.make(at, Kind::Struct(message, fields)));
        }
        Ok(self.nodes.make(at, Kind::Ident(name)))
    }

    /// `a.b.C` before a brace: a message's name, and where the brace is.
    fn message_name(&self, first: &str) -> Option<(String, usize)> {
        let mut name = first.to_owned();
        let mut next = self.next;
        loop {
            match self.tokens.get(next).map(|token| &token.word)? {
                Word::Sign("{") => return Some((name, next)),
                Word::Sign(".") => match self.tokens.get(next + 1).map(|token| &token.word)? {
                    Word::Name(part) => {
                        name = format!("{name}.{part}");
                        next += 2;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    fn list(&mut self) -> Result<Expr, Problem> {
        let at = self.expect("[")?;
        let (mut elements, mut optional) = (Vec::new(), Vec::new());
        while self.take("]").is_none() {
            if self.take("?").is_some() {
                optional.push(elements.len());
            }
            elements.push(self.expression()?);
            if self.take(",").is_none() {
                self.expect("]")?;
                break;
            }
        }
        Ok(self.nodes.make(at, Kind::List { elements, optional }))
    }

    fn map(&mut self) -> Result<Expr, Problem> {
        let at = self.expect("{")?;
        let mut entries = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            entries.push(Entry { key, value, optional });
            if self.take(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        Ok(self.nodes.make(at, Kind::Map(entries)))
    }
}
