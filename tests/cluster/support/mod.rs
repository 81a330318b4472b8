//! What the tests use: one control plane for all of them, and for each a world of its own with a namespace, stand-ins
//! of the providers and processes. A file for each thing.

mod clocks;
mod conditions;
mod control_plane;
mod documents;
mod files;
mod gateways;
mod ledger;
mod plans;
mod process;
mod programs;
mod providers;
mod python;
mod questions;
mod replicas;
mod signups;
mod stripe;
mod tenant;
mod tenant_api;
mod tenants;
mod visitor;
mod wait;
mod world;

pub use clocks::{day_comes, forward};
pub use conditions::{reason, shows};
pub use control_plane::{control_plane, kubectl};
pub use documents::{document_titles, found, report, upload};
pub use files::{ROOT, files, folder, target};
pub use gateways::{Gateway, Service, got};
pub use plans::{Size, create_plan, create_plan_with_samples, plan_of_size, plan_with};
pub use process::{BINARY, Process, free_port, must, said, signal};
pub use providers::{WEBHOOK_SECRET, providers};
pub use python::python;
pub use questions::{Questions, status_of_question};
pub use replicas::{Ready, Replicas};
pub use signups::{name, sign_up, signed_up, signup_form, text};
pub use stripe::{answer_dispute, billed, disputes, paid, portal, stripe, stripe_objects, stripe_state};
pub use tenant::tenant;
pub use tenant_api::{Client, Lab, begin};
pub use tenant_operator::cli::install_crypto;
pub use tenants::{backup, closed, desire, document_limit, plan_change, wish};
pub use visitor::{PASSWORD, Visitor};
pub use wait::LIMIT;
pub use world::World;
