//! Creates the login of a customer who has no password yet.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use crate::api::{COMPONENT_LABEL, LOGIN_COMPONENT, PASSWORD_HASH, TENANT_LABEL, login_secret};

/// In place of a password's hash: no password fits it. A new one can be set by e-mail.
const NO_PASSWORD: &[u8] = b"!";

/// Makes the Secret of a Tenant's login, unless it is there.
pub async fn make(secrets: &Api<Secret>, name: &str) -> Result<(), kube::Error> {
    let labels = [(TENANT_LABEL, name), (COMPONENT_LABEL, LOGIN_COMPONENT)];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(login_secret(name)),
            labels: Some(labels.map(|(key, value)| (key.into(), value.into())).into()),
            ..ObjectMeta::default()
        },
        data: Some([(PASSWORD_HASH.to_owned(), ByteString(NO_PASSWORD.to_vec()))].into()),
        ..Secret::default()
    };
    match secrets.create(&PostParams::default(), &secret).await {
        Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
        made => made.map(drop),
    }
}
