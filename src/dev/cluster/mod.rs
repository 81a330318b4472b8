//! A private control plane: a real etcd and kube-apiserver on loopback.

mod binaries;
mod start;

pub use binaries::{Binaries, BinariesError};
pub use start::{Cluster, ClusterOptions};
