//! Any bytes are an archive or a damaged one, the same however they were cut.

#![no_main]

use atex_host::executor::untar::{Piece, Untar};
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;

/// The first byte says how long the pieces are in which the rest comes. Sums of headers are put right: a fuzzer does not guess them.
fuzz_target!(|bytes: &[u8]| {
    let Some((&size, stream)) = bytes.split_first() else { return };
    let mut stream = stream.to_vec();
    stream.chunks_exact_mut(BLOCK).for_each(put_right);
    let whole = take_apart(&mut std::iter::once(&stream[..]));
    let pieces = take_apart(&mut stream.chunks(usize::from(size) * 7 + 1));
    assert_eq!(whole, pieces, "pieces make a difference");
    let bytes: usize = whole.0.iter().map(|file| file.1.len()).sum();
    assert!(bytes <= stream.len());
});

/// Blocks that look like a header get its checksum.
fn put_right(block: &mut [u8]) {
    if &block[257..262] == b"ustar" {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

type Files = Vec<(String, Vec<u8>)>;

fn take_apart<'s>(pieces: &mut dyn Iterator<Item = &'s [u8]>) -> (Files, Option<String>) {
    let (mut untar, mut files, mut wrong) = (Untar::new(), Files::new(), None);
    for mut input in pieces {
        loop {
            match untar.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Piece::File(name))) => {
                    assert!(name.len() <= 4 * 64 << 10, "a name is bounded");
                    files.push((name, Vec::new()));
                }
                Ok(Some(Piece::Data(data))) => {
                    assert!(!data.is_empty());
                    files.last_mut().expect("data belongs to a file").1.extend_from_slice(data);
                }
                Err(error) => assert_eq!(wrong.replace(error), None, "an error is told once"),
            }
        }
        assert!(input.is_empty());
    }
    (files, wrong)
}
