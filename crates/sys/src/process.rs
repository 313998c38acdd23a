//! Processes: `clone3(2)`, pidfds, waiting, executing.
