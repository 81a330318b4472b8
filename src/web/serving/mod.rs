//! What all requests have in common: connections and bodies, who may call how often, tokens, the Tenants and Plans as
//! web knows them, and errors.

pub mod arrivals;
pub mod bodies;
pub mod changes;
pub mod cookies;
pub mod deadline;
pub mod directory;
pub mod extract;
pub mod guards;
pub mod headers;
pub mod limits;
pub mod linger;
pub mod names;
pub mod offers;
pub mod optimistic;
pub mod places;
pub mod problem;
pub mod readiness;
pub mod request_ids;
pub mod shares;
pub mod standing;
pub mod tokens;
pub mod trust;
pub mod turns;
