//! `tenant-operator dev`: the embedded default.
pub mod cluster;
