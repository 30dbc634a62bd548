//! The evaluator: python's semantics over [`Value`]s, with a budget.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use num_bigint::BigInt;

use super::super::value::{Map, Value};
use super::ast::{
    Binary, Clause, Comparison, Comprehension, Display, Expr, Kind, Product, Slice, Target, Unary,
};
use super::{Outcome, arithmetic, builtins, limit, methods, raised, type_error, unsupported};

/// Steps of one evaluation: visits of the tree and of items.
const MAX_STEPS: u32 = 1_000_000;
/// Bytes that one evaluation may build.
const MAX_BYTES: usize = 16 << 20;

pub(super) fn evaluate(expression: &Expr, data: &Map) -> Outcome<Value> {
    Machine { data, locals: Vec::new(), steps: 0, bytes: 0 }.value(expression)
}

/// What an iteration does with each item.
type Visit<'v, 'a> = &'v mut dyn FnMut(&mut Machine<'a>, Value) -> Outcome<ControlFlow<()>>;

pub(super) struct Machine<'a> {
    data: &'a Map,
    /// Variables of comprehensions, innermost last.
    locals: Vec<(Box<str>, Value)>,
    steps: u32,
    bytes: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn step(&mut self, at: u32) -> Outcome<()> {
        self.steps += 1;
        if self.steps > MAX_STEPS { limit(at, "too many steps") } else { Ok(()) }
    }

    /// To be asked before `bytes` are built.
    pub(super) fn reserve(&mut self, at: u32, bytes: usize) -> Outcome<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_BYTES { limit(at, "values of more than 16 MiB") } else { Ok(()) }
    }

    pub(super) fn text(&mut self, at: u32, text: String) -> Outcome<Value> {
        self.reserve(at, text.len())?;
        Ok(Value::from(text))
    }

    pub(super) fn items(&mut self, at: u32, items: Vec<Value>) -> Outcome<Value> {
        self.reserve(at, items.len() * size_of::<Value>())?;
        Ok(Value::list(items))
    }

    pub(super) fn value(&mut self, expression: &Expr) -> Outcome<Value> {
        let at = expression.at;
        self.step(at)?;
        match &expression.kind {
            Kind::Constant(value) => Ok(value.clone()),
            Kind::Name(name) => self.name(at, name),
            Kind::Display(kind, items) => self.display(at, *kind, items),
            Kind::Dict(entries) => self.dict(at, entries),
            Kind::Not(operand) => Ok(Value::Bool(!self.value(operand)?.is_true())),
            Kind::Unary(operator, operand) => {
                let operand = self.value(operand)?;
                unary(at, *operator, &operand)
            }
            Kind::Binary(operator, operands) => {
                let (left, right) = (self.value(&operands.0)?, self.value(&operands.1)?);
                self.binary(at, *operator, &left, &right)
            }
            Kind::And(operands) => self.first(operands, false),
            Kind::Or(operands) => self.first(operands, true),
            Kind::Compare(first, rest) => self.compare(at, first, rest),
            Kind::IfElse(it) => {
                let holds = self.value(&it.condition)?.is_true();
                self.value(if holds { &it.then } else { &it.otherwise })
            }
            Kind::Subscript(parts) => {
                let (object, index) = (self.value(&parts.0)?, self.value(&parts.1)?);
                subscript(at, &object, &index)
            }
            Kind::Slice(slice) => self.slice(at, slice),
            Kind::Call(name, arguments) => self.call(at, name, arguments),
            Kind::Method(object, name, arguments) => self.method(at, object, name, arguments),
            Kind::Comprehension(comprehension) => self.comprehension(at, comprehension),
        }
    }

    /// Whether a variable or a key hides the function of that name.
    pub(super) fn name_is_taken(&self, name: &str) -> bool {
        self.lookup(name).is_some()
    }

    fn lookup(&self, name: &str) -> Option<Value> {
        let local = self.locals.iter().rev().find(|(known, _)| **known == *name);
        local.map(|(_, value)| value.clone()).or_else(|| self.data.get(name).cloned())
    }

    fn name(&self, at: u32, name: &str) -> Outcome<Value> {
        match self.lookup(name) {
            Some(value) => Ok(value),
            None if builtins::is_builtin(name) => unsupported(at, format!("`{name}` without a call")),
            None => raised(at, "NameError", format!("name '{name}' is not defined")),
        }
    }

    fn display(&mut self, at: u32, kind: Display, items: &[Expr]) -> Outcome<Value> {
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            values.push(self.value(item)?);
        }
        self.reserve(at, values.len() * size_of::<Value>())?;
        match kind {
            Display::List => Ok(Value::list(values)),
            Display::Tuple => Ok(Value::Tuple(values.into())),
            Display::Set => set_of(at, values),
        }
    }

    fn dict(&mut self, at: u32, entries: &[(Expr, Expr)]) -> Outcome<Value> {
        let mut map = Map::new();
        for (key, value) in entries {
            let (key, value) = (self.value(key)?, self.value(value)?);
            check_hashable(at, &key)?;
            self.reserve(at, 2 * size_of::<Value>())?;
            map.insert(key, value);
        }
        Ok(Value::map(map))
    }

    /// The first operand whose truth is `truth`, or the last one.
    fn first(&mut self, operands: &[Expr], truth: bool) -> Outcome<Value> {
        let mut value = Value::Null;
        for operand in operands {
            value = self.value(operand)?;
            if value.is_true() == truth {
                break;
            }
        }
        Ok(value)
    }

    fn compare(&mut self, at: u32, first: &Expr, rest: &[(Comparison, Expr)]) -> Outcome<Value> {
        let mut left = self.value(first)?;
        for (operator, operand) in rest {
            let holds = if matches!(operator, Comparison::In | Comparison::NotIn) {
                let found = self.contains(at, operand, &left)?;
                if rest.len() > 1 {
                    // Evaluated again: a chain through `in` is rare, and nothing has effects.
                    left = self.value(operand)?;
                }
                found == (*operator == Comparison::In)
            } else {
                let right = self.value(operand)?;
                let holds = compare(at, *operator, &left, &right)?;
                left = right;
                holds
            };
            if !holds {
                return Ok(Value::Bool(false));
            }
        }
        Ok(Value::Bool(true))
    }

    /// `item in operand`
    fn contains(&mut self, at: u32, operand: &Expr, item: &Value) -> Outcome<bool> {
        if is_lazy(operand) {
            let mut found = false;
            self.each(operand, &mut |_, value| {
                found = value == *item;
                Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            return Ok(found);
        }
        let container = self.value(operand)?;
        match (&container, item) {
            (Value::Str(text), Value::Str(part)) => Ok(text.contains(&**part)),
            (Value::Str(_), other) => {
                let class = other.type_name();
                type_error(at, format!("'in <string>' requires string as left operand, not {class}"))
            }
            (Value::List(items) | Value::Tuple(items), item) => Ok(items.contains(item)),
            // Looked for as a frozen one, which is never there.
            (Value::Set(_), Value::Set(_)) => Ok(false),
            (Value::Map(map) | Value::Set(map), key) => {
                check_hashable(at, key)?;
                Ok(map.get_value(key).is_some())
            }
            (other, _) => type_error(at, format!("argument of type '{}' is not iterable", other.type_name())),
        }
    }

    fn slice(&mut self, at: u32, slice: &Slice) -> Outcome<Value> {
        let object = self.value(&slice.object)?;
        let mut part = |part: &Option<Expr>| part.as_ref().map(|part| self.value(part)).transpose();
        let (start, stop, step) = (part(&slice.start)?, part(&slice.stop)?, part(&slice.step)?);
        let bounds = (bound(at, start)?, bound(at, stop)?, bound(at, step)?);
        match &object {
            Value::Str(text) => {
                let characters: Vec<char> = text.chars().collect();
                let text = sliced(at, &characters, bounds)?.into_iter().collect();
                self.text(at, text)
            }
            Value::List(items) => {
                let items = sliced(at, items, bounds)?;
                self.items(at, items)
            }
            Value::Tuple(items) => {
                let items = sliced(at, items, bounds)?;
                self.reserve(at, items.len() * size_of::<Value>())?;
                Ok(Value::Tuple(items.into()))
            }
            Value::Map(_) => type_error(at, "unhashable type: 'slice'"),
            other => type_error(at, format!("'{}' object is not subscriptable", other.type_name())),
        }
    }

    fn call(&mut self, at: u32, name: &str, arguments: &[Expr]) -> Outcome<Value> {
        if let Some(value) = self.lookup(name) {
            return type_error(at, format!("'{}' object is not callable", value.type_name()));
        }
        match name {
            "locals" if !self.locals.is_empty() => unsupported(at, "`locals()` inside a comprehension"),
            "locals" | "globals" if arguments.is_empty() => Ok(Value::map(self.data.clone())),
            _ => builtins::call(self, at, name, arguments),
        }
    }

    fn method(&mut self, at: u32, object: &Expr, name: &str, arguments: &[Expr]) -> Outcome<Value> {
        if methods::is_view(name) {
            let object = self.value(object)?;
            methods::check_view(at, &object, name, arguments)?;
            return unsupported(
                at,
                format!("`{name}()` here (only after `in`, or as an argument of a function)"),
            );
        }
        let receiver = self.value(object)?;
        methods::call(self, at, &receiver, name, arguments)
    }

    /// Shows `visit` the items of what `expression` is, without building more than it must, until it has seen enough.
    pub(super) fn each(&mut self, expression: &Expr, visit: Visit<'_, 'a>) -> Outcome<()> {
        let at = expression.at;
        match &expression.kind {
            Kind::Comprehension(it) => {
                if let Product::Generator(item) = &it.product {
                    let body = &mut |machine: &mut Self| {
                        let value = machine.value(item)?;
                        visit(machine, value)
                    };
                    return self.run(&it.clauses, body).map(|_| ());
                }
            }
            Kind::Method(object, name, arguments) if methods::is_view(name) => {
                let object = self.value(object)?;
                let view = methods::check_view(at, &object, name, arguments)?;
                return self.each_in_view(at, name, view, visit);
            }
            _ => {}
        }
        let value = self.value(expression)?;
        self.each_of(at, &value, visit)
    }

    fn each_in_view(&mut self, at: u32, name: &str, map: &Map, visit: Visit<'_, 'a>) -> Outcome<()> {
        for (key, value) in map {
            self.step(at)?;
            let item = match name {
                "keys" => key.clone(),
                "values" => value.clone(),
                _ => Value::Tuple(vec![key.clone(), value.clone()].into()),
            };
            if visit(self, item)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn each_of(&mut self, at: u32, value: &Value, visit: Visit<'_, 'a>) -> Outcome<()> {
        let mut show = |machine: &mut Self, item: Value| {
            machine.step(at)?;
            visit(machine, item)
        };
        match value {
            Value::Str(text) => {
                for character in text.chars() {
                    if show(self, Value::from(character.to_string()))?.is_break() {
                        break;
                    }
                }
            }
            Value::List(items) | Value::Tuple(items) => {
                for item in items.iter() {
                    if show(self, item.clone())?.is_break() {
                        break;
                    }
                }
            }
            Value::Map(map) | Value::Set(map) => {
                for key in map.keys() {
                    if show(self, key.clone())?.is_break() {
                        break;
                    }
                }
            }
            other => return type_error(at, format!("'{}' object is not iterable", other.type_name())),
        }
        Ok(())
    }

    /// All items of what `expression` is.
    pub(super) fn collect(&mut self, expression: &Expr) -> Outcome<Vec<Value>> {
        let mut items = Vec::new();
        self.each(expression, &mut |machine, item| {
            machine.reserve(expression.at, size_of::<Value>())?;
            items.push(item);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(items)
    }

    fn comprehension(&mut self, at: u32, it: &Comprehension) -> Outcome<Value> {
        let mut items = Vec::new();
        let mut map = Map::new();
        self.run(&it.clauses, &mut |machine| {
            machine.reserve(at, 2 * size_of::<Value>())?;
            match &it.product {
                Product::List(item) => items.push(machine.value(item)?),
                Product::Set(key) => {
                    let key = machine.value(key)?;
                    check_hashable(at, &key)?;
                    map.insert(key, Value::Null);
                }
                Product::Dict(key, value) => {
                    let (key, value) = (machine.value(key)?, machine.value(value)?);
                    check_hashable(at, &key)?;
                    map.insert(key, value);
                }
                Product::Generator(_) => {
                    return unsupported(at, "a generator that is not an argument or after `in`");
                }
            }
            Ok(ControlFlow::Continue(()))
        })
        .map(|_| ())?;
        Ok(match it.product {
            Product::Set(_) => Value::Set(map.into()),
            Product::Dict(..) => Value::map(map),
            Product::List(_) | Product::Generator(_) => Value::list(items),
        })
    }

    /// Runs `body` for every combination of the clauses' items; its variables are gone afterwards.
    fn run(
        &mut self,
        clauses: &[Clause],
        body: &mut dyn FnMut(&mut Self) -> Outcome<ControlFlow<()>>,
    ) -> Outcome<ControlFlow<()>> {
        let Some((clause, inner)) = clauses.split_first() else { return body(self) };
        let mut end = ControlFlow::Continue(());
        self.each(&clause.iterable, &mut |machine, item| {
            let outer = machine.locals.len();
            machine.bind(clause.iterable.at, &clause.target, item)?;
            let mut wanted = true;
            for condition in &clause.conditions {
                wanted = wanted && machine.value(condition)?.is_true();
            }
            if wanted {
                end = machine.run(inner, body)?;
            }
            machine.locals.truncate(outer);
            Ok(end)
        })?;
        Ok(end)
    }

    fn bind(&mut self, at: u32, target: &Target, value: Value) -> Outcome<()> {
        let targets = match target {
            Target::Name(name) => {
                self.locals.push((name.clone(), value));
                return Ok(());
            }
            Target::Unpack(targets) => targets,
        };
        let mut items = Vec::new();
        self.each_of(at, &value, &mut |_, item| {
            items.push(item);
            Ok(ControlFlow::Continue(()))
        })?;
        match items.len().cmp(&targets.len()) {
            Ordering::Less => {
                let (wanted, got) = (targets.len(), items.len());
                raised(
                    at,
                    "ValueError",
                    format!("not enough values to unpack (expected {wanted}, got {got})"),
                )
            }
            Ordering::Greater => {
                raised(at, "ValueError", format!("too many values to unpack (expected {})", targets.len()))
            }
            Ordering::Equal => {
                targets.iter().zip(items).try_for_each(|(target, item)| self.bind(at, target, item))
            }
        }
    }

    fn binary(&mut self, at: u32, operator: Binary, left: &Value, right: &Value) -> Outcome<Value> {
        if let (Value::Str(_), Binary::Remainder) = (left, operator) {
            return unsupported(at, "formatting with `%`");
        }
        match (operator, left, right) {
            (Binary::Add, Value::Str(a), Value::Str(b)) => {
                self.reserve(at, a.len() + b.len())?;
                Ok(Value::from(format!("{a}{b}")))
            }
            (Binary::Add, Value::List(a), Value::List(b)) => {
                self.reserve(at, (a.len() + b.len()) * size_of::<Value>())?;
                Ok(Value::list(a.iter().chain(b.iter()).cloned().collect()))
            }
            (Binary::Add, Value::Tuple(a), Value::Tuple(b)) => {
                self.reserve(at, (a.len() + b.len()) * size_of::<Value>())?;
                Ok(Value::Tuple(a.iter().chain(b.iter()).cloned().collect::<Vec<_>>().into()))
            }
            (Binary::Multiply, Value::Str(_) | Value::List(_) | Value::Tuple(_), count)
            | (Binary::Multiply, count, Value::Str(_) | Value::List(_) | Value::Tuple(_)) => {
                let sequence = if std::ptr::eq(count, right) { left } else { right };
                self.repeat(at, sequence, count)
            }
            (_, Value::Set(a), Value::Set(b)) => set_operation(at, operator, a, b),
            (Binary::BitOr, Value::Map(a), Value::Map(b)) => {
                self.reserve(at, (a.len() + b.len()) * 2 * size_of::<Value>())?;
                let mut merged = Map::clone(a);
                for (key, value) in b.iter() {
                    merged.insert(key.clone(), value.clone());
                }
                Ok(Value::map(merged))
            }
            _ => arithmetic::binary(at, operator, left, right),
        }
    }

    fn repeat(&mut self, at: u32, sequence: &Value, count: &Value) -> Outcome<Value> {
        let Some(count) = count.to_integer() else {
            let class = count.type_name();
            return type_error(at, format!("can't multiply sequence by non-int of type '{class}'"));
        };
        let count = usize::try_from(count.max(BigInt::ZERO)).unwrap_or(usize::MAX);
        let size = match sequence {
            Value::Str(text) => text.len(),
            Value::List(items) | Value::Tuple(items) => items.len() * size_of::<Value>(),
            _ => 0,
        };
        if size == 0 {
            return Ok(sequence.clone());
        }
        self.reserve(at, size.saturating_mul(count))?;
        let repeated = |items: &[Value]| -> Vec<Value> {
            items.iter().cycle().take(items.len() * count).cloned().collect()
        };
        Ok(match sequence {
            Value::Str(text) => Value::from(text.repeat(count)),
            Value::Tuple(items) => Value::Tuple(repeated(items).into()),
            other => Value::list(repeated(other.as_list().unwrap_or_default())),
        })
    }
}

/// Whether python makes something of it whose items come one by one and are never all there.
pub(super) fn is_lazy(expression: &Expr) -> bool {
    match &expression.kind {
        Kind::Comprehension(it) => matches!(it.product, Product::Generator(_)),
        Kind::Method(_, name, _) => methods::is_view(name),
        _ => false,
    }
}

pub(super) fn check_hashable(at: u32, key: &Value) -> Outcome<()> {
    if key.is_hashable() {
        return Ok(());
    }
    type_error(at, format!("unhashable type: '{}'", key.type_name()))
}

pub(super) fn set_of(at: u32, items: Vec<Value>) -> Outcome<Value> {
    let mut members = Map::new();
    for item in items {
        check_hashable(at, &item)?;
        members.insert(item, Value::Null);
    }
    Ok(Value::Set(members.into()))
}

fn unary(at: u32, operator: Unary, operand: &Value) -> Outcome<Value> {
    let symbol = match operator {
        Unary::Minus => "-",
        Unary::Plus => "+",
        Unary::Invert => "~",
    };
    match (operator, operand) {
        (Unary::Minus, Value::Float(number)) => Ok(Value::Float(-number)),
        (Unary::Plus, Value::Float(number)) => Ok(Value::Float(*number)),
        _ => match operand.to_integer() {
            Some(number) => Ok(Value::integer(match operator {
                Unary::Minus => -number,
                Unary::Plus => number,
                Unary::Invert => -number - 1,
            })),
            None => type_error(at, format!("bad operand type for unary {symbol}: '{}'", operand.type_name())),
        },
    }
}

fn compare(at: u32, operator: Comparison, left: &Value, right: &Value) -> Outcome<bool> {
    let ordered = match operator {
        Comparison::Equal => return Ok(left == right),
        Comparison::NotEqual => return Ok(left != right),
        Comparison::Is => return identical(at, left, right),
        Comparison::IsNot => return identical(at, left, right).map(|same| !same),
        // `in` has been dealt with.
        Comparison::In | Comparison::NotIn => return Ok(false),
        Comparison::Less => ("<", [Ordering::Less].as_slice()),
        Comparison::LessEqual => ("<=", [Ordering::Less, Ordering::Equal].as_slice()),
        Comparison::Greater => (">", [Ordering::Greater].as_slice()),
        Comparison::GreaterEqual => (">=", [Ordering::Greater, Ordering::Equal].as_slice()),
    };
    let (symbol, wanted) = ordered;
    if let (Value::Set(a), Value::Set(b)) = (left, right) {
        return Ok(order_of_sets(a, b).is_some_and(|order| wanted.contains(&order)));
    }
    match left.order(right) {
        Some(order) => Ok(wanted.contains(&order)),
        None if is_nan(left) && right.to_float().is_some() || is_nan(right) && left.to_float().is_some() => {
            Ok(false)
        }
        None => {
            let (a, b) = (left.type_name(), right.type_name());
            type_error(at, format!("'{symbol}' not supported between instances of '{a}' and '{b}'"))
        }
    }
}

fn is_nan(value: &Value) -> bool {
    matches!(value, Value::Float(number) if number.is_nan())
}

/// By inclusion.
fn order_of_sets(a: &Map, b: &Map) -> Option<Ordering> {
    let within = |a: &Map, b: &Map| a.keys().all(|key| b.get_value(key).is_some());
    match (within(a, b), within(b, a)) {
        (true, true) => Some(Ordering::Equal),
        (true, false) => Some(Ordering::Less),
        (false, true) => Some(Ordering::Greater),
        (false, false) => None,
    }
}

/// Of the singletons; whether two equal texts or numbers are one object is an accident nobody may rely on.
fn identical(at: u32, left: &Value, right: &Value) -> Outcome<bool> {
    match (left, right) {
        (Value::Null, Value::Null) => Ok(true),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Null | Value::Bool(_), _) | (_, Value::Null | Value::Bool(_)) => Ok(false),
        _ => unsupported(at, "`is` between anything but None, True and False"),
    }
}

fn set_operation(at: u32, operator: Binary, a: &Map, b: &Map) -> Outcome<Value> {
    let only = |a: &Map, b: &Map, shared: bool| -> Vec<Value> {
        a.keys().filter(|key| b.get_value(key).is_some() == shared).cloned().collect()
    };
    let members = match operator {
        Binary::BitAnd => only(a, b, true),
        Binary::Subtract => only(a, b, false),
        Binary::BitOr => a.keys().chain(b.keys()).cloned().collect(),
        Binary::BitXor => only(a, b, false).into_iter().chain(only(b, a, false)).collect(),
        _ => {
            let symbol = operator.symbol();
            return type_error(at, format!("unsupported operand type(s) for {symbol}: 'set' and 'set'"));
        }
    };
    set_of(at, members)
}

fn subscript(at: u32, object: &Value, index: &Value) -> Outcome<Value> {
    let position = |length: usize, class: &str| {
        let Some(number) = index.to_integer() else {
            let found = index.type_name();
            return type_error(at, format!("{class} indices must be integers or slices, not {found}"));
        };
        let number = if number < BigInt::ZERO { number + length } else { number };
        match usize::try_from(number) {
            Ok(position) if position < length => Ok(position),
            _ => raised(at, "IndexError", format!("{class} index out of range")),
        }
    };
    match object {
        Value::Map(map) => {
            check_hashable(at, index)?;
            map.get_value(index).cloned().map_or_else(|| raised(at, "KeyError", index.repr()), Ok)
        }
        Value::List(items) => Ok(items[position(items.len(), "list")?].clone()),
        Value::Tuple(items) => Ok(items[position(items.len(), "tuple")?].clone()),
        Value::Str(text) => {
            let position = position(text.chars().count(), "string")?;
            Ok(Value::from(text.chars().skip(position).take(1).collect::<String>()))
        }
        other => type_error(at, format!("'{}' object is not subscriptable", other.type_name())),
    }
}

fn bound(at: u32, value: Option<Value>) -> Outcome<Option<BigInt>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.to_integer() {
            Some(number) => Ok(Some(number)),
            None => type_error(at, "slice indices must be integers or None or have an __index__ method"),
        },
    }
}

type Bounds = (Option<BigInt>, Option<BigInt>, Option<BigInt>);

fn sliced<T: Clone>(at: u32, items: &[T], (start, stop, step): Bounds) -> Outcome<Vec<T>> {
    let length = items.len() as i64;
    let step = step.map_or(1, |step| {
        i64::try_from(step.clone()).unwrap_or(if step < BigInt::ZERO { -length - 1 } else { length + 1 })
    });
    if step == 0 {
        return raised(at, "ValueError", "slice step cannot be zero");
    }
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: Option<BigInt>, default: i64| {
        bound.map_or(default, |bound| {
            let bound = if bound < BigInt::ZERO { bound + length } else { bound };
            i64::try_from(bound.clamp(lowest.into(), highest.into())).unwrap_or(default)
        })
    };
    let (first, last) = if step > 0 { (lowest, highest) } else { (highest, lowest) };
    let (mut position, end) = (clamp(start, first), clamp(stop, last));
    let mut result = Vec::new();
    while (step > 0 && position < end) || (step < 0 && position > end) {
        result.push(items[position as usize].clone());
        position = position.saturating_add(step);
    }
    Ok(result)
}
