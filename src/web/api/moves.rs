//! Uploads and deletions while a tenant's data moves to another namespace: what was done in the old one is done in the
//! new one as well. The controller copies until nothing changes any more, and only then switches; what comes later is
//! for here.

use std::time::{Duration, Instant};

use crate::providers::vector_store::VectorStore;
use crate::rag::{Document, Documents, Reembed, ReembedError};
use crate::web::App;
use crate::web::serving::directory::Served;
use crate::web::serving::problem::Problem;

/// How long an upload waits for a switch.
const LONGEST_SWITCH: Duration = Duration::from_mins(1);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);

impl From<ReembedError> for Problem {
    fn from(error: ReembedError) -> Self {
        match error {
            ReembedError::Provider(error) => error.into(),
            other @ (ReembedError::NoText(_)
            | ReembedError::SourceEmpty(_)
            | ReembedError::TargetAhead { .. }
            | ReembedError::Stopped) => Self::internal("a copy", &other),
        }
    }
}

impl App {
    /// The index that a tenant's data is in, ready to be asked.
    pub async fn index(&self, tenant: &Served) -> Result<&dyn VectorStore, Problem> {
        let index = self.indexes.of(tenant.region.as_deref())?;
        index.prepare().await?;
        Ok(index)
    }

    /// The tenant as the API server tells it now, which this replica may not know yet. As it was where its object is
    /// gone.
    async fn fresh(&self, tenant: &Served) -> Result<Served, Problem> {
        let object = self.object_of(tenant).await?;
        Ok(object.and_then(|object| Served::of(&object, &self.identity)).unwrap_or_else(|| tenant.clone()))
    }

    /// Waits for a switch that is under way. The tenant after it, where its data is elsewhere then.
    async fn switched(&self, tenant: &Served) -> Result<Option<Served>, Problem> {
        let start = Instant::now();
        loop {
            let now = self.fresh(tenant).await?;
            if now.data != tenant.data {
                return Ok(Some(now));
            }
            if !now.moving.is_some_and(|moving| moving.switching) {
                return Ok(None);
            }
            if start.elapsed() > LONGEST_SWITCH {
                tracing::warn!(tenant = tenant.name, "an upload waited too long for the data to move");
                return Err(Problem::unavailable());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A document that was stored in the old namespace is to be in the new one, too. Stored before a switch began, the
    /// controller finds it.
    pub async fn carry(&self, tenant: &Served, document: &Document) -> Result<(), Problem> {
        let Some(now) = self.switched(tenant).await? else { return Ok(()) };
        let models = now.models();
        let on_batch = |_| true;
        let reembed = Reembed {
            embedder: &*self.embedder,
            from: (self.index(tenant).await?, &tenant.data),
            to: (self.index(&now).await?, &now.data),
            model: &models.embedding,
            on_batch: &on_batch,
        };
        Ok(reembed.document(document).await?)
    }

    /// A document that was deleted in one namespace is not to stay in another.
    pub async fn delete_elsewhere(&self, tenant: &Served, document: &Document) -> Result<(), Problem> {
        let now = self.fresh(tenant).await?;
        let models = now.models();
        let moving = now.moving.as_ref().map(|moving| (&moving.to, &moving.region));
        for (namespace, region) in [Some((&now.data, &now.region)), moving].into_iter().flatten() {
            if *namespace != tenant.data {
                let index = self.indexes.of(region.as_deref())?;
                index.prepare().await?;
                let documents = Documents { index, embedder: &*self.embedder, namespace, models: &models };
                documents.delete(document).await?;
            }
        }
        Ok(())
    }
}
