//! PAX records: `length key=value\n`. Knows which keys matter, not what becomes of them.

use super::{Entry, Extent, InvalidTar, invalid};

/// LIMIT: extents of one sparse file.
pub(super) const MAX_EXTENTS: usize = 1 << 20;

/// GNU's sparse files as PAX records describe them.
#[derive(Default)]
pub(super) struct Sparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) extents: Vec<Extent>,
    /// Formats 0.0 and 0.1 have the map here.
    pub(super) has_map: bool,
    /// Format 1.0 has the map in front of the data.
    pub(super) map_in_data: bool,
    pending: Option<u64>,
}

/// What an extension header changes.
#[derive(Default)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

impl Extension {
    /// Takes in all records of one extension header.
    pub(super) fn parse(&mut self, mut bytes: &[u8]) -> Result<(), InvalidTar> {
        while !bytes.is_empty() {
            // Some writers pad with NUL.
            if bytes.iter().all(|byte| *byte == 0) {
                break;
            }
            let (key, value, rest) = record(bytes).ok_or_else(|| invalid("a broken PAX record"))?;
            self.take(key, value)?;
            bytes = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), InvalidTar> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if name.is_empty() || name.len() > 255 || name.contains(&0) {
                return Err(invalid("a broken name of an extended attribute"));
            }
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(id(decimal(value)?)?),
            b"gid" => self.gid = Some(id(decimal(value)?)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ => return self.sparse.take(key, value),
        }
        Ok(())
    }

    /// Overrides an entry's fields.
    pub(super) fn apply(&mut self, entry: &mut Entry) {
        if let Some(path) = self.sparse.name.take().or_else(|| self.path.take()) {
            entry.path = path;
        }
        if let Some(link) = self.link.take() {
            entry.link = link;
        }
        entry.uid = self.uid.unwrap_or(entry.uid);
        entry.gid = self.gid.unwrap_or(entry.gid);
        entry.mtime = self.mtime.unwrap_or(entry.mtime);
        entry.xattrs = std::mem::take(&mut self.xattrs);
    }
}

impl Sparse {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), InvalidTar> {
        match key {
            b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.real_size = Some(decimal(value)?),
            b"GNU.sparse.major" => self.map_in_data = decimal(value)? == 1,
            b"GNU.sparse.numblocks" => self.has_map = true,
            b"GNU.sparse.offset" => self.pending = Some(decimal(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self.pending.take().ok_or_else(|| invalid("a broken sparse map"))?;
                self.push(offset, decimal(value)?)?;
            }
            b"GNU.sparse.map" => {
                self.has_map = true;
                let numbers = value.split(|byte| *byte == b',').filter(|part| !part.is_empty());
                let numbers = numbers.map(decimal).collect::<Result<Vec<_>, _>>()?;
                for pair in numbers.chunks(2) {
                    let [offset, len] = *pair else { return Err(invalid("a broken sparse map")) };
                    self.push(offset, len)?;
                }
            }
            // `comment`, `atime`, `uname` and the like change nothing.
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, offset: u64, len: u64) -> Result<(), InvalidTar> {
        if self.extents.len() >= MAX_EXTENTS {
            return Err(invalid("a sparse file has too many extents"));
        }
        self.extents.push(Extent { offset, len });
        Ok(())
    }
}

/// A record's key and value, and what follows it.
type Record<'b> = (&'b [u8], &'b [u8], &'b [u8]);

/// Splits off one record.
fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&bytes[..space]).ok()?).ok()?;
    let body = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (!key.is_empty()).then_some((key, value, &bytes[len..]))
}

/// Reads an unsigned decimal number.
pub(super) fn decimal(text: &[u8]) -> Result<u64, InvalidTar> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let parsed = std::str::from_utf8(text).ok().filter(|_| digits).and_then(|t| t.parse().ok());
    parsed.ok_or_else(|| invalid("a PAX record holds no number"))
}

/// Narrows a user or group id.
pub(super) fn id(number: u64) -> Result<u32, InvalidTar> {
    // LIMIT: 2^32 - 1 means "leave as it is" to the kernel.
    let id = u32::try_from(number).ok().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| invalid("an owner's id is too large"))
}

/// Reads `seconds[.fraction]`, possibly negative.
fn time(text: &[u8]) -> Result<(i64, u32), InvalidTar> {
    let broken = || invalid("a PAX record holds no time");
    let text = std::str::from_utf8(text).map_err(|_| broken())?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = i64::try_from(decimal(seconds.as_bytes())?).map_err(|_| broken())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(broken());
    }
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().map_err(|_| broken())?;
    Ok(match (negative, nanos) {
        (false, nanos) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}
