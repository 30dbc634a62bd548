//! A file that is written, compressed or not.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::RangeInclusive;

/// How something is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// gzip
    Gz,
    /// xz
    Xz,
    /// zstd
    Zst,
}

impl Codec {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Gz => "gz",
            Self::Xz => "xz",
            Self::Zst => "zst",
        }
    }

    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Gz => ".gz",
            Self::Xz => ".xz",
            Self::Zst => ".zst",
        }
    }

    pub(crate) fn levels(self) -> RangeInclusive<u32> {
        match self {
            Self::Gz => 1..=9,
            Self::Xz => 0..=9,
            Self::Zst => 1..=22,
        }
    }

    fn default_level(self) -> u32 {
        match self {
            Self::Gz | Self::Zst => 9,
            Self::Xz => 6,
        }
    }
}

/// Writes to a file; [`finish`](Self::finish) completes it.
pub(crate) enum Sink {
    Plain(BufWriter<File>),
    Gz(flate2::write::GzEncoder<BufWriter<File>>),
    Xz(liblzma::write::XzEncoder<BufWriter<File>>),
    Zst(zstd::stream::write::Encoder<'static, BufWriter<File>>),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

impl Sink {
    pub(crate) fn new(file: File, codec: Option<Codec>, level: Option<u32>) -> io::Result<Self> {
        let file = BufWriter::new(file);
        let Some(codec) = codec else { return Ok(Self::Plain(file)) };
        let level = level.unwrap_or_else(|| codec.default_level());
        Ok(match codec {
            Codec::Gz => Self::Gz(flate2::write::GzEncoder::new(file, flate2::Compression::new(level))),
            Codec::Xz => Self::Xz(liblzma::write::XzEncoder::new(file, level)),
            Codec::Zst => Self::Zst(zstd::stream::write::Encoder::new(file, level.cast_signed())?),
        })
    }

    /// Hands plain lines to the system, so that they can be read at once. Compressed ones stay until there are enough.
    pub(crate) fn publish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            _ => Ok(()),
        }
    }

    /// Where a plain file ends: after what was published.
    pub(crate) fn plain(&self) -> Option<&File> {
        match self {
            Self::Plain(file) => Some(file.get_ref()),
            _ => None,
        }
    }

    /// Completes the file.
    pub(crate) fn finish(self) -> io::Result<File> {
        let file = match self {
            Self::Plain(file) => file,
            Self::Gz(encoder) => encoder.finish()?,
            Self::Xz(encoder) => encoder.finish()?,
            Self::Zst(encoder) => encoder.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gz(encoder) => encoder.write(bytes),
            Self::Xz(encoder) => encoder.write(bytes),
            Self::Zst(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gz(encoder) => encoder.flush(),
            Self::Xz(encoder) => encoder.flush(),
            Self::Zst(encoder) => encoder.flush(),
        }
    }
}
