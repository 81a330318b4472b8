//! Where the documents of a tenant are.

use crate::api::plan::Models;
use crate::providers::vector_store::VectorStore;
use crate::rag::Documents;
use crate::web::App;
use crate::web::serving::directory::Served;
use crate::web::serving::problem::Problem;

/// Where a tenant's documents are, and what they are stored with.
pub(super) struct Shelf<'a> {
    app: &'a App,
    tenant: &'a Served,
    index: &'a dyn VectorStore,
    models: Models,
}

impl<'a> Shelf<'a> {
    /// The shelf of a tenant.
    pub(super) async fn of(app: &'a App, tenant: &'a Served) -> Result<Self, Problem> {
        Ok(Self { app, tenant, index: app.index(tenant).await?, models: tenant.models() })
    }

    /// Its documents.
    pub(super) fn documents(&self) -> Documents<'_> {
        let Self { app, tenant, index, models } = self;
        Documents { index: *index, embedder: &*app.embedder, namespace: &tenant.data, models }
    }
}
