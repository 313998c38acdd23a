//! Decompression chosen by the first bytes. Bounds memory; how much may come out is the caller's business.

use std::io::{self, BufReader, Read};

/// LIMIT: window of a zstd frame we are ready to keep in memory; the reference decoder's default, too.
const ZSTD_WINDOW_LOG: u32 = 27;
/// LIMIT: memory of an xz decoder; the strongest preset needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
const BUFFER: usize = 128 * 1024;

/// How bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// RFC 1952, also several members in a row.
    Gzip,
    /// RFC 8878, also several frames in a row.
    Zstd,
    /// bzip2, also several streams in a row.
    Bzip2,
    /// The xz format.
    Xz,
}

/// Tells compression by the first bytes of a stream.
pub fn detect(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame may come first.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        _ => Compression::Plain,
    }
}

/// Unpacks a stream whatever its compression.
pub fn decompress(source: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    decompress_told(source).map(|(plain, _)| plain)
}

/// Unpacks a stream and tells how it was packed.
pub(crate) fn decompress_told(
    mut source: Box<dyn Read + Send>,
) -> io::Result<(Box<dyn Read + Send>, Compression)> {
    let mut head = [0; 6];
    let mut len = 0;
    while len < head.len() {
        match source.read(&mut head[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let head = head[..len].to_vec();
    let compression = detect(&head);
    let whole = io::Cursor::new(head).chain(source);
    let plain: Box<dyn Read + Send> = match compression {
        Compression::Plain => Box::new(whole),
        Compression::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, whole)))
        }
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(BUFFER, whole))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Compression::Bzip2 => {
            Box::new(bzip2::bufread::MultiBzDecoder::new(BufReader::with_capacity(BUFFER, whole)))
        }
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )?;
            let whole = BufReader::with_capacity(BUFFER, whole);
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
    };
    Ok((plain, compression))
}

#[cfg(test)]
mod tests;
