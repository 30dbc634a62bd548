//! The functions that an expression may call.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::super::value::{Map, Value};
use super::arithmetic::{binary, from_digits, to_float, to_int};
use super::ast::{Binary, Display, Expr, Kind};
use super::eval::{Machine, check_hashable, set_of};
use super::{Outcome, raised, type_error, unsupported};

/// Functions and types of python's that are there without an import. A name among them that is not supported is an
/// error; any other unknown name is just missing.
const BUILTINS: [&str; 69] = [
    "__import__",
    "abs",
    "aiter",
    "all",
    "anext",
    "any",
    "ascii",
    "bin",
    "bool",
    "breakpoint",
    "bytearray",
    "bytes",
    "callable",
    "chr",
    "classmethod",
    "compile",
    "complex",
    "delattr",
    "dict",
    "dir",
    "divmod",
    "enumerate",
    "eval",
    "exec",
    "filter",
    "float",
    "format",
    "frozenset",
    "getattr",
    "globals",
    "hasattr",
    "hash",
    "help",
    "hex",
    "id",
    "input",
    "int",
    "isinstance",
    "issubclass",
    "iter",
    "len",
    "list",
    "locals",
    "map",
    "max",
    "memoryview",
    "min",
    "next",
    "object",
    "oct",
    "open",
    "ord",
    "pow",
    "print",
    "property",
    "range",
    "repr",
    "reversed",
    "round",
    "set",
    "setattr",
    "slice",
    "sorted",
    "staticmethod",
    "str",
    "sum",
    "super",
    "tuple",
    "type",
];

pub(super) fn is_builtin(name: &str) -> bool {
    BUILTINS.contains(&name) || matches!(name, "vars" | "zip")
}

pub(super) fn call(machine: &mut Machine<'_>, at: u32, name: &str, arguments: &[Expr]) -> Outcome<Value> {
    match (name, arguments) {
        ("any", [items]) => search(machine, items, true),
        ("all", [items]) => search(machine, items, false).map(|found| Value::Bool(!found.is_true())),
        ("len", [object]) => length(machine, at, object),
        ("isinstance", [object, classes]) => is_instance(machine, object, classes),
        ("bool", []) => Ok(Value::Bool(false)),
        ("bool", [object]) => Ok(Value::Bool(machine.value(object)?.is_true())),
        ("str", []) => Ok(Value::from("")),
        ("str", [object]) => {
            let text = machine.value(object)?.to_string();
            machine.text(at, text)
        }
        ("repr", [object]) => {
            let text = machine.value(object)?.repr();
            machine.text(at, text)
        }
        ("int", []) => Ok(Value::Int(0)),
        ("int", [object]) => to_int(at, &machine.value(object)?),
        ("int", [text, radix]) => int_of_radix(machine, at, text, radix),
        ("float", []) => Ok(Value::Float(0.0)),
        ("float", [object]) => to_float(at, &machine.value(object)?),
        ("abs", [object]) => absolute(at, &machine.value(object)?),
        ("list", []) => Ok(Value::list(Vec::new())),
        ("list", [items]) => machine.collect(items).map(Value::list),
        ("tuple", []) => Ok(Value::Tuple(Vec::new().into())),
        ("tuple", [items]) => Ok(Value::Tuple(machine.collect(items)?.into())),
        ("set", []) => set_of(at, Vec::new()),
        ("set", [items]) => set_of(at, machine.collect(items)?),
        ("dict", []) => Ok(Value::map(Map::new())),
        ("dict", [object]) => dict(machine, at, object),
        ("sorted", [items]) => {
            let items = machine.collect(items)?;
            sorted(at, items).map(Value::list)
        }
        ("sum", [items]) => sum(machine, at, items),
        ("min", [..]) if !arguments.is_empty() => extreme(machine, at, "min", arguments, Ordering::Less),
        ("max", [..]) if !arguments.is_empty() => extreme(machine, at, "max", arguments, Ordering::Greater),
        _ => refuse(at, name, arguments.len()),
    }
}

fn refuse(at: u32, name: &str, arguments: usize) -> Outcome<Value> {
    const KNOWN: [&str; 18] = [
        "any",
        "all",
        "len",
        "isinstance",
        "bool",
        "str",
        "repr",
        "int",
        "float",
        "abs",
        "list",
        "tuple",
        "set",
        "dict",
        "sorted",
        "sum",
        "min",
        "max",
    ];
    if KNOWN.contains(&name) || matches!(name, "locals" | "globals") {
        // What python makes of another number of arguments differs from function to function.
        return unsupported(at, format!("`{name}()` with {arguments} arguments"));
    }
    if is_builtin(name) {
        return unsupported(at, format!("the function `{name}()`"));
    }
    raised(at, "NameError", format!("name '{name}' is not defined"))
}

