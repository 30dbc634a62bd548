//! The binary interface does not change unnoticed.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

#[test]
fn the_document_holds_the_digest_of_the_abi() {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read(crate_directory.join("src/abi.rs")).unwrap();
    let digest = format!("{:x}", Sha256::digest(&source));
    let document = fs::read_to_string(crate_directory.join("../docs/abi.md")).unwrap();
    assert!(
        document.contains(&digest),
        "plugin-api/src/abi.rs has changed: read the rules in docs/abi.md, then write down its new digest {digest} there"
    );
}
