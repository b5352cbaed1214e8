//! Tolom takes card payments for state services through RabbitMQ.
//!
//! What matters, in order: no payer charged twice, no accepted payment lost, no card data leaked. The rules are pure
//! code in [`payment`]; everything else carries them out. Imports point one way:
//! `payment` <- `contracts` <- `store`, `broker`, `acquirer`, `notify` <- `worker` <- `workers`, `intake` <- `app`, `cli`.

pub mod acquirer;
pub mod app;
pub mod bench;
pub mod bills_csv;
pub mod broker;
pub(crate) mod chain;
pub mod chaos;
pub(crate) mod child;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contracts;
pub mod demo;
pub mod intake;
pub mod live;
pub mod mail_catcher;
pub mod notify;
pub mod payer;
pub mod payment;
pub mod relay;
pub mod sealing;
pub mod services;
pub mod simulator;
pub(crate) mod stage;
pub mod store;
pub mod supervision;
pub mod telemetry;
pub mod verify;
pub mod worker;

/// The workers live in a folder of their own at the top level.
#[path = "../workers/mod.rs"]
pub mod workers;
