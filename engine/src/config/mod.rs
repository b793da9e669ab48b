//! Configuration: gathered from the environment and files, checked as a whole, handed on as plain data.
//!
//! | part | what it is |
//! |---|---|
//! | [`variables`] | the one list of settings |
//! | [`rule`] | the forms a value may have |
//! | [`sources`] | reading the environment, `.env` and `config/*.toml` |
//! | [`layers`] | which of them has the last word |
//! | [`load`] | typed settings and the rules between them |
//! | [`settings`] | the result |
//! | [`features`] | what can be switched on and what this version does of it |
//! | [`problem`], [`show`] | telling people, without their secrets |
//!
//! Later wins: built-in defaults, `config/default.toml`, `config/{RUN_MODE}.toml`, `.env`, the environment. A blank value
//! says nothing. The process environment is only ever read.
pub mod features;
mod glob;
pub mod layers;
pub mod load;
pub mod problem;
pub mod rule;
pub mod settings;
pub mod show;
pub mod sources;
pub mod variables;

pub use load::Loaded;
pub use problem::{Problem, Secret, Warning};
pub use settings::Settings;
pub use sources::{SourceFile, Sources};
