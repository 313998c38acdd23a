//! Namespaces, see `namespaces(7)`.
