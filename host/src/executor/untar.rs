//! A tar stream taken apart as it comes, in pieces of any size: its plain files, and nothing else.
//!
//! Directories, links, devices and sparse files are passed over; a second hard link to a file is one of these. Names longer
//! than a header are understood as GNU tar and pax write them. The stream comes from a machine and is not to be trusted: at most
//! one header and one long name are held in memory, names are [cleaned](super::names::clean) by whoever uses them.

const BLOCK: usize = 512;
/// Bytes of a long name or of a pax header.
const MAX_META: u64 = 64 << 10;

/// What a tar stream has next.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A file begins; its name as it came.
    File(String),
    /// Bytes of the file that began last, never empty.
    Data(&'a [u8]),
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Untar {
    state: State,
    /// A header or long name that is coming.
    buffer: Vec<u8>,
    /// What an extra header said of the next entry.
    long_name: Option<String>,
    long_size: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Header,
    /// An extra header: bytes of it, then padding.
    Meta {
        kind: Meta,
        length: usize,
        padding: u64,
    },
    File {
        left: u64,
        padding: u64,
    },
    Skip {
        left: u64,
    },
    /// The end mark was seen: what follows is padding.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meta {
    GnuName,
    Pax,
}

impl Untar {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what makes the next piece from the front of `input`; `None` when all of it is used up. An error says what is
    /// wrong; nothing follows it.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'i>>, String> {
        loop {
            match self.state {
                State::Header => match self.header(input) {
                    Ok(Some(piece)) => return Ok(Some(piece)),
                    Ok(None) => {}
                    Err(wrong) => {
                        self.state = State::End;
                        return Err(wrong);
                    }
                },
                State::Meta { kind, length, padding } => {
                    if self.fill(input, length) {
                        let text = std::mem::take(&mut self.buffer);
                        self.meta(kind, &text);
                        self.state = State::Skip { left: padding };
                        continue;
                    }
                }
                State::File { left: 0, padding } => {
                    self.state = State::Skip { left: padding };
                    continue;
                }
                State::File { left, padding } => {
                    let data = take(input, left);
                    self.state = State::File { left: left - data.len() as u64, padding };
                    if !data.is_empty() {
                        return Ok(Some(Piece::Data(data)));
                    }
                }
                State::Skip { left: 0 } => {
                    self.state = State::Header;
                    // Without input the header would say so; there may be no more.
                }
                State::Skip { left } => {
                    self.state = State::Skip { left: left - take(input, left).len() as u64 };
                }
                State::End => *input = &[],
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Takes from `input` until the buffer has `length` bytes; whether it has.
    fn fill(&mut self, input: &mut &[u8], length: usize) -> bool {
        let missing = length.saturating_sub(self.buffer.len());
        self.buffer.extend_from_slice(take(input, missing as u64));
        self.buffer.len() >= length
    }

    fn header<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'i>>, String> {
        if !self.fill(input, BLOCK) {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        block.copy_from_slice(self.buffer.get(..BLOCK).unwrap_or(&[0; BLOCK]));
        self.buffer.clear();
        if block.iter().all(|byte| *byte == 0) {
            self.state = State::End;
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block);
        if header.cksum().ok() != Some(checksum(&block)) {
            return Err("a damaged tar header".into());
        }
        let size = header.entry_size().map_err(|error| format!("a damaged tar header: {error}"))?;
        let kind = header.entry_type();
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            return self
                .begin_meta(if kind.is_pax_local_extensions() { Meta::Pax } else { Meta::GnuName }, size);
        }
        let size = self.long_size.take().unwrap_or(size);
        let padding = padding(size);
        let name = self.long_name.take();
        if !(kind.is_file() || kind.is_contiguous()) {
            self.state = State::Skip { left: size.saturating_add(padding) };
            return Ok(None);
        }
        self.state = State::File { left: size, padding };
        Ok(Some(Piece::File(
            name.unwrap_or_else(|| String::from_utf8_lossy(&header.path_bytes()).into_owned()),
        )))
    }

    fn begin_meta<'i>(&mut self, kind: Meta, size: u64) -> Result<Option<Piece<'i>>, String> {
        match usize::try_from(size) {
            Ok(length) if size <= MAX_META => {
                self.state = State::Meta { kind, length, padding: padding(size) };
                Ok(None)
            }
            _ => Err(format!("a tar header of {size} bytes")),
        }
    }

    fn meta(&mut self, kind: Meta, text: &[u8]) {
        match kind {
            Meta::GnuName => {
                let end = memchr::memchr(0, text).unwrap_or(text.len());
                let name = text.get(..end).unwrap_or(text);
                self.long_name = Some(String::from_utf8_lossy(name).into_owned());
            }
            Meta::Pax => {
                for extension in tar::PaxExtensions::new(text).flatten() {
                    match extension.key_bytes() {
                        b"path" => {
                            self.long_name =
                                Some(String::from_utf8_lossy(extension.value_bytes()).into_owned());
                        }
                        b"size" => self.long_size = extension.value().ok().and_then(|size| size.parse().ok()),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// At most `count` bytes from the front.
fn take<'i>(input: &mut &'i [u8], count: u64) -> &'i [u8] {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let (taken, rest) = input.split_at_checked(count).unwrap_or((input, &[]));
    *input = rest;
    taken
}

fn padding(size: u64) -> u64 {
    let block = BLOCK as u64;
    (block - size % block) % block
}

/// The sum of all bytes, those of the sum itself counting as spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let byte = |(at, byte): (usize, &u8)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte });
    block.iter().enumerate().map(byte).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Files = Vec<(String, Vec<u8>)>;

    fn untar(chunks: &mut dyn Iterator<Item = &[u8]>) -> (Files, Option<String>) {
        let (mut untar, mut files, mut wrong) = (Untar::new(), Files::new(), None);
        for mut input in chunks {
            loop {
                match untar.next(&mut input) {
                    Ok(None) => break,
                    Ok(Some(Piece::File(name))) => files.push((name, Vec::new())),
                    Ok(Some(Piece::Data(data))) => files.last_mut().unwrap().1.extend_from_slice(data),
                    Err(error) => assert_eq!(wrong.replace(error), None, "an error is told once"),
                }
            }
            assert!(input.is_empty());
        }
        (files, wrong)
    }

    fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut directory = tar::Header::new_gnu();
        directory.set_entry_type(tar::EntryType::Directory);
        directory.set_size(0);
        builder.append_data(&mut directory, "dir/", &[][..]).unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "link", "/etc/passwd").unwrap();
        for (name, data) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, &data[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn files(names_and_sizes: &[(&str, usize)]) -> Files {
        let file = |(name, size): &(&str, usize)| (name.to_string(), vec![b'x'; *size]);
        names_and_sizes.iter().map(file).collect()
    }

    #[test]
    fn plain_files_only() {
        let long = "long/".repeat(60) + "name";
        let files = files(&[("a", 0), ("dir/b", 511), ("c", 512), (&long, 513), ("d", 1)]);
        assert_eq!(untar(&mut std::iter::once(&archive(&files)[..])), (files, None));
    }

    #[test]
    fn pax_headers() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("mtime", &b"1.5"[..]), ("path", "é/x".as_bytes())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        builder.append_data(&mut header, "short", &b"abc"[..]).unwrap();
        let stream = builder.into_inner().unwrap();
        assert_eq!(untar(&mut std::iter::once(&stream[..])).0, [("é/x".to_owned(), b"abc".to_vec())]);
    }

    #[test]
    fn damage_is_told_and_ends_it() {
        let mut stream = archive(&files(&[("a", 3), ("b", 3)]));
        let second = stream.windows(2).rposition(|pair| pair == b"b\0").unwrap();
        stream[second] = b'c';
        let (files, wrong) = untar(&mut std::iter::once(&stream[..]));
        assert_eq!((files.len(), wrong.as_deref()), (1, Some("a damaged tar header")));
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(
            sizes in prop::collection::vec(0_usize..1200, 0..4), chunk in 1_usize..700, cut in any::<prop::sample::Index>(),
        ) {
            let files: Files = sizes.iter().map(|size| ("f".repeat(*size / 4 + 1), vec![7; *size])).collect();
            let stream = archive(&files);
            prop_assert_eq!(untar(&mut stream.chunks(chunk)), (files, None));
            let part = &stream[..cut.index(stream.len())];
            prop_assert_eq!(untar(&mut part.chunks(chunk)), untar(&mut std::iter::once(part)));
        }

        #[test]
        fn any_bytes_are_survived(mut stream in prop::collection::vec(any::<u8>(), 512..1500), fix in any::<bool>()) {
            if fix {
                let mut block: [u8; BLOCK] = stream[..BLOCK].try_into().unwrap();
                block[148..156].copy_from_slice(b"        ");
                let sum = format!("{:06o}\0 ", checksum(&block));
                stream[148..156].copy_from_slice(sum.as_bytes());
            }
            untar(&mut std::iter::once(&stream[..]));
        }
    }
}
