//! A Kubernetes operator that manages the customers of a multi-tenant RAG service. `docs/architecture.md` tells how
//! the parts fit together.

pub mod api;
pub mod lifecycle;
