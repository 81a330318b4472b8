//! Bodies and names, as far as they make sense.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answers::Problem;
use crate::ledger::account::Period;

/// The longest name of an operation or a tenant.
const LONGEST: usize = 128;

/// A body of JSON. An error says what is wrong with it.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Json(body) = Json::<T>::from_request(request, state)
            .await
            .map_err(|rejection: JsonRejection| Problem::Malformed(rejection.body_text()))?;
        Ok(Self(body))
    }
}

/// The name in a path: of an operation or of a tenant.
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::Malformed(rejection.body_text()))?;
        name_of(name).map(Self).map_err(Problem::Malformed)
    }
}

/// A name, if it is one.
pub fn name_of(name: String) -> Result<String, String> {
    if (1..=LONGEST).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(name)
    } else {
        Err(format!("a name has 1 to {LONGEST} visible ASCII characters and no space"))
    }
}

/// A tenant's id in a body.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct TenantId(pub String);

impl TryFrom<String> for TenantId {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name_of(name).map(Self).map_err(|why| format!("tenant: {why}"))
    }
}

/// A period in a body: it begins after 1970 and ends after it began.
#[derive(Deserialize)]
#[serde(try_from = "Period")]
pub struct SomePeriod(pub Period);

impl TryFrom<Period> for SomePeriod {
    type Error = String;

    fn try_from(period: Period) -> Result<Self, String> {
        if period.start.as_second() > 0 && period.end > period.start {
            Ok(Self(period))
        } else {
            Err(format!("period: {} to {} is no period: it must end after it begins", period.start, period.end))
        }
    }
}
