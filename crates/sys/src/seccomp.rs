//! Seccomp filters compiled to BPF.
