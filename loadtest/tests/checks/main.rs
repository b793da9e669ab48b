//! The generator against servers that keep their promises, and against servers that break one each.
mod notices;
mod replay;
mod standin;
