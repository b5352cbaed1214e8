//! Integration tests: real sockets, real servers, one binary.

mod acquirer;
