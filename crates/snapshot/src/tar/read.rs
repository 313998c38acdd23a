//! Reading: one entry after the other from a stream that cannot seek.

use std::io::{self, BufRead};

use super::header::{self, BLOCK, Block};
use super::pax::{self, Extension};
use super::{Entry, Extent, InvalidTar, Kind, invalid};

/// LIMIT: bytes of one extension header or long name, as Go's reader allows.
pub const MAX_SPECIAL: u64 = 1 << 20;
/// LIMIT: extension headers in front of one entry.
const MAX_HEADERS: usize = 16;

/// Reads a tar stream.
pub struct Reader<R> {
    source: R,
    /// Data of the present entry that is still to come, and the padding behind it.
    left: u64,
    padding: u64,
    /// All bytes that are no entry's data, if somebody wants them.
    raw: Option<Vec<u8>>,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads from the start of an archive.
    pub const fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0, raw: None, ended: false }
    }

    /// Hands out the data of one entry that was read before.
    pub(crate) fn again(source: R, len: u64) -> Self {
        Self { left: len, ..Self::new(source) }
    }

    /// Keeps every byte that is no entry's data for [`Self::take_raw`].
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.raw = Some(Vec::new());
        self
    }

    /// Takes the headers and padding read since the last call.
    pub fn take_raw(&mut self) -> Vec<u8> {
        self.raw.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Goes to the next entry; what was not read of the present one must be skipped first with [`Self::skip`].
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        self.skip()?;
        let mut extension = Extension::default();
        for _ in 0..MAX_HEADERS {
            let Some(block) = self.header()? else { return Ok(None) };
            match block[156] {
                b'x' => extension.parse(&self.special(&block)?)?,
                // COMPAT: dockerd does not apply global headers either.
                b'g' => drop(self.special(&block)?),
                b'L' => extension.path = Some(trimmed(self.special(&block)?)),
                b'K' => extension.link = Some(trimmed(self.special(&block)?)),
                _ => return self.entry(&block, extension).map(Some),
            }
        }
        Err(invalid("too many extension headers in front of an entry").into())
    }

    /// Returns more of the present entry's stored data; empty at its end. Follow with [`Self::consume`].
    pub fn data(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let buffer = fill(&mut self.source)?;
        if buffer.is_empty() {
            return Err(truncated());
        }
        let len = buffer.len().min(left);
        Ok(&buffer[..len])
    }

    /// Marks `len` bytes of [`Self::data`] as used.
    pub fn consume(&mut self, len: usize) {
        debug_assert!(len as u64 <= self.left, "no more than data() gave");
        self.source.consume(len);
        self.left -= len as u64;
    }

    /// Reads all of the present entry's data, at most `limit` bytes.
    pub fn read_all(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        if self.left > limit {
            return Err(invalid(format!("an entry has more than {limit} bytes")).into());
        }
        let mut bytes = Vec::with_capacity(self.left as usize);
        loop {
            let data = self.data()?;
            if data.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(data);
            let len = data.len();
            self.consume(len);
        }
    }

    /// Skips what is left of the present entry.
    pub fn skip(&mut self) -> io::Result<()> {
        loop {
            let len = self.data()?.len();
            if len == 0 {
                break;
            }
            self.consume(len);
        }
        let mut padding = [0; BLOCK];
        let len = self.padding as usize;
        self.padding = 0;
        self.fill_exact(&mut padding[..len])
    }

    /// Reads what follows the end mark, up to the end of the stream, in pieces.
    pub fn trailer(&mut self) -> io::Result<Vec<u8>> {
        let buffer = fill(&mut self.source)?;
        let (len, bytes) = (buffer.len(), buffer.to_vec());
        self.source.consume(len);
        Ok(bytes)
    }

    fn fill_exact(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let buffer = fill(&mut self.source)?;
            if buffer.is_empty() {
                return Err(truncated());
            }
            let len = buffer.len().min(into.len());
            into[..len].copy_from_slice(&buffer[..len]);
            if let Some(raw) = &mut self.raw {
                raw.extend_from_slice(&buffer[..len]);
            }
            self.source.consume(len);
            into = &mut into[len..];
        }
        Ok(())
    }

    /// Reads a header; `None` at the end: two empty blocks, or the end of the stream between two entries.
    fn header(&mut self) -> io::Result<Option<Block>> {
        if self.ended || fill(&mut self.source)?.is_empty() {
            self.ended = true;
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.fill_exact(&mut block)?;
        if block.iter().any(|byte| *byte != 0) {
            header::check_sum(&block)?;
            return Ok(Some(block));
        }
        self.ended = true;
        if fill(&mut self.source)?.is_empty() {
            return Ok(None);
        }
        self.fill_exact(&mut block)?;
        if block.iter().any(|byte| *byte != 0) {
            return Err(invalid("data behind the end mark").into());
        }
        Ok(None)
    }

    /// Reads the body of an extension header.
    fn special(&mut self, block: &Block) -> io::Result<Vec<u8>> {
        let size = header::size(&block[124..136])?;
        if size > MAX_SPECIAL {
            return Err(invalid("an extension header is too large").into());
        }
        let mut body = vec![0; size as usize];
        self.fill_exact(&mut body)?;
        let mut padding = [0; BLOCK];
        self.fill_exact(&mut padding[..padding_of(size) as usize])?;
        Ok(body)
    }

    fn entry(&mut self, block: &Block, mut extension: Extension) -> io::Result<Entry> {
        let mut entry = Entry::new(header::path(block), Kind::File, 0);
        entry.link = header::link(block);
        entry.mode = header::number(&block[100..108])? as u32 & 0o7777;
        // Ids may come from the extension header when the field cannot hold them.
        entry.uid = pax::id(header::size(&block[108..116])?)?;
        entry.gid = pax::id(header::size(&block[116..124])?)?;
        entry.mtime = (header::number(&block[136..148])?, 0);
        entry.stored = extension.size.map_or_else(|| header::size(&block[124..136]), Ok)?;
        extension.apply(&mut entry);
        if entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(invalid("a name holds a NUL byte").into());
        }
        entry.kind = kind(block[156], &entry.path)?;
        if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            let part = |field| {
                u32::try_from(header::size(field)?)
                    .map_err(|_| invalid("a device number is too large"))
            };
            entry.device = (part(&block[329..337])?, part(&block[337..345])?);
        }
        if entry.kind != Kind::File {
            // Whatever the header says, these have no data.
            entry.stored = 0;
        }
        self.left = entry.stored;
        self.padding = padding_of(entry.stored);
        entry.size = entry.stored;
        self.sparse(block, &mut entry, extension)?;
        Ok(entry)
    }

    fn sparse(&mut self, block: &Block, entry: &mut Entry, extension: Extension) -> io::Result<()> {
        let sparse = extension.sparse;
        let (real_size, extents) = if block[156] == b'S' {
            (header::size(&block[483..495])?, self.gnu_extents(block)?)
        } else if entry.kind != Kind::File {
            return Ok(());
        } else if sparse.map_in_data {
            let real_size = sparse.real_size.ok_or_else(|| invalid("a sparse file has no size"))?;
            (real_size, self.extents_in_data(entry)?)
        } else if sparse.has_map {
            let real_size = sparse.real_size.ok_or_else(|| invalid("a sparse file has no size"))?;
            (real_size, sparse.extents)
        } else {
            return Ok(());
        };
        check_extents(&extents, real_size, entry.stored)?;
        entry.size = real_size;
        entry.sparse = Some(extents);
        Ok(())
    }

    fn gnu_extents(&mut self, block: &Block) -> io::Result<Vec<Extent>> {
        let mut extents = Vec::new();
        header::extents(&block[386..482], &mut extents)?;
        let mut more = block[482] != 0;
        while more {
            if extents.len() > pax::MAX_EXTENTS {
                return Err(invalid("a sparse file has too many extents").into());
            }
            let mut block = [0; BLOCK];
            self.fill_exact(&mut block)?;
            header::extents(&block[..504], &mut extents)?;
            more = block[504] != 0;
        }
        Ok(extents)
    }

    /// Reads the map of format 1.0: decimal numbers on lines, in whole blocks in front of the data.
    fn extents_in_data(&mut self, entry: &mut Entry) -> io::Result<Vec<Extent>> {
        let mut lines = Lines { reader: self, block: [0; BLOCK], at: BLOCK };
        let count = lines.number()?;
        if count > pax::MAX_EXTENTS as u64 {
            return Err(invalid("a sparse file has too many extents").into());
        }
        let mut extents = Vec::new();
        for _ in 0..count {
            extents.push(Extent { offset: lines.number()?, len: lines.number()? });
        }
        entry.stored = self.left;
        Ok(extents)
    }
}

