mod common;
use atex_plugin_api::model::Transport;
use common::*;

#[test]
fn first() {
    let tree = tempfile::tempdir().unwrap();
    std::fs::write(tree.path().join("x.sh"), "echo x").unwrap();
    let mut machine = Machine::up(Transport::Local(Default::default()), site(tree.path()));
    let t = std::time::Instant::now();
    let run = machine.run(test("env | sort; bash x.sh; pwd; echo result 18 >&$ATEX_TEST_CONTROL; echo '{\"status\": \"warn\"}' >&$ATEX_TEST_CONTROL; echo noop >&$ATEX_TEST_CONTROL"));
    println!("{run:?} {:?}", t.elapsed());
    println!("{}", artifact(&run, "output.txt"));
    println!("{:?}", machine.run(test("tmt-report-result /x FAIL; exit 3")));
    println!("{:?}", machine.hand_back());
}
