//! From tokens to the tree: python's grammar of one expression, by recursive descent.

use super::super::value::Value;
use super::ast::{
    Binary, Clause, Comparison, Comprehension, Display, Expr, IfElse, Kind, Product, Slice, Target, Unary,
};
use super::lexer::{Spanned, Token, tokenize};
use super::{Outcome, limit, syntax, unsupported};

/// Deepest nesting of brackets and prefix operators, and the greatest height of a tree.
const MAX_DEPTH: u16 = 60;

pub(super) fn parse(text: &str) -> Outcome<Expr> {
    let tokens = tokenize(text)?;
    let mut parser = Parser { tokens, next: 0, depth: 0 };
    let expression = parser.expression_list()?;
    match parser.peek() {
        Token::End => Ok(expression),
        Token::Symbol("=" | ":=") => syntax(parser.at(), "an assignment is no condition; `==` compares"),
        other => syntax(parser.at(), format!("{} cannot stand here", describe(other))),
    }
}

struct Parser {
    /// Ends with [`Token::End`].
    tokens: Vec<Spanned>,
    next: usize,
    depth: u16,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |spanned| &spanned.token)
    }

    fn at(&self) -> u32 {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |spanned| spanned.at)
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Outcome<()> {
        if self.take(symbol) {
            return Ok(());
        }
        syntax(self.at(), format!("expected `{symbol}`, found {}", describe(self.peek())))
    }

    /// Runs `parse` one level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth >= MAX_DEPTH {
            return limit(self.at(), "it is nested too deeply");
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// An expression of which others may hang; a tree that grows too high without brackets ends here.
    fn make(at: u32, kind: Kind) -> Outcome<Expr> {
        let expression = Expr::new(at, kind);
        if expression.height > 2 * MAX_DEPTH { limit(at, "it is nested too deeply") } else { Ok(expression) }
    }

    /// `a` or `a, b, ...` (a tuple without brackets).
    fn expression_list(&mut self) -> Outcome<Expr> {
        let at = self.at();
        let first = self.expression()?;
        if !self.is(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.take(",") {
            if matches!(self.peek(), Token::End | Token::Symbol("]" | ")")) {
                break;
            }
            items.push(self.expression()?);
        }
        Self::make(at, Kind::Display(Display::Tuple, items))
    }

    /// With `x if c else y`.
    fn expression(&mut self) -> Outcome<Expr> {
        if self.is("lambda") {
            return unsupported(self.at(), "`lambda`");
        }
        let then = self.disjunction()?;
        let at = self.at();
        if !self.take("if") {
            return Ok(then);
        }
        let condition = self.disjunction()?;
        self.expect("else")?;
        let otherwise = self.nested(Self::expression)?;
        Self::make(at, Kind::IfElse(Box::new(IfElse { condition, then, otherwise })))
    }

    fn disjunction(&mut self) -> Outcome<Expr> {
        self.chain("or", Self::conjunction, Kind::Or)
    }

    fn conjunction(&mut self) -> Outcome<Expr> {
        self.chain("and", Self::inversion, Kind::And)
    }

    fn chain(
        &mut self,
        word: &str,
        operand: fn(&mut Self) -> Outcome<Expr>,
        make: fn(Vec<Expr>) -> Kind,
    ) -> Outcome<Expr> {
        let first = operand(self)?;
        if !self.is(word) {
            return Ok(first);
        }
        let at = self.at();
        let mut operands = vec![first];
        while self.take(word) {
            operands.push(operand(self)?);
        }
        Self::make(at, make(operands))
    }

    fn inversion(&mut self) -> Outcome<Expr> {
        let at = self.at();
        if !self.take("not") {
            return self.comparison();
        }
        let operand = self.nested(Self::inversion)?;
        Self::make(at, Kind::Not(Box::new(operand)))
    }

    fn comparison(&mut self) -> Outcome<Expr> {
        let first = self.binary(0)?;
        let at = self.at();
        let mut rest = Vec::new();
        while let Some(comparison) = self.comparison_operator() {
            rest.push((comparison, self.binary(0)?));
        }
        if rest.is_empty() { Ok(first) } else { Self::make(at, Kind::Compare(Box::new(first), rest)) }
    }

    fn comparison_operator(&mut self) -> Option<Comparison> {
        let Token::Symbol(symbol) = self.peek() else { return None };
        let comparison = match *symbol {
            "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterEqual,
            "in" => Comparison::In,
            "is" => Comparison::Is,
            "not" => {
                let followed = self.tokens.get(self.next + 1).map(|spanned| &spanned.token);
                if followed != Some(&Token::Symbol("in")) {
                    return None;
                }
                self.next += 1;
                Comparison::NotIn
            }
            _ => return None,
        };
        self.next += 1;
        let negated = comparison == Comparison::Is && self.take("not");
        Some(if negated { Comparison::IsNot } else { comparison })
    }

    /// Operators of this level of binding and tighter: `|`, `^`, `&`, (shifts), `+ -`, `* / // %`.
    fn binary(&mut self, level: u8) -> Outcome<Expr> {
        let mut left = self.unary()?;
        while let Some((operator, binding)) = self.binary_operator()? {
            if binding < level {
                break;
            }
            let at = self.at();
            self.next += 1;
            let right = self.binary(binding + 1)?;
            left = Self::make(at, Kind::Binary(operator, Box::new((left, right))))?;
        }
        Ok(left)
    }

    fn binary_operator(&self) -> Outcome<Option<(Binary, u8)>> {
        let Token::Symbol(symbol) = self.peek() else { return Ok(None) };
        Ok(Some(match *symbol {
            "|" => (Binary::BitOr, 0),
            "^" => (Binary::BitXor, 1),
            "&" => (Binary::BitAnd, 2),
            "<<" | ">>" => return unsupported(self.at(), "shifting"),
            "+" => (Binary::Add, 4),
            "-" => (Binary::Subtract, 4),
            "*" => (Binary::Multiply, 5),
            "/" => (Binary::Divide, 5),
            "//" => (Binary::FloorDivide, 5),
            "%" => (Binary::Remainder, 5),
            _ => return Ok(None),
        }))
    }

    fn unary(&mut self) -> Outcome<Expr> {
        let at = self.at();
        let operator = match self.peek() {
            Token::Symbol("-") => Unary::Minus,
            Token::Symbol("+") => Unary::Plus,
            Token::Symbol("~") => Unary::Invert,
            _ => return self.power(),
        };
        self.next += 1;
        let operand = self.nested(Self::unary)?;
        Self::make(at, Kind::Unary(operator, Box::new(operand)))
    }

    fn power(&mut self) -> Outcome<Expr> {
        let base = self.primary()?;
        let at = self.at();
        if !self.take("**") {
            return Ok(base);
        }
        let exponent = self.nested(Self::unary)?;
        Self::make(at, Kind::Binary(Binary::Power, Box::new((base, exponent))))
    }

    /// An atom with its calls, attributes and subscripts.
    fn primary(&mut self) -> Outcome<Expr> {
        let mut object = self.nested(Self::atom)?;
        loop {
            let at = self.at();
            object = if self.take("(") {
                let Kind::Name(name) = object.kind else {
                    return unsupported(at, "a call of anything but a named function or a method");
                };
                let arguments = self.nested(Self::arguments)?;
                Self::make(object.at, Kind::Call(name, arguments))?
            } else if self.take("[") {
                let subscripted = self.nested(|parser| parser.subscript(object, at))?;
                self.expect("]")?;
                subscripted
            } else if self.take(".") {
                self.attribute(object, at)?
            } else {
                return Ok(object);
            };
        }
    }

    fn attribute(&mut self, object: Expr, at: u32) -> Outcome<Expr> {
        let Token::Name(name) = self.peek().clone() else {
            return syntax(self.at(), format!("expected a name, found {}", describe(self.peek())));
        };
        self.next += 1;
        if !self.take("(") {
            return unsupported(at, format!("the attribute `{name}` without a call"));
        }
        let arguments = self.nested(Self::arguments)?;
        Self::make(at, Kind::Method(Box::new(object), name, arguments))
    }

    /// Up to and with the closing bracket.
    fn arguments(&mut self) -> Outcome<Vec<Expr>> {
        let mut arguments = Vec::new();
        while !self.take(")") {
            self.refuse_stars()?;
            let at = self.at();
            let argument = self.expression()?;
            if self.is("=") {
                return unsupported(at, "an argument by its name");
            }
            if self.is("for") {
                let generator = self.comprehension(at, Product::Generator(argument))?;
                if !arguments.is_empty() || !self.is(")") {
                    return syntax(at, "a generator among other arguments needs brackets");
                }
                arguments.push(generator);
            } else {
                arguments.push(argument);
            }
            if !self.take(",") && !self.is(")") {
                self.expect(")")?;
            }
        }
        Ok(arguments)
    }

    fn refuse_stars(&self) -> Outcome<()> {
        if self.is("*") || self.is("**") { unsupported(self.at(), "unpacking with `*`") } else { Ok(()) }
    }

    fn subscript(&mut self, object: Expr, at: u32) -> Outcome<Expr> {
        let start = if self.is(":") { None } else { Some(self.expression_list()?) };
        if !self.take(":") {
            return match start {
                Some(index) => Self::make(at, Kind::Subscript(Box::new((object, index)))),
                None => syntax(self.at(), "expected an index"),
            };
        }
        let stop = self.slice_part()?;
        let step = if self.take(":") { self.slice_part()? } else { None };
        Self::make(at, Kind::Slice(Box::new(Slice { object, start, stop, step })))
    }

    fn slice_part(&mut self) -> Outcome<Option<Expr>> {
        if self.is(":") || self.is("]") { Ok(None) } else { self.expression().map(Some) }
    }

    fn atom(&mut self) -> Outcome<Expr> {
        let at = self.at();
        let token = self.peek().clone();
        self.next += 1;
        let kind = match token {
            Token::Literal(Value::Str(first)) => Kind::Constant(self.joined_strings(&first)?),
            Token::Literal(value) => Kind::Constant(value),
            Token::Name(name) => Kind::Name(name),
            Token::Symbol("True") => Kind::Constant(Value::Bool(true)),
            Token::Symbol("False") => Kind::Constant(Value::Bool(false)),
            Token::Symbol("None") => Kind::Constant(Value::Null),
            Token::Symbol("(") => return self.parenthesis(at),
            Token::Symbol("[") => return self.list(at),
            Token::Symbol("{") => return self.braces(at),
            Token::Symbol("...") => return unsupported(at, "`...`"),
            Token::Symbol("await") => return unsupported(at, "`await`"),
            other => {
                self.next -= 1;
                return syntax(at, format!("expected a value, found {}", describe(&other)));
            }
        };
        Self::make(at, kind)
    }

    /// Strings that stand side by side are one.
    fn joined_strings(&mut self, first: &str) -> Outcome<Value> {
        let mut text = first.to_owned();
        while let Token::Literal(value) = self.peek() {
            let Value::Str(more) = value else { return syntax(self.at(), "a number cannot stand here") };
            text.push_str(more);
            self.next += 1;
        }
        Ok(Value::from(text))
    }

    fn parenthesis(&mut self, at: u32) -> Outcome<Expr> {
        if self.take(")") {
            return Self::make(at, Kind::Display(Display::Tuple, Vec::new()));
        }
        self.refuse_stars()?;
        let first = self.expression_list()?;
        if self.is(":=") {
            return unsupported(self.at(), "`:=`");
        }
        let inner = if self.is("for") { self.comprehension(at, Product::Generator(first))? } else { first };
        self.expect(")")?;
        Ok(inner)
    }

    fn list(&mut self, at: u32) -> Outcome<Expr> {
        if self.take("]") {
            return Self::make(at, Kind::Display(Display::List, Vec::new()));
        }
        self.refuse_stars()?;
        let first = self.expression()?;
        if self.is("for") {
            let comprehension = self.comprehension(at, Product::List(first))?;
            self.expect("]")?;
            return Ok(comprehension);
        }
        let items = self.more_items(first, "]")?;
        Self::make(at, Kind::Display(Display::List, items))
    }

    /// The items after the first one, and the closing bracket.
    fn more_items(&mut self, first: Expr, close: &str) -> Outcome<Vec<Expr>> {
        let mut items = vec![first];
        while self.take(",") {
            if self.is(close) {
                break;
            }
            self.refuse_stars()?;
            items.push(self.expression()?);
        }
        self.expect(close)?;
        Ok(items)
    }

    fn braces(&mut self, at: u32) -> Outcome<Expr> {
        if self.take("}") {
            return Self::make(at, Kind::Dict(Vec::new()));
        }
        self.refuse_stars()?;
        let first = self.expression()?;
        if self.is(":") {
            return self.dict(at, first);
        }
        if self.is("for") {
            let comprehension = self.comprehension(at, Product::Set(first))?;
            self.expect("}")?;
            return Ok(comprehension);
        }
        let items = self.more_items(first, "}")?;
        Self::make(at, Kind::Display(Display::Set, items))
    }

    /// From the colon after the first key on.
    fn dict(&mut self, at: u32, key: Expr) -> Outcome<Expr> {
        self.expect(":")?;
        let value = self.expression()?;
        if self.is("for") {
            let comprehension = self.comprehension(at, Product::Dict(key, value))?;
            self.expect("}")?;
            return Ok(comprehension);
        }
        let mut entries = vec![(key, value)];
        while self.take(",") {
            if self.is("}") {
                break;
            }
            self.refuse_stars()?;
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
        }
        self.expect("}")?;
        Self::make(at, Kind::Dict(entries))
    }

    /// From the first `for` on.
    fn comprehension(&mut self, at: u32, product: Product) -> Outcome<Expr> {
        let mut clauses = Vec::new();
        while self.take("for") {
            let target = self.nested(Self::target_list)?;
            self.expect("in")?;
            let iterable = self.disjunction()?;
            let mut conditions = Vec::new();
            while self.take("if") {
                conditions.push(self.disjunction()?);
            }
            clauses.push(Clause { target, iterable, conditions });
        }
        Self::make(at, Kind::Comprehension(Box::new(Comprehension { product, clauses })))
    }

    fn target_list(&mut self) -> Outcome<Target> {
        let first = self.target()?;
        if !self.is(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.take(",") {
            if self.is("in") || self.is(")") || self.is("]") {
                break;
            }
            targets.push(self.target()?);
        }
        Ok(Target::Unpack(targets))
    }

    fn target(&mut self) -> Outcome<Target> {
        self.refuse_stars()?;
        if let Token::Name(name) = self.peek().clone() {
            self.next += 1;
            return Ok(Target::Name(name));
        }
        let close = match self.peek() {
            Token::Symbol("(") => ")",
            Token::Symbol("[") => "]",
            other => return syntax(self.at(), format!("expected a name, found {}", describe(other))),
        };
        self.next += 1;
        let inner = self.nested(Self::target_list)?;
        self.expect(close)?;
        Ok(inner)
    }
}

fn describe(token: &Token) -> String {
    match token {
        Token::Name(name) => format!("`{name}`"),
        Token::Symbol(symbol) => format!("`{symbol}`"),
        Token::Literal(value) => format!("`{}`", value.repr()),
        Token::End => "the end".to_owned(),
    }
}
