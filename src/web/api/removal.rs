//! The deletion of a tenant's document, and how often it may follow soon on the upload.

use std::sync::Arc;
use std::time::Duration;

use super::shelf::Shelf;
use crate::providers::Party;
use crate::rag::Document;
use crate::web::App;
use crate::web::serving::directory::Served;
use crate::web::serving::problem::Problem;

/// Seconds after its upload within which the deletion of a document is early.
const EARLY: i64 = 24 * 3600;

/// Why a document is deleted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The customer asks for it.
    Asked,
    /// Another document has taken its place, and was stored only where the tenant may delete one.
    Replaced,
}

/// Whether a tenant may delete a document soon after its upload. What is uploaded and deleted gives its place in the
/// plan back, and what the ledger wrote of it stays.
pub fn allowed(app: &App, tenant: &Served) -> Result<(), Problem> {
    app.early_deletions.check(&tenant.uid).map_err(too_many)
}

fn too_many(wait: Duration) -> Problem {
    Problem::too_many_of("Too many documents were deleted within a day of their upload.", wait)
}

/// Deletes a document. Returns false if there is none. It runs to its end even if the client hangs up: otherwise the
/// ledger could go on counting a document that is deleted.
pub async fn remove(app: &Arc<App>, tenant: &Served, id: &str, why: Removal) -> Result<bool, Problem> {
    let (owned, tenant, id) = (app.clone(), tenant.clone(), id.to_owned());
    let removed = async move {
        let removed = Party::scope(&tenant.uid, async {
            // Of two deletions of the same document, the second one finds none, and counts nothing.
            let _turn = owned.storing.take(&format!("{}/{id}", tenant.uid)).await;
            remove_one(&owned, &tenant, &id, why).await
        });
        removed.await
    };
    app.metering.to_its_end(removed).await.map_err(|e| Problem::internal("a deletion", &e))?
}

async fn remove_one(app: &App, tenant: &Served, id: &str, why: Removal) -> Result<bool, Problem> {
    let shelf = Shelf::of(app, tenant).await?;
    let documents = shelf.documents();
    let Some(document) = documents.get(id, app.now()).await? else { return Ok(false) };
    let early = is_early(app, &document);
    if early && why == Removal::Asked {
        allowed(app, tenant)?;
    }
    // Web first makes sure that it can report the deletion to the ledger. If it deleted the document without that, the
    // ledger would go on counting it against the plan.
    app.metering.can_forget(tenant, app.now()).await?;
    documents.delete(&document).await?;
    if early {
        app.early_deletions.note(&tenant.uid);
    }
    let elsewhere = app.delete_elsewhere(tenant, &document).await;
    app.metering.forget(tenant, &document, app.now()).await?;
    elsewhere.map(|()| true)
}

fn is_early(app: &App, document: &Document) -> bool {
    app.now().since(document.uploaded_at) < EARLY
}
