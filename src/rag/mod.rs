//! Documents in, answers out, for one tenant's own namespace.
//!
//! A document is cut into passages. Each is a vector in the tenant's namespace of the vector store; the first one, the
//! head, also holds what is known of the document, so that no other database is needed: heads are found by the prefix
//! of their ids. A document's id follows from its content, so the same content is stored once.

mod answer;
mod documents;
mod extract;
mod passages;
mod probe;
mod reembed;
mod text;

pub use answer::{Answer, Asked, Basis, Chunk, Found, Source, expected};
pub use documents::{
    COUNTED_AT, Document, Documents, Page, State, UPLOAD, document_id, heads_of, is_passage, is_passage_of, page,
    passage_id,
};
pub use extract::{Extract, ExtractError, Kind, extract, print_passages};
pub use probe::embedding_of;
pub use reembed::{Pass, Reembed, ReembedError};
