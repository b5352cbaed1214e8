//! The limits against guessed codes and stolen cards, against the real thing.

mod cards;
mod codes;
