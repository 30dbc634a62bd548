//! Cuts a stream of a driver into one piece per command.
//!
//! When a command and what it left are gone, the driver writes a line `\x1eNONCE ID STATUS FLAGS\n`: a virtual end of file
//! that no daemon which holds the descriptor can keep away. The nonce is known to the host and to the driver's own two
//! processes only. Memory is bounded: what is held back is at most the longest line that can be an end.

/// The longest rest of an end line after the nonce.
const MAX_REST: usize = 4096;

/// The end of one command's piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Number of the command; 0 for the driver's own greeting.
    pub id: u64,
    pub status: i32,
    pub flags: String,
}

impl End {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let mut words = line.splitn(3, ' ');
        let id = words.next()?.parse().ok()?;
        let status = words.next()?.parse().ok()?;
        Some(Self { id, status, flags: words.next().unwrap_or("").to_owned() })
    }

    pub fn has(&self, flag: &str) -> bool {
        self.flags.split(' ').any(|word| word == flag)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Cutter {
    mark: Vec<u8>,
    held: Vec<u8>,
}

impl Cutter {
    pub fn new(nonce: &str) -> Self {
        Self { mark: format!("\x1e{nonce} ").into_bytes(), held: vec![] }
    }

    /// Gives data to `sink`. Stops after an end line; says how much of `data` was used, and the end.
    pub fn feed(&mut self, data: &[u8], sink: &mut dyn FnMut(&[u8])) -> (usize, Option<End>) {
        let mut at = 0;
        while let Some(&byte) = data.get(at) {
            if self.held.is_empty() && byte != 0x1e {
                let stop = memchr::memchr(0x1e, &data[at..]).map_or(data.len(), |n| at + n);
                sink(&data[at..stop]);
                at = stop;
                continue;
            }
            let n = self.held.len();
            let fits = match self.mark.get(n) {
                Some(&expected) => byte == expected,
                None => byte != 0x1e && n <= self.mark.len() + MAX_REST,
            };
            if !fits {
                // Not an end after all. The byte that begins one occurs nowhere else in it, so nothing held can begin another.
                sink(&std::mem::take(&mut self.held));
                continue;
            }
            self.held.push(byte);
            at += 1;
            if byte == b'\n' && n >= self.mark.len() {
                let line = std::mem::take(&mut self.held);
                if let Some(end) = End::parse(&line[self.mark.len()..n]) {
                    return (at, Some(end));
                }
                sink(&line);
            }
        }
        (at, None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(stream: &[u8], size: usize) -> (Vec<u8>, Vec<(usize, End)>) {
        let (mut cutter, mut text, mut ends) = (Cutter::new("abc"), vec![], vec![]);
        for chunk in stream.chunks(size) {
            let mut at = 0;
            while at < chunk.len() {
                let (used, end) = cutter.feed(&chunk[at..], &mut |b| text.extend_from_slice(b));
                assert!(used > 0);
                at += used;
                ends.extend(end.map(|end| (text.len(), end)));
            }
        }
        (text, ends)
    }

    #[test]
    fn cuts_alike_whatever_the_chunks() {
        let stream = b"log \x1e\x1eab\x1eabc no\n\x1eabc 7 137 held data\nnext\x1eabc 8 0 \n\x1eab";
        let seven = End { id: 7, status: 137, flags: "held data".into() };
        let eight = End { id: 8, status: 0, flags: String::new() };
        assert!(seven.has("data") && seven.has("held") && !seven.has("dat"));
        for size in 1..=stream.len() {
            let (text, ends) = cut(stream, size);
            assert_eq!(ends, [(16, seven.clone()), (20, eight.clone())], "chunks of {size}");
            assert_eq!(text, b"log \x1e\x1eab\x1eabc no\nnext", "chunks of {size}");
        }
    }

    /// A copy of the mark without a line of its own does not swallow the end that follows it.
    #[test]
    fn an_end_after_half_an_end_is_seen() {
        for size in 1..20 {
            let (text, ends) = cut(b"\x1eabc \x1eabc 3 1\x1eabc 4 0 \n", size);
            assert_eq!(text, b"\x1eabc \x1eabc 3 1", "chunks of {size}");
            assert_eq!(ends, [(13, End { id: 4, status: 0, flags: String::new() })], "chunks of {size}");
        }
    }

    proptest! {
        #[test]
        fn loses_and_invents_nothing(parts in prop::collection::vec("[a\x1eb c\n]{0,12}", 1..6), size in 1_usize..9) {
            let mut stream = vec![];
            for (id, part) in parts.iter().enumerate() {
                stream.extend_from_slice(part.as_bytes());
                stream.extend_from_slice(format!("\x1eabc {id} 0 \n").as_bytes());
            }
            let (text, ends) = cut(&stream, size);
            prop_assert_eq!(text, parts.concat().into_bytes());
            prop_assert_eq!(ends.len(), parts.len());
        }

        #[test]
        fn holds_back_only_so_much(junk in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut cutter = Cutter::new("abc");
            let mut seen = 0;
            cutter.feed(&junk, &mut |b| seen += b.len());
            prop_assert!(junk.len() - seen <= cutter.mark.len() + MAX_REST + 1);
        }
    }
}
