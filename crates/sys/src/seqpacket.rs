//! Sequenced packets with descriptors over unix sockets.
