//! Waiting for many things in one thread: `epoll(7)`, `signalfd(2)`, `timerfd_create(2)`, `eventfd(2)`.
//!
//! Level-triggered throughout: what is not dealt with is reported again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// What to wait for. Errors and hang-ups are always reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Something can be read, or the peer will write no more.
    pub read: bool,
    /// Something can be written.
    pub write: bool,
}

impl Interest {
    /// Errors and hang-ups only.
    pub const NONE: Self = Self { read: false, write: false };
    /// Reading.
    pub const READ: Self = Self { read: true, write: false };
    /// Writing.
    pub const WRITE: Self = Self { read: false, write: true };

    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN | epoll::EventFlags::RDHUP, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags
    }
}

/// What has happened to a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The number it was added with.
    pub token: u64,
    /// Reading will not block.
    pub readable: bool,
    /// Writing will not block.
    pub writable: bool,
    /// Both directions are closed, or there is an error to fetch.
    pub closed: bool,
}

/// Waits for many descriptors.
#[derive(Debug)]
pub struct Poller(OwnedFd);

impl Poller {
    /// Makes one that waits for nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Adds a descriptor under a number of the caller's.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Changes what is waited for.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, epoll::EventData::new_u64(token), interest.flags())?)
    }

    /// Takes a descriptor out. Needed before closing one of which other processes have copies.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Waits until something happens or `timeout` is over, then fills `ready` with at most 32 happenings.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let empty =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [empty; 32];
        let timeout = timeout.map(timespec);
        let count = loop {
            match epoll::wait(&self.0, &mut events[..], timeout.as_ref()) {
                Ok(count) => break count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        ready.extend(events[..count].iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            let closed = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            Ready {
                token: data.u64(),
                readable: flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP)
                    || closed,
                writable: flags.contains(epoll::EventFlags::OUT),
                closed,
            }
        }));
        Ok(())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Signals as something to read.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks `signals` in the calling thread and makes them readable here instead.
    ///
    /// Programs started from this thread inherit the blocked signals unless whoever starts them clears the mask.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the whole set; the others only read or change that set, which lives here.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                if libc::sigaddset(set.as_mut_ptr(), *signal) == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) == -1 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given this descriptor to us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes the next waiting signal's number.
    pub fn take(&self) -> io::Result<Option<i32>> {
        // LIMIT: the size of `struct signalfd_siginfo`; the signal's number is its first field.
        let mut record = [0_u8; 128];
        match rustix::io::read(&self.0, &mut record[..]) {
            Ok(count) if count >= 4 => {
                Ok(Some(i32::from_ne_bytes([record[0], record[1], record[2], record[3]])))
            }
            Ok(_) | Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A clock that becomes readable.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// Makes a timer that is not set.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Becomes readable once after `duration`; `None` calls that off.
    pub fn set(&self, duration: Option<Duration>) -> io::Result<()> {
        // A zero duration would call the timer off.
        let value = duration.map_or(Duration::ZERO, |after| after.max(Duration::from_nanos(1)));
        let spec = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(value) };
        rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    /// Takes note of an expiry, so that it is not reported again.
    pub fn take(&self) -> io::Result<bool> {
        drain_counter(self.0.as_fd())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A flag that another thread or process raises.
#[derive(Debug)]
pub struct Flag(OwnedFd);

impl Flag {
    /// Makes a flag that is down.
    pub fn new() -> io::Result<Self> {
        Ok(Self(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Raises it.
    pub fn raise(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lowers it; tells whether it was up.
    pub fn take(&self) -> io::Result<bool> {
        drain_counter(self.0.as_fd())
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn drain_counter(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut count = [0_u8; 8];
    match rustix::io::read(fd, &mut count[..]) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_timers_wake_the_poller() {
        let (poller, flag, timer) =
            (Poller::new().unwrap(), Flag::new().unwrap(), Timer::new().unwrap());
        poller.add(flag.as_fd(), 1, Interest::READ).unwrap();
        poller.add(timer.as_fd(), 2, Interest::READ).unwrap();
        let mut ready = Vec::new();
        poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty());

        flag.raise().unwrap();
        poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(ready.iter().map(|r| (r.token, r.readable)).collect::<Vec<_>>(), [(1, true)]);
        assert!(flag.take().unwrap());
        assert!(!flag.take().unwrap());

        timer.set(Some(Duration::ZERO)).unwrap();
        poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(ready[0].token, 2);
        assert!(timer.take().unwrap());
    }

    #[test]
    fn a_half_closed_socket_is_readable_but_not_closed() {
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let poller = Poller::new().unwrap();
        poller.add(here.as_fd(), 3, Interest::READ).unwrap();
        there.shutdown(std::net::Shutdown::Write).unwrap();
        let mut ready = Vec::new();
        poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
        assert_eq!((ready[0].readable, ready[0].closed), (true, false));
        drop(there);
        poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
        assert!(ready[0].closed);
    }

    #[test]
    fn signals_are_read_in_the_thread_that_blocks_them() {
        let signals = Signals::block(&[libc::SIGUSR2]).unwrap();
        assert_eq!(signals.take().unwrap(), None);
        // SAFETY: sends a signal that is blocked to this very thread.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
        assert_eq!(signals.take().unwrap(), Some(libc::SIGUSR2));
    }
}
