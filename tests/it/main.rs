//! The integration tests, one binary: against a real PostgreSQL and a real RabbitMQ, always.

mod acquirer;
mod alone;
mod architecture;
mod bench;
mod broker;
mod canary;
mod chaos;
mod contracts;
mod dead;
mod demo;
mod foreign_bytes;
mod intake;
mod ladder;
mod limits;
mod notices;
mod ops;
mod pipeline;
mod processes;
mod races;
mod receipts;
mod services;
mod simulation;
mod supervision;
mod support;
mod verify;
