//! Device access programs for cgroup v2.
