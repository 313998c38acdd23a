//! The framing of attach, exec and log streams without a terminal: `[stream, 0, 0, 0, length (big endian u32)]`, payload.

/// Which stream a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard input (never sent by the daemon).
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// An error of the daemon in the middle of a stream.
    System,
}

/// A stream that is not framed as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// No stream has this number.
    #[error("unrecognized stream: {0}")]
    Stream(u8),
    /// The length is beyond what anybody sends.
    #[error("frame of {0} bytes is too long")]
    TooLong(u32),
}

/// Length of the head of a frame.
pub const HEAD: usize = 8;

// LIMIT: senders cut at 16 or 32 KiB; 64 MiB leaves room for odd ones and bounds what a reader must hold.
const LONGEST: u32 = 64 << 20;

/// Makes the head of a frame.
pub const fn head(stream: Stream, length: u32) -> [u8; HEAD] {
    let number = match stream {
        Stream::Stdin => 0,
        Stream::Stdout => 1,
        Stream::Stderr => 2,
        Stream::System => 3,
    };
    let [a, b, c, d] = length.to_be_bytes();
    [number, 0, 0, 0, a, b, c, d]
}

/// Makes a whole frame.
pub fn encode(stream: Stream, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + payload.len());
    frame.extend_from_slice(&head(stream, payload.len() as u32));
    frame.extend_from_slice(payload);
    frame
}

/// Cuts a byte stream into frames, whatever the sizes in which it arrives.
///
/// Payloads are handed out as they come, possibly in several pieces, so nothing long is ever held.
#[derive(Debug, Default)]
pub struct Decoder {
    head: [u8; HEAD],
    have: usize,
    left: usize,
    stream: Option<Stream>,
}

impl Decoder {
    /// Hands the payload pieces in `bytes` to `sink`.
    ///
    /// # Errors
    ///
    /// When a head makes no sense; the decoder must not be used any further.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(Stream, &[u8]),
    ) -> Result<(), BadFrame> {
        while !bytes.is_empty() {
            if let Some(stream) = self.stream {
                let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
                sink(stream, piece);
                self.left -= piece.len();
                bytes = rest;
                if self.left == 0 {
                    self.stream = None;
                }
                continue;
            }
            let (piece, rest) = bytes.split_at((HEAD - self.have).min(bytes.len()));
            self.head[self.have..self.have + piece.len()].copy_from_slice(piece);
            self.have += piece.len();
            bytes = rest;
            if self.have == HEAD {
                self.begin()?;
            }
        }
        Ok(())
    }

    /// Tells whether the stream ended between two frames.
    pub const fn is_complete(&self) -> bool {
        self.have == 0 && self.stream.is_none()
    }

    fn begin(&mut self) -> Result<(), BadFrame> {
        let stream = match self.head[0] {
            0 => Stream::Stdin,
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::System,
            other => return Err(BadFrame::Stream(other)),
        };
        let length = u32::from_be_bytes([self.head[4], self.head[5], self.head[6], self.head[7]]);
        if length > LONGEST {
            return Err(BadFrame::TooLong(length));
        }
        self.have = 0;
        self.left = length as usize;
        self.stream = (length > 0).then_some(stream);
        Ok(())
    }
}
