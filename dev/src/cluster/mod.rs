//! A private control plane: a real etcd and kube-apiserver on loopback.

mod binaries;
mod start;

pub use binaries::{Binaries, BinariesError, cache_folder, linker_flags};
pub use start::{Cluster, ClusterOptions};
