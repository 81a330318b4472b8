//! The Plans that are for sale, as the pages and the API offer them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::ListParams;
use tokio::sync::Mutex;

use super::problem::Problem;
use crate::api::Plan;
use crate::web::App;

/// How long the Plans are shown as they were read.
const SHOWN_FOR: Duration = Duration::from_secs(2);
/// How long Kubernetes may take to tell them.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The Plans as they were read last: one reads them for all who look at the same moment.
#[derive(Default)]
pub struct Offers(Mutex<Option<(Instant, Arc<Vec<Plan>>)>>);

/// The Plans, by price. One without a price at Stripe is sold by people.
pub async fn for_sale(app: &App) -> Result<Arc<Vec<Plan>>, Problem> {
    let mut offers = app.offers.0.lock().await;
    if let Some((_, plans)) = offers.as_ref().filter(|(at, _)| at.elapsed() < SHOWN_FOR) {
        return Ok(plans.clone());
    }
    let api = Api::<Plan>::all(app.client.clone());
    let params = ListParams::default().limit(100);
    let listed = tokio::time::timeout(READ_LIMIT, api.list(&params)).await;
    let mut plans = listed.map_err(|_| Problem::unavailable())??.items;
    plans.retain(|plan| plan.metadata.deletion_timestamp.is_none());
    plans.sort_by_key(|plan| plan.spec.monthly_price.amount);
    let plans = Arc::new(plans);
    *offers = Some((Instant::now(), plans.clone()));
    Ok(plans)
}
