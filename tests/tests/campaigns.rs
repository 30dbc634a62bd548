//! Short versions of the campaigns (`cargo xtask campaign`): hosts are killed at random moments, and nothing is left or lost.
//!
//! With podman and sshd only where all tests are asked for. There, trials whose reservation was cut off are not followed up: that
//! would take as long as the plugins' settle times.

use atex_tests::campaign::{Cloud, Extent, Podman, Ssh, Weather, crash, resume};

const SEED: u64 = 5;

fn all() -> bool {
    std::env::var_os("ATEX_TEST_ALL").is_some_and(|all| all == "1")
}

fn extent(trials: usize, parallel: usize) -> Extent {
    Extent { trials, seed: SEED, parallel, follow_up: true }
}

#[test]
fn a_cloud_is_left_empty() {
    let cloud = Cloud::open(Weather::Breezy, SEED).unwrap();
    let figures = crash(&cloud, extent(if all() { 12 } else { 4 }, 2)).unwrap();
    assert!(figures.wrong.is_empty(), "{figures}");
    assert!(cloud.made() > 0);
}

#[test]
fn runs_are_resumed() {
    let cloud = Cloud::open(Weather::Breezy, SEED).unwrap();
    let resumed = resume(&cloud, extent(if all() { 4 } else { 2 }, 2)).unwrap();
    assert!(resumed.wrong.is_empty(), "{resumed}");
}

#[test]
fn containers_are_removed() {
    if !all() {
        return;
    }
    let figures = crash(&Podman::start().unwrap(), Extent { follow_up: false, ..extent(2, 1) }).unwrap();
    assert!(figures.wrong.is_empty(), "{figures}");
}

#[test]
fn a_pool_is_free_again() {
    if !all() {
        return;
    }
    let figures = crash(&Ssh::start(1).unwrap(), Extent { follow_up: false, ..extent(2, 1) }).unwrap();
    assert!(figures.wrong.is_empty(), "{figures}");
}
