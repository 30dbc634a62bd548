//! Policy `order`: tests with a lower `order` in their metadata run first, as tmt does; 50 if they have none.
//!
//! ```yaml
//! policies:
//!   - {use: order}
//! ```

use atex_plugin_api::prelude::*;

/// What a test without the key counts as.
const DEFAULT_ORDER: i64 = 50;

/// The policy.
#[derive(Debug, Default)]
pub struct Order {
    orders: Vec<i64>,
}

impl Plugin for Order {
    type Config = NoConfig;
    const ABOUT: &'static str = "tests with a lower `order` in their metadata first";

    fn new(_config: NoConfig, _host: Host) -> Result<Self> {
        Ok(Self::default())
    }
}

impl Policy for Order {
    fn wants(&self) -> Wants {
        Wants::new().attrs(["order"]).rank()
    }

    fn register(&mut self, _run: &RunInfo, tests: &[TestInfo<'_>]) -> Result<()> {
        for test in tests {
            self.orders.push(match test.attrs.first() {
                None | Some(&"") => DEFAULT_ORDER,
                Some(text) => text.trim().parse().map_err(|_| {
                    Error::config(format!("test {}: `order: {text}` is not a whole number", test.name))
                })?,
            });
        }
        Ok(())
    }

    fn rank(&self, _kind: u32, tests: &[Queued], out: &mut Vec<Rank>) -> Result<()> {
        out.extend(tests.iter().map(|queued| {
            let order = self.orders.get(queued.test as usize).copied().unwrap_or(DEFAULT_ORDER);
            Rank { class: 0, score: order.saturating_neg() }
        }));
        Ok(())
    }
}

atex_plugin_api::export_plugin!(policy "order" => Order);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    fn order() -> impl Policy {
        testkit::policy::<Order>("{}", &FakeHost::new().handle()).unwrap()
    }

    #[test]
    fn lower_numbers_rank_higher() {
        let mut policy = order();
        let attrs = [["10"], [""], ["90"]];
        let infos: Vec<_> = attrs.iter().zip(0..).map(|(attrs, id)| TestInfo::new(id, "/t", attrs)).collect();
        policy.register(&RunInfo::new(0, 3, 1), &infos).unwrap();
        let mut ranks = vec![];
        policy.rank(0, &[Queued::first(0), Queued::first(1), Queued::first(2)], &mut ranks).unwrap();
        assert_eq!(ranks.iter().map(|rank| rank.score).collect::<Vec<_>>(), [-10, -50, -90]);
        let wrong = [TestInfo::new(3, "/t", &["soon"])];
        assert!(policy.register(&RunInfo::new(0, 4, 1), &wrong).is_err());
    }

    #[test]
    fn it_keeps_the_rules() {
        assert_eq!(testkit::check_policy(order, &["/a", "/b"], |_, _| "3".to_owned(), |_| String::new()), []);
    }
}