/// Whether an item has the truth `wanted`; looks no further than it must.
fn search(machine: &mut Machine<'_>, items: &Expr, wanted: bool) -> Outcome<Value> {
    let mut found = false;
    machine.each(items, &mut |_, item| {
        found = item.is_true() == wanted;
        Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(Value::Bool(found))
}

fn length(machine: &mut Machine<'_>, at: u32, object: &Expr) -> Outcome<Value> {
    if let Kind::Method(receiver, name, arguments) = &object.kind
        && super::methods::is_view(name)
    {
        let receiver = machine.value(receiver)?;
        let view = super::methods::check_view(object.at, &receiver, name, arguments)?;
        return Ok(Value::Int(view.len() as i64));
    }
    if let Kind::Comprehension(it) = &object.kind
        && matches!(it.product, super::ast::Product::Generator(_))
    {
        return type_error(at, "object of type 'generator' has no len()");
    }
    let value = machine.value(object)?;
    let length = match &value {
        Value::Str(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) | Value::Tuple(items) => items.len(),
        Value::Map(map) | Value::Set(map) => map.len(),
        other => return type_error(at, format!("object of type '{}' has no len()", other.type_name())),
    };
    Ok(Value::Int(length as i64))
}

/// The classes are taken by their names, alone or in a tuple.
fn is_instance(machine: &mut Machine<'_>, object: &Expr, classes: &Expr) -> Outcome<Value> {
    let object = machine.value(object)?;
    let names = match &classes.kind {
        Kind::Display(Display::Tuple, names) => names.as_slice(),
        _ => std::slice::from_ref(classes),
    };
    // All names first, as python does: a missing one counts also behind one that fits.
    let mut any = false;
    for class in names {
        let Kind::Name(name) = &class.kind else {
            return unsupported(class.at, "a class that is no plain name");
        };
        if machine.name_is_taken(name) {
            return type_error(class.at, "isinstance() arg 2 must be a type, a tuple of types, or a union");
        }
        let found = match &**name {
            "str" => matches!(object, Value::Str(_)),
            "bool" => matches!(object, Value::Bool(_)),
            "int" => matches!(object, Value::Int(_) | Value::BigInt(_) | Value::Bool(_)),
            "float" => matches!(object, Value::Float(_)),
            "list" => matches!(object, Value::List(_)),
            "tuple" => matches!(object, Value::Tuple(_)),
            "dict" => matches!(object, Value::Map(_)),
            "set" => matches!(object, Value::Set(_)),
            "bytes" => matches!(object, Value::Bytes(_)),
            "object" => true,
            other if is_builtin(other) => return unsupported(class.at, format!("the class `{other}`")),
            other => return raised(class.at, "NameError", format!("name '{other}' is not defined")),
        };
        any |= found;
    }
    Ok(Value::Bool(any))
}

fn int_of_radix(machine: &mut Machine<'_>, at: u32, text: &Expr, radix: &Expr) -> Outcome<Value> {
    let (text, radix) = (machine.value(text)?, machine.value(radix)?);
    let Value::Str(text) = &text else {
        return type_error(at, "int() can't convert non-string with explicit base");
    };
    match radix.as_i64() {
        Some(radix @ 2..=36) => from_digits(at, text, radix as u32),
        _ => unsupported(at, format!("`int()` with base {}", radix.repr())),
    }
}

fn absolute(at: u32, value: &Value) -> Outcome<Value> {
    match value {
        Value::Float(number) => Ok(Value::Float(number.abs())),
        other => match other.to_integer() {
            Some(number) => Ok(Value::integer(number.magnitude().clone().into())),
            None => type_error(at, format!("bad operand type for abs(): '{}'", other.type_name())),
        },
    }
}

fn dict(machine: &mut Machine<'_>, at: u32, object: &Expr) -> Outcome<Value> {
    let mut map = Map::new();
    let items = if super::eval::is_lazy(object) {
        machine.collect(object)?
    } else {
        match machine.value(object)? {
            Value::Map(map) => return Ok(Value::Map(map)),
            Value::List(items) | Value::Tuple(items) => items.to_vec(),
            other => return unsupported(at, format!("`dict()` of '{}'", other.type_name())),
        }
    };
    for item in items {
        let (Value::List(pair) | Value::Tuple(pair)) = &item else {
            return unsupported(at, "`dict()` of anything but pairs");
        };
        let [key, value] = pair.as_slice() else {
            return raised(at, "ValueError", "dictionary update sequence element has not length 2");
        };
        check_hashable(at, key)?;
        map.insert(key.clone(), value.clone());
    }
    Ok(Value::map(map))
}

/// A stable sort; the first pair that cannot be compared is an error.
fn sorted(at: u32, mut items: Vec<Value>) -> Outcome<Vec<Value>> {
    let mut wrong = None;
    items.sort_by(|a, b| {
        a.order(b).unwrap_or_else(|| {
            wrong.get_or_insert_with(|| (b.type_name(), a.type_name()));
            Ordering::Equal
        })
    });
    match wrong {
        None => Ok(items),
        Some(("float", "float" | "int") | ("int", "float")) => unsupported(at, "sorting a NaN"),
        Some(("set", "set")) => unsupported(at, "sorting sets"),
        Some((a, b)) => type_error(at, format!("'<' not supported between instances of '{a}' and '{b}'")),
    }
}

fn sum(machine: &mut Machine<'_>, at: u32, items: &Expr) -> Outcome<Value> {
    let mut total = Value::Int(0);
    machine.each(items, &mut |_, item| {
        total = binary(at, Binary::Add, &total, &item)?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(total)
}

fn extreme(
    machine: &mut Machine<'_>,
    at: u32,
    name: &str,
    arguments: &[Expr],
    wanted: Ordering,
) -> Outcome<Value> {
    let mut items = Vec::new();
    match arguments {
        [one] => items = machine.collect(one)?,
        several => {
            for argument in several {
                items.push(machine.value(argument)?);
            }
        }
    }
    let mut items = items.into_iter();
    let Some(mut best) = items.next() else {
        return raised(at, "ValueError", format!("{name}() arg is an empty sequence"));
    };
    for item in items {
        match item.order(&best) {
            Some(order) if order == wanted => best = item,
            Some(_) => {}
            None => {
                let symbol = if wanted == Ordering::Less { '<' } else { '>' };
                let (a, b) = (item.type_name(), best.type_name());
                return type_error(
                    at,
                    format!("'{symbol}' not supported between instances of '{a}' and '{b}'"),
                );
            }
        }
    }
    Ok(best)
}
