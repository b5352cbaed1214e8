//! The integration tests, one binary: against a real PostgreSQL and a real RabbitMQ, always.

mod acquirer;
mod contracts;
mod ops;
mod receipts;
mod services;
