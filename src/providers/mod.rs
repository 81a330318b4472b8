//! Plain clients of the providers' real wire protocols. Every base URL can be set.

pub mod alerts;
pub mod biller;
pub mod breaker;
pub mod captcha;
mod chat_answer;
pub mod dns;
mod error;
pub mod gate;
pub mod http;
pub mod indexes;
pub mod mail;
pub mod models;
pub mod openai;
pub mod pinecone;
pub mod priority;
pub mod rate;
mod retry_after;
pub mod stripe;
pub mod vector_store;

pub use error::ProviderError;
pub use http::{CallLimits, Caller};
pub use priority::{Party, Priority};
