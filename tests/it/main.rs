//! Tests over real sockets, one binary.

mod receipts;
