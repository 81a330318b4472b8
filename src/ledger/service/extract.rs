//! Bodies, names and parameters of requests, as far as they make sense.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::answers::ServiceProblem;
use crate::ledger::wire::name_of;

/// A body of JSON. An error says what is wrong with it.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ServiceProblem;

    async fn from_request(request: Request, state: &S) -> Result<Self, ServiceProblem> {
        let Json(body) = Json::<T>::from_request(request, state)
            .await
            .map_err(|rejection: JsonRejection| ServiceProblem::Malformed(rejection.body_text()))?;
        Ok(Self(body))
    }
}

/// The name in a path: of an operation or of a tenant.
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ServiceProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceProblem> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ServiceProblem::Malformed(rejection.body_text()))?;
        name_of(name).map(Self).map_err(ServiceProblem::Malformed)
    }
}

/// The two names in a path: of a tenant, and of something that it has.
pub struct Names(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = ServiceProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceProblem> {
        let Path((first, second)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ServiceProblem::Malformed(rejection.body_text()))?;
        let named = |name| name_of(name).map_err(ServiceProblem::Malformed);
        Ok(Self(named(first)?, named(second)?))
    }
}

/// What a request asks for behind its path. An error says what is wrong with it.
pub struct Parameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = ServiceProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ServiceProblem> {
        let Query(parameters) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ServiceProblem::Malformed(rejection.body_text()))?;
        Ok(Self(parameters))
    }
}
