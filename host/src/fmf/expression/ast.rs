//! The tree that an expression is parsed into.

use super::super::value::Value;

/// One expression and where it begins, as a byte of the text (for operators: where the operator stands).
#[derive(Debug, Clone)]
pub(super) struct Expr {
    pub(super) at: u32,
    /// Longest way down to a leaf. Bounded by the parser, so that evaluating and dropping may recurse.
    pub(super) height: u16,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Constant(Value),
    Name(Box<str>),
    Display(Display, Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<(Expr, Expr)>),
    /// At least two operands.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// `first op second op third ...`
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    IfElse(Box<IfElse>),
    Subscript(Box<(Expr, Expr)>),
    Slice(Box<Slice>),
    /// `name(arguments)`
    Call(Box<str>, Vec<Expr>),
    /// `object.name(arguments)`
    Method(Box<Expr>, Box<str>, Vec<Expr>),
    Comprehension(Box<Comprehension>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Display {
    List,
    Tuple,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unary {
    Minus,
    Plus,
    Invert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
    BitAnd,
    BitOr,
    BitXor,
}

impl Binary {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::FloorDivide => "//",
            Self::Remainder => "%",
            Self::Power => "** or pow()",
            Self::BitAnd => "&",
            Self::BitOr => "|",
            Self::BitXor => "^",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
    Is,
    IsNot,
}

#[derive(Debug, Clone)]
pub(super) struct IfElse {
    pub(super) condition: Expr,
    pub(super) then: Expr,
    pub(super) otherwise: Expr,
}

#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) object: Expr,
    pub(super) start: Option<Expr>,
    pub(super) stop: Option<Expr>,
    pub(super) step: Option<Expr>,
}

/// What a comprehension makes.
#[derive(Debug, Clone)]
pub(super) enum Product {
    List(Expr),
    Set(Expr),
    Dict(Expr, Expr),
    Generator(Expr),
}

#[derive(Debug, Clone)]
pub(super) struct Comprehension {
    pub(super) product: Product,
    /// At least one.
    pub(super) clauses: Vec<Clause>,
}

/// `for targets in iterable if condition if condition ...`
#[derive(Debug, Clone)]
pub(super) struct Clause {
    pub(super) target: Target,
    pub(super) iterable: Expr,
    pub(super) conditions: Vec<Expr>,
}

#[derive(Debug, Clone)]
pub(super) enum Target {
    Name(Box<str>),
    /// `k, v` or `(a, (b, c))`
    Unpack(Vec<Target>),
}

impl Expr {
    pub(super) fn new(at: u32, kind: Kind) -> Self {
        let mut highest = 0;
        kind.for_each_child(&mut |child| highest = highest.max(child.height));
        Self { at, height: highest.saturating_add(1), kind }
    }
}

impl Kind {
    fn for_each_child(&self, see: &mut dyn FnMut(&Expr)) {
        match self {
            Self::Constant(_) | Self::Name(_) => {}
            Self::Display(_, items) | Self::And(items) | Self::Or(items) | Self::Call(_, items) => {
                items.iter().for_each(see);
            }
            Self::Dict(entries) => entries.iter().for_each(|(key, value)| {
                see(key);
                see(value);
            }),
            Self::Not(operand) | Self::Unary(_, operand) => see(operand),
            Self::Binary(_, pair) | Self::Subscript(pair) => {
                see(&pair.0);
                see(&pair.1);
            }
            Self::Compare(first, rest) => {
                see(first);
                for (_, operand) in rest {
                    see(operand);
                }
            }
            Self::IfElse(it) => [&it.condition, &it.then, &it.otherwise].into_iter().for_each(see),
            Self::Slice(it) => {
                see(&it.object);
                [&it.start, &it.stop, &it.step].into_iter().flatten().for_each(see);
            }
            Self::Method(object, _, arguments) => {
                see(object);
                arguments.iter().for_each(see);
            }
            Self::Comprehension(it) => it.for_each_child(see),
        }
    }
}

impl Comprehension {
    fn for_each_child(&self, see: &mut dyn FnMut(&Expr)) {
        match &self.product {
            Product::List(item) | Product::Set(item) | Product::Generator(item) => see(item),
            Product::Dict(key, value) => {
                see(key);
                see(value);
            }
        }
        for clause in &self.clauses {
            see(&clause.iterable);
            clause.conditions.iter().for_each(&mut *see);
        }
    }
}
