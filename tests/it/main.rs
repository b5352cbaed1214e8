//! Integration tests: real PostgreSQL, real sockets. One binary, for it links once.

mod intake;
mod support;
