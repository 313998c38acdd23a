//! Messages on their way to a log server that may be slow, away or restarting: kept for a while, never waited for.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// LIMIT: bytes kept for a server that does not take them; what comes then is lost and counted.
const KEPT: usize = 1024 * 1024;
/// LIMIT: how often a lost server is looked for.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection to a log server. Sending never blocks.
pub(crate) trait Line: Sized {
    /// Sends as much of a message as goes; `WouldBlock` when nothing does at present.
    fn send(&mut self, message: &[u8]) -> io::Result<usize>;
}

/// Messages and the line they go out on.
pub(crate) struct Outbox<L> {
    connect: Box<dyn Fn() -> io::Result<L>>,
    line: Option<L>,
    tried: Instant,
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How much of the first message is sent.
    sent: usize,
}

impl<L: Line> Outbox<L> {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached: a container must not start without its log.
    pub(crate) fn open(connect: impl Fn() -> io::Result<L> + 'static) -> io::Result<Self> {
        let line = Some(connect()?);
        let connect = Box::new(connect);
        let tried = Instant::now();
        Ok(Self { connect, line, tried, messages: VecDeque::new(), bytes: 0, sent: 0 })
    }

    /// Takes a message.
    ///
    /// # Errors
    ///
    /// When too much waits already; the message is lost.
    pub(crate) fn push(&mut self, message: Vec<u8>) -> io::Result<()> {
        if self.bytes + message.len() > KEPT {
            return Err(io::Error::other("the log server does not keep up"));
        }
        self.bytes += message.len();
        self.messages.push_back(message);
        Ok(())
    }

    /// Tells whether messages wait.
    pub(crate) fn waits(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Sends what the server takes now.
    pub(crate) fn flush(&mut self) {
        if self.line.is_none() && self.waits() && self.tried.elapsed() >= PAUSE {
            self.tried = Instant::now();
            self.line = (self.connect)().ok();
        }
        while let (Some(line), Some(message)) = (&mut self.line, self.messages.front()) {
            match line.send(&message[self.sent..]) {
                Ok(count) if self.sent + count >= message.len() => {
                    self.bytes -= message.len();
                    self.sent = 0;
                    self.messages.pop_front();
                }
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // A new connection begins with a whole message.
                    self.line = None;
                    self.sent = 0;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Default)]
    struct Server {
        taken: Vec<u8>,
        room: usize,
    }

    struct Wire(Rc<RefCell<Server>>);

    impl Line for Wire {
        fn send(&mut self, message: &[u8]) -> io::Result<usize> {
            let mut server = self.0.borrow_mut();
            if server.room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = message.len().min(server.room);
            server.room -= count;
            server.taken.extend_from_slice(&message[..count]);
            Ok(count)
        }
    }

    #[test]
    fn a_slow_server_gets_everything_in_order_up_to_a_bound() {
        let server = Rc::new(RefCell::new(Server::default()));
        let wire = Rc::clone(&server);
        let mut outbox = Outbox::open(move || Ok(Wire(Rc::clone(&wire)))).unwrap();
        outbox.push(b"first ".to_vec()).unwrap();
        outbox.push(b"second".to_vec()).unwrap();
        for _ in 0..6 {
            server.borrow_mut().room = 2;
            outbox.flush();
        }
        assert_eq!(server.borrow().taken, b"first second");
        assert!(!outbox.waits());
        assert!(outbox.push(vec![0; KEPT]).is_ok());
        assert!(outbox.push(vec![0; 1]).is_err());
    }
}
