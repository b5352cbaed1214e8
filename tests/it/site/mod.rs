//! The payer's site over HTTP: what its pages say, how they are kept safe, and what they weigh.

mod bank;
mod documents;
mod look;
mod pages;
mod safety;
mod scripts;
mod streams;
mod weight;
