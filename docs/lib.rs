//! Nothing but a place where the snippets of the README compile.
#![doc = include_str!("../README.md")]
