//! What the tests stand on: real servers, found or started once a process, and a world of its own for each test.

pub(crate) mod database;
pub(crate) mod raw_amqp;
pub(crate) mod services;
pub(crate) mod world;
