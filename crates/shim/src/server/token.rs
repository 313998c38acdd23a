//! What the numbers given to epoll mean.

/// A descriptor among a process's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Stdout,
    Stderr,
    Stdin,
    Client(u16),
}

/// What epoll reports about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Signals,
    Listener,
    Daemon,
    Timer,
    Memory,
    /// A stream of the process in this slot; slot 0 is init.
    Stream(u16, Place),
}

const STREAMS: u64 = 1 << 40;

impl Token {
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Signals => 0,
            Self::Listener => 1,
            Self::Daemon => 2,
            Self::Timer => 3,
            Self::Memory => 4,
            Self::Stream(slot, place) => {
                let place = match place {
                    Place::Stdout => 0,
                    Place::Stderr => 1,
                    Place::Stdin => 2,
                    Place::Client(at) => 3 + u64::from(at),
                };
                STREAMS | u64::from(slot) << 20 | place
            }
        }
    }

    pub(crate) fn from_number(number: u64) -> Option<Self> {
        if number & STREAMS != 0 {
            let place = match number & 0xf_ffff {
                0 => Place::Stdout,
                1 => Place::Stderr,
                2 => Place::Stdin,
                at => Place::Client((at - 3) as u16),
            };
            return Some(Self::Stream((number >> 20) as u16, place));
        }
        [Self::Signals, Self::Listener, Self::Daemon, Self::Timer, Self::Memory]
            .get(number as usize)
            .copied()
    }
}
