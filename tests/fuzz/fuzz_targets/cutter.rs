//! A driver's stream is cut into the same pieces whatever the chunks, nothing is lost, and little is held back.

#![no_main]

use atex_host::executor::cutter::{Cutter, End};
use libfuzzer_sys::fuzz_target;

const NONCE: &str = "n0";

/// The first byte says how long the pieces are in which the rest comes.
fuzz_target!(|bytes: &[u8]| {
    let Some((&size, stream)) = bytes.split_first() else { return };
    let (text, ends, held) = cut(&mut std::iter::once(stream));
    let again = cut(&mut stream.chunks(usize::from(size).max(1)));
    assert_eq!((&text, &ends), (&again.0, &again.1), "pieces make a difference");
    assert!(held <= 5000, "{held} bytes are held back");
});

type Ends = Vec<(usize, End)>;

/// The text without ends; the ends with their places; how much was neither.
fn cut<'s>(pieces: &mut dyn Iterator<Item = &'s [u8]>) -> (Vec<u8>, Ends, usize) {
    let (mut cutter, mut text, mut ends) = (Cutter::new(NONCE), Vec::new(), Ends::new());
    let (mut total, mut lines) = (0, 0);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            let before = text.len();
            let (used, end) = cutter.feed(&piece[at..], &mut |bytes| text.extend_from_slice(bytes));
            assert!(used > 0 || text.len() > before);
            at += used;
            if let Some(end) = end {
                lines += 1;
                ends.push((text.len(), end));
            }
        }
        total += piece.len();
    }
    let held = if lines == 0 { total - text.len() } else { 0 };
    (text, ends, held)
}
