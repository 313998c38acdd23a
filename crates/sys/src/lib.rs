//! Safe wrappers of Linux kernel interfaces. The only crate with `unsafe`; no policy.
#![expect(unsafe_code, reason = "this crate exists to keep unsafe code in one place")]

pub mod bpf;
pub mod capability;
pub mod cgroup;
pub mod feed;
pub mod fork;
pub mod lsm;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod nft;
pub mod path;
pub mod pidfd;
pub mod poll;
pub mod process;
pub mod pty;
pub mod quota;
pub mod resctrl;
pub mod rlimit;
pub mod seccomp;
pub mod seqpacket;
pub mod userns;
pub mod xattr;
