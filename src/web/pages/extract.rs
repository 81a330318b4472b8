//! Extractors of the pages: the customer who is logged in, and the form that a page sent. A handler that takes one runs
//! only where the check has passed.

use std::sync::Arc;

use axum::Form;
use axum::body::Bytes;
use axum::extract::rejection::FormRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::PageError;
use crate::api::Tenant;
use crate::web::App;
use crate::web::serving::directory::Served;

/// A form that a page of ours showed to this visitor: its field `csrf` holds the visitor's token.
pub struct CsrfForm<T>(pub T);

/// A form that is one button, with no field but the token.
#[derive(Deserialize)]
pub struct Button {}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for CsrfForm<T> {
    type Rejection = PageError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, PageError> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts.clone(), body);
        let body = Bytes::from_request(request, app).await.map_err(FormRejection::from)?;
        let headers = parts.headers.clone();
        let request = Request::from_parts(parts, body.clone().into());
        let Form(form) = Form::from_request(request, app).await?;
        let token = url::form_urlencoded::parse(&body).find(|(name, _)| name == "csrf");
        app.check_form(&headers, &token.map(|(_, value)| value).unwrap_or_default())?;
        Ok(Self(form))
    }
}

/// The customer who is logged in. A browser without a session is sent to the log-in page.
pub struct Customer(pub Tenant);

impl Customer {
    async fn of(app: &App, headers: &HeaderMap) -> Result<Self, PageError> {
        app.by_session(headers).await?.map(Self).ok_or(PageError::Go("/login"))
    }
}

impl FromRequestParts<Arc<App>> for Customer {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, PageError> {
        Self::of(app, &parts.headers).await
    }
}

/// The customer who is logged in and whose account can be used. Others are sent to the account's page, which says what
/// is missing.
pub struct ActiveCustomer {
    pub tenant: Tenant,
    pub served: Arc<Served>,
}

impl ActiveCustomer {
    /// The customer of a request whose body was read by the handler.
    pub async fn of(app: &App, headers: &HeaderMap) -> Result<Self, PageError> {
        let Customer(tenant) = Customer::of(app, headers).await?;
        let served = app.served(&tenant).ok_or(PageError::Go("/account"))?;
        Ok(Self { tenant, served: Arc::new(served) })
    }
}

impl FromRequestParts<Arc<App>> for ActiveCustomer {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, PageError> {
        Self::of(app, &parts.headers).await
    }
}
