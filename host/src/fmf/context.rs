//! The context of a run and the rules that ask about it: `distro == fedora-40 and arch != s390x`.
//!
//! A context gives each *dimension* (`distro`, `arch`) one or several values. A rule is a disjunction of conjunctions of
//! expressions; there are no parentheses and no quotes. Three outcomes: a rule about a dimension that the context does
//! not have, or about versions that cannot be compared, is *undecided*.
//!
//! The grammar is that of the reference implementation, whose expressions are matched at their start only; what it
//! accepts by accident (`trueish == x` is true) is accepted here, because trees in the field are what they are.

mod rule;
mod version;

use std::collections::BTreeMap;

use thiserror::Error;

pub use self::rule::Rule;
use self::rule::{Expression, Operator};
use self::version::Version;
pub(super) use self::version::integer;
use super::regex;

/// Why a rule or a context cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error("an expression is missing")]
    Empty,

    #[error("{0:?} is not an expression; they look like `distro == fedora-40`, `arch is defined` or `true`")]
    Expression(String),

    #[error("a context is written like `distro=fedora-40 and arch=x86_64`")]
    Context,

    #[error("{0}")]
    Regex(#[from] regex::Error),
}

impl Error {
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Empty | Self::Expression(_) => "InvalidRule",
            Self::Context => "InvalidContext",
            Self::Regex(_) => "error",
        }
    }
}

/// What a rule says about a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    True,
    False,
    Undecided,
}

impl From<bool> for Outcome {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Dimensions and their values.
#[derive(Clone, Debug, Default)]
pub struct Context {
    dimensions: BTreeMap<String, Vec<Version>>,
    ignore_case: bool,
}

impl Context {
    pub fn new() -> Self {
        Self::default()
    }

    /// The context that a text like `distro=fedora-40 and arch=x86_64,s390x` describes.
    pub fn parse(definition: &str) -> Result<Self, Error> {
        let rule = Rule::parse(definition)?;
        let [group] = rule.groups() else { return Err(Error::Context) };
        let mut context = Self::new();
        for expression in group {
            let Expression::Compare { dimension, operator: Operator::Equal, values } = expression else {
                return Err(Error::Context);
            };
            context.dimensions.insert(dimension.clone(), values.clone());
        }
        Ok(context)
    }

    /// Adds one value to a dimension.
    pub fn add(&mut self, dimension: impl Into<String>, value: &str) {
        self.dimensions.entry(dimension.into()).or_default().push(Version::new(value));
    }

    /// Compares values without regard to case; patterns stay as they are.
    pub fn ignore_case(&mut self, ignore: bool) {
        self.ignore_case = ignore;
    }

    /// The values of a dimension, as they were given.
    pub fn values(&self, dimension: &str) -> impl Iterator<Item = &str> {
        self.dimensions.get(dimension).into_iter().flatten().map(Version::raw)
    }

    /// The dimensions with their values, by name.
    pub fn dimensions(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.dimensions
            .iter()
            .map(|(name, values)| (name.as_str(), values.iter().map(Version::raw).collect()))
    }

    /// What `rule` says here. Only a bad pattern of the operators `~` and `!~` is an error.
    pub fn decide(&self, rule: &Rule) -> Result<Outcome, Error> {
        let mut outcome = Outcome::False;
        for group in rule.groups() {
            match self.decide_group(group)? {
                Outcome::True => return Ok(Outcome::True),
                Outcome::Undecided => outcome = Outcome::Undecided,
                Outcome::False => {}
            }
        }
        Ok(outcome)
    }

    fn decide_group(&self, group: &[Expression]) -> Result<Outcome, Error> {
        let mut outcome = Outcome::True;
        for expression in group {
            match self.decide_expression(expression)? {
                Outcome::False => return Ok(Outcome::False),
                Outcome::Undecided => outcome = Outcome::Undecided,
                Outcome::True => {}
            }
        }
        Ok(outcome)
    }

    fn decide_expression(&self, expression: &Expression) -> Result<Outcome, Error> {
        match expression {
            Expression::Constant(value) => Ok((*value).into()),
            Expression::Defined(dimension) => Ok(self.dimensions.contains_key(dimension).into()),
            Expression::NotDefined(dimension) => Ok((!self.dimensions.contains_key(dimension)).into()),
            Expression::Compare { dimension, operator, values } => {
                let Some(ours) = self.dimensions.get(dimension) else { return Ok(Outcome::Undecided) };
                self.decide_pairs(*operator, ours, values)
            }
        }
    }

    /// True if any pair of values is; undecided only if every pair is.
    fn decide_pairs(
        &self,
        operator: Operator,
        ours: &[Version],
        theirs: &[Version],
    ) -> Result<Outcome, Error> {
        let mut outcome = Outcome::Undecided;
        for our in ours {
            for their in theirs {
                match operator.decide(our, their, self.ignore_case)? {
                    Outcome::True => return Ok(Outcome::True),
                    Outcome::False => outcome = Outcome::False,
                    Outcome::Undecided => {}
                }
            }
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(context: &str, rule: &str) -> Outcome {
        Context::parse(context).unwrap().decide(&Rule::parse(rule).unwrap()).unwrap()
    }

    #[test]
    fn undecided_is_neither_true_nor_false() {
        use Outcome::{False, True, Undecided};
        for (rule, outcome) in [
            ("a == 1", True),
            ("x == 1", Undecided),
            ("a == 1 and x == 1", Undecided),
            ("a == 2 and x == 1", False),
            ("x == 1 and a == 2", False),
            ("a == 1 or x == 1", True),
            ("x == 1 or a == 1", True),
            ("a == 2 or x == 1", Undecided),
            ("x is defined or a is not defined", False),
        ] {
            assert_eq!(decide("a = 1", rule), outcome, "{rule}");
        }
    }

    #[test]
    fn any_pair_of_values_suffices() {
        assert_eq!(decide("arch = x86_64, s390x", "arch != x86_64"), Outcome::True);
        assert_eq!(decide("arch = x86_64", "arch != x86_64, s390x"), Outcome::True);
        assert_eq!(decide("distro = fedora-40, rhel-9", "distro < rhel-10"), Outcome::True);
    }

    #[test]
    fn values_given_come_back() {
        let mut context = Context::new();
        context.add("distro", "fedora-40");
        context.add("distro", "rhel-9");
        assert_eq!(context.values("distro").collect::<Vec<_>>(), ["fedora-40", "rhel-9"]);
        assert_eq!(context.values("arch").count(), 0);
    }

    #[test]
    fn errors_show_the_expression() {
        assert_eq!(Rule::parse("a == 1 and b ="), Err(Error::Expression("b ==".to_owned())));
        assert_eq!(Rule::parse("a == 1 or "), Err(Error::Empty));
        assert!(matches!(Context::parse("a == 1 or b == 2"), Err(Error::Context)));
        let rule = Rule::parse("a ~ (").unwrap();
        assert!(matches!(Context::parse("a=1").unwrap().decide(&rule), Err(Error::Regex(_))));
        assert_eq!(Context::parse("b=1").unwrap().decide(&rule), Ok(Outcome::Undecided));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_rule_or_an_error(rule in "[a-c \t\n=<>!~,.:-]{0,12}(is |defined| and | or |true)?[a-c =<>!~,-]{0,8}") {
            if let Ok(rule) = Rule::parse(&rule) {
                let mut context = Context::new();
                context.add("a", "b-1.2");
                context.add("b", "");
                // Only patterns can be bad.
                proptest::prop_assert!(matches!(context.decide(&rule), Ok(_) | Err(Error::Regex(_))));
            }
        }
    }
}
