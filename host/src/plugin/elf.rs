//! A look at a library's file before it is mapped.
//!
//! The dynamic loader trusts the headers: mapping a truncated file kills the process with SIGBUS at the first page that is
//! not there. So what the headers announce is compared with what there is. This is no proof that the file is sound.

use std::io::{self, Read, Seek, SeekFrom};

/// Why a file is no library for this process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElfFault {
    #[error("it is not a library: it does not begin as an ELF file")]
    NotElf,
    #[error("it is not a shared library but {0}")]
    NotShared(&'static str),
    #[error("it was built for another CPU ({file}; this is {here})")]
    OtherCpu { file: String, here: &'static str },
    #[error("it is truncated: it ends at {length} of {needed} bytes")]
    Truncated { length: u64, needed: u64 },
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

const HEADER_BYTES: usize = 64;
/// Size of one program header; the format allows others, nobody makes them.
const PROGRAM_HEADER_BYTES: u64 = 56;
const ET_DYN: u16 = 3;

/// Numbers of CPUs that are likely to be met, and their names.
const CPUS: [(u16, &str); 9] = [
    (3, "x86"),
    (8, "mips"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
];

/// Checks that the file is a complete 64-bit shared library for this CPU.
pub(super) fn check(file: &mut (impl Read + Seek)) -> Result<(), ElfFault> {
    let length = file.seek(SeekFrom::End(0)).map_err(|error| unreadable(&error))?;
    let header = Header::read(file, length)?;
    header.check_cpu()?;
    if header.kind != ET_DYN {
        return Err(ElfFault::NotShared(match header.kind {
            1 => "an object file",
            2 => "a program",
            4 => "a core dump",
            _ => "something else",
        }));
    }
    let needed = header.sections_end.max(segments_end(file, &header, length)?);
    if needed > length { Err(ElfFault::Truncated { length, needed }) } else { Ok(()) }
}

fn unreadable(error: &io::Error) -> ElfFault {
    ElfFault::Unreadable(error.to_string())
}

struct Header {
    /// 1: 32 bits, 2: 64 bits
    class: u8,
    /// 1: little-endian, 2: big-endian
    order: u8,
    kind: u16,
    cpu: u16,
    program_headers: u64,
    program_header_count: u16,
    /// Where the table of sections ends.
    sections_end: u64,
}

impl Header {
    fn read(file: &mut (impl Read + Seek), length: u64) -> Result<Self, ElfFault> {
        let mut bytes = [0; HEADER_BYTES];
        file.seek(SeekFrom::Start(0)).map_err(|error| unreadable(&error))?;
        let magic = length >= 6 && file.read_exact(&mut bytes[..6]).is_ok() && bytes.starts_with(b"\x7fELF");
        if !magic {
            return Err(ElfFault::NotElf);
        }
        if length < HEADER_BYTES as u64 {
            return Err(ElfFault::Truncated { length, needed: HEADER_BYTES as u64 });
        }
        file.read_exact(&mut bytes[6..]).map_err(|error| unreadable(&error))?;
        let (class, order) = (bytes[4], bytes[5]);
        let two = |at: usize| number(&bytes[at..at + 2], order) as u16;
        let eight = |at: usize| number(&bytes[at..at + 8], order);
        let sections = u64::from(two(58)) * u64::from(two(60));
        Ok(Self {
            class,
            order,
            kind: two(16),
            cpu: two(18),
            program_headers: eight(32),
            program_header_count: two(56),
            sections_end: eight(40).saturating_add(sections),
        })
    }

    /// Word size, byte order and CPU, in this order: the meaning of all other fields depends on the first two.
    fn check_cpu(&self) -> Result<(), ElfFault> {
        let here = std::env::consts::ARCH;
        let order = if cfg!(target_endian = "little") { 1 } else { 2 };
        let name = CPUS.iter().find(|(number, _)| *number == self.cpu).map(|(_, name)| *name);
        let ours = CPUS.iter().find(|(_, name)| *name == here).map(|(number, _)| *number);
        if self.class == 2 && self.order == order && ours.is_none_or(|ours| ours == self.cpu) {
            return Ok(());
        }
        let bits = if self.class == 1 { "32-bit " } else { "" };
        let file =
            name.map_or_else(|| format!("{bits}CPU number {}", self.cpu), |name| format!("{bits}{name}"));
        Err(ElfFault::OtherCpu { file, here })
    }
}

/// Where the last segment ends that is to be mapped.
fn segments_end(file: &mut (impl Read + Seek), header: &Header, length: u64) -> Result<u64, ElfFault> {
    let table = u64::from(header.program_header_count) * PROGRAM_HEADER_BYTES;
    let needed = header.program_headers.saturating_add(table);
    if needed > length {
        return Err(ElfFault::Truncated { length, needed });
    }
    file.seek(SeekFrom::Start(header.program_headers)).map_err(|error| unreadable(&error))?;
    let mut end = 0;
    for _ in 0..header.program_header_count {
        let mut bytes = [0; PROGRAM_HEADER_BYTES as usize];
        file.read_exact(&mut bytes).map_err(|error| unreadable(&error))?;
        let (offset, size) = (number(&bytes[8..16], header.order), number(&bytes[32..40], header.order));
        end = end.max(offset.saturating_add(size));
    }
    Ok(end)
}

fn number(bytes: &[u8], order: u8) -> u64 {
    let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
    if order == 1 { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// This test's own program: an ELF file of type "shared" (position-independent) for this CPU.
    fn sound() -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let mut file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        file.read_exact(&mut bytes).unwrap();
        // One segment and no sections, so that a short file is complete.
        bytes[32..40].copy_from_slice(&64u64.to_ne_bytes());
        bytes[40..48].copy_from_slice(&0u64.to_ne_bytes());
        bytes[56..58].copy_from_slice(&1u16.to_ne_bytes());
        bytes[60..62].copy_from_slice(&0u16.to_ne_bytes());
        let mut segment = [0; 56];
        segment[32..40].copy_from_slice(&200u64.to_ne_bytes());
        bytes.extend(segment);
        bytes.resize(200, 0);
        bytes
    }

    fn result(bytes: &[u8]) -> Result<(), ElfFault> {
        check(&mut Cursor::new(bytes))
    }

    #[test]
    fn a_sound_file_passes() {
        assert_eq!(result(&sound()), Ok(()));
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = sound();
        for length in 0..bytes.len() {
            let expected_short = length < 6;
            match result(&bytes[..length]) {
                Err(ElfFault::NotElf) => assert!(expected_short, "{length}"),
                Err(ElfFault::Truncated { length: told, needed }) => {
                    assert_eq!(told, length as u64);
                    assert!(needed > told && !expected_short);
                }
                other => panic!("{length}: {other:?}"),
            }
        }
    }

    #[test]
    fn other_files_are_named_for_what_they_are() {
        assert_eq!(result(b"#!/bin/sh\nexit 0\n"), Err(ElfFault::NotElf));
        let mut program = sound();
        program[16] = 2;
        program[17] = 0;
        assert_eq!(result(&program), Err(ElfFault::NotShared("a program")));
        let mut other = sound();
        other[18] = 22;
        other[19] = 0;
        let text = result(&other).unwrap_err().to_string();
        assert!(text.starts_with("it was built for another CPU (s390x; this is"), "{text}");
        let mut narrow = sound();
        narrow[4] = 1;
        assert!(
            matches!(result(&narrow), Err(ElfFault::OtherCpu { file, .. }) if file.starts_with("32-bit "))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(changes in prop::collection::vec((0..200usize, any::<u8>()), 0..20), cut in 0..=200usize) {
            let mut bytes = sound();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let _ = result(&bytes[..cut]);
        }
    }
}
