//! The integration tests, one binary: against a real PostgreSQL and a real RabbitMQ, always.

mod ops;
mod services;
//! Tests over real sockets, one binary.

mod receipts;
//! Integration tests: real sockets, real servers, one binary.

mod acquirer;
