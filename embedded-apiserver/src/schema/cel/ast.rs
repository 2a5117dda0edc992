//! Expressions as a tree whose nodes know where in the text they came from.
//!
//! For: the type check and the cost estimate, which the library that evaluates has no means for. Not for: evaluating;
//! `lower` hands the tree over.

/// A node's number: types, sizes and positions are kept by it.
pub(super) type Id = usize;

/// A parsed expression.
#[derive(Debug, Clone)]
pub(super) struct Parsed {
    pub(super) root: Expr,
    /// For each node, the offset of its first (or operator) character.
    pub(super) positions: Vec<usize>,
}

/// One node.
#[derive(Debug, Clone)]
pub(super) struct Expr {
    pub(super) id: Id,
    pub(super) kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Literal(Literal),
    Ident(String),
    Select {
        operand: Box<Expr>,
        field: String,
        /// `has(operand.field)`.
        test: bool,
    },
    Call {
        function: String,
        target: Option<Box<Expr>>,
        arguments: Vec<Expr>,
    },
    List {
        elements: Vec<Expr>,
        /// Which elements are optional (`[?a]`).
        optional: Vec<usize>,
    },
    Map(Vec<Entry>),
    /// A message: its name and fields.
    Struct(String, Vec<Expr>),
    Comprehension(Box<Comprehension>),
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// An entry of a map.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Expr,
    pub(super) value: Expr,
    pub(super) optional: bool,
}

/// A loop, into which macros expand.
#[derive(Debug, Clone)]
pub(super) struct Comprehension {
    pub(super) range: Expr,
    pub(super) variable: String,
    pub(super) second: Option<String>,
    pub(super) accumulator: String,
    pub(super) init: Expr,
    pub(super) condition: Expr,
    pub(super) step: Expr,
    pub(super) result: Expr,
}

impl Expr {
    /// `a.b.c` as one name, if the expression is that.
    pub(super) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select {
                operand,
                field,
                test: false,
            } => Some(format!("{}.{field}", operand.qualified_name()?)),
            _ => None,
        }
    }

    /// The name, if the expression is a lone identifier.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }
}
