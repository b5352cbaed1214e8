//! What the tests stand on: real servers, found or started once a process, and a world of its own for each test.

pub mod database;
pub mod services;