struct Lines<'r, R> {
    reader: &'r mut Reader<R>,
    block: Block,
    at: usize,
}

impl<R: BufRead> Lines<'_, R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            if self.at == BLOCK {
                if self.reader.left < BLOCK as u64 {
                    return Err(invalid("a sparse map is cut off").into());
                }
                self.reader.left -= BLOCK as u64;
                self.reader.fill_exact(&mut self.block)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return Ok(pax::decimal(&digits)?),
                _ if digits.len() < 20 => digits.push(byte),
                _ => return Err(invalid("a broken sparse map").into()),
            }
        }
    }
}

fn check_extents(extents: &[Extent], real_size: u64, stored: u64) -> Result<(), InvalidTar> {
    let broken = || invalid("a broken sparse map");
    let (mut end, mut sum) = (0_u64, 0_u64);
    for extent in extents {
        if extent.offset < end {
            return Err(broken());
        }
        end = extent.offset.checked_add(extent.len).ok_or_else(broken)?;
        sum = sum.checked_add(extent.len).ok_or_else(broken)?;
    }
    if end > real_size || sum != stored { Err(broken()) } else { Ok(()) }
}

fn kind(flag: u8, path: &[u8]) -> Result<Kind, InvalidTar> {
    Ok(match flag {
        // COMPAT: archives older than directories' own flag mark them by a slash.
        0 if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(invalid(format!("unhandled tar header type {other}"))),
    })
}

const fn padding_of(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// Long names end with NUL.
fn trimmed(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of an entry")
}

fn fill(source: &mut impl BufRead) -> io::Result<&[u8]> {
    // Two calls, because the borrow of a returned buffer cannot end in a loop.
    loop {
        match source.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    source.fill_buf()
}
