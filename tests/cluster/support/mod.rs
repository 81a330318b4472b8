//! One control plane for all tests; a namespace, a sandbox and processes of its own for each. A file for each thing that a
//! test needs.

mod control_plane;
mod files;
mod plans;
mod process;
mod programs;
mod providers;
mod tenants;
mod wait;
mod world;

pub use control_plane::control_plane;
pub use files::{ROOT, folder};
pub use plans::{Size, plan_of_size};
pub use process::{BINARY, Process, free_port, said, signal};
pub use providers::{WEBHOOK_SECRET, providers};
pub use tenant_operator::cli::install_crypto;
pub use tenants::tenant;
pub use wait::LIMIT;
pub use world::World;
