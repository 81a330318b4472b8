//! Optimistic changes of Kubernetes objects: a change is computed from an object as it was read, and written only if no
//! other writer changed the object since.
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::problem::Problem;

/// Writes that are tried while other writers change the same object.
const TRIES: u32 = 5;

/// Patches an object as it was read. The API server answers 409 Conflict where another writer has changed the object,
/// or another object has its name now.
pub async fn patch<K>(api: &Api<K>, read: &K, manager: &str, mut change: Value) -> Result<K, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    change["metadata"]["uid"] = json!(read.uid());
    change["metadata"]["resourceVersion"] = json!(read.resource_version());
    let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
    api.patch(&read.name_any(), &params, &Patch::Merge(change)).await
}

/// Changes an object as it is at this moment: `change` answers the patch for what it sees, and sees the object again
/// where another writer changed it meanwhile. None where `change` leaves the object as it is.
pub async fn change<K, E>(
    api: &Api<K>,
    read: &K,
    manager: &str,
    change: impl Fn(&K) -> Result<Option<Value>, E>,
) -> Result<Option<K>, E>
where
    K: Resource + Clone + Debug + DeserializeOwned,
    E: From<Problem>,
{
    let mut read = read.clone();
    for _ in 0..TRIES {
        let Some(wanted) = change(&read)? else { return Ok(None) };
        match patch(api, &read, manager, wanted).await {
            Err(kube::Error::Api(e)) if e.code == 409 => {
                let there = api.get_opt(&read.name_any()).await.map_err(Problem::from)?;
                // Another object of the same name is not the one to change.
                read = there.filter(|there| there.uid() == read.uid()).ok_or_else(Problem::not_found)?;
            }
            patched => return Ok(Some(patched.map_err(Problem::from)?)),
        }
    }
    Err(Problem::unavailable().into())
}
