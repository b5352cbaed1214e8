//! The integration tests, one binary: against a real PostgreSQL and a real RabbitMQ, always.

mod acquirer;
mod architecture;
mod bench;
mod broker;
mod contracts;
mod demo;
mod intake;
mod ops;
mod pipeline;
mod processes;
mod races;
mod receipts;
mod services;
mod simulation;
mod support;
