//! The operator's own keys: made once, kept in Secrets of its namespace, never rotated by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::api::{PROOF_ANNOTATION, Place, Tenant};
use crate::ledger::LedgerKey;

/// Hashes e-mail addresses and makes status tokens; read by the controller and by web.
pub const IDENTITY_SECRET: &str = "tenant-operator-identity";
/// Signs API keys; read by the controller alone.
pub const SIGNING_SECRET: &str = "tenant-operator-signing";
/// Shown to the ledger by those who call it, and mounted by its pod; read by the controller and by web.
pub const LEDGER_SECRET: &str = "tenant-operator-ledger";
const FIELD: &str = "key";
/// How long web waits for the controller's first start: less than its liveness probe.
const WAIT: Duration = Duration::from_secs(45);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A key of 32 bytes from a Secret, if there is one.
async fn read(client: &Client, namespace: &str, name: &str) -> Result<Option<[u8; 32]>, kube::Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let Some(secret) = api.get_opt(name).await? else { return Ok(None) };
    let bytes = secret.data.as_ref().and_then(|d| d.get(FIELD)).map(|b| b.0.as_slice());
    bytes.and_then(|b| b.try_into().ok()).map(Some).ok_or_else(|| {
        kube::Error::Service(format!("Secret {namespace}/{name} must hold 32 bytes under {FIELD:?}").into())
    })
}

/// That key, once there is one. None when there is still none after a while.
async fn wait(client: &Client, namespace: &str, name: &str) -> Result<Option<[u8; 32]>, kube::Error> {
    let start = tokio::time::Instant::now();
    loop {
        let key = read(client, namespace, name).await?;
        if key.is_some() || start.elapsed() > WAIT {
            return Ok(key);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// That key, made if it is not there. Two who make it at the same moment get the same one.
async fn key(client: &Client, namespace: &str, name: &str) -> Result<[u8; 32], kube::Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    loop {
        if let Some(key) = read(client, namespace, name).await? {
            return Ok(key);
        }
        let secret = Secret {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(FIELD.into(), ByteString(rand::random::<[u8; 32]>().to_vec()))])),
            ..Secret::default()
        };
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => {}
            Err(kube::Error::Api(e)) if e.code == 409 => {}
            Err(e) => return Err(e),
        }
    }
}

/// The key that signs API keys.
pub async fn signing_key(client: &Client, namespace: &str) -> Result<SigningKey, kube::Error> {
    Ok(SigningKey::from_bytes(&key(client, namespace, SIGNING_SECRET).await?))
}

/// The key that is shown to the ledger, made if it is not there.
pub async fn ledger_key(client: &Client, namespace: &str) -> Result<LedgerKey, kube::Error> {
    Ok(key(client, namespace, LEDGER_SECRET).await?.into())
}

/// The same, if it is there.
pub async fn read_ledger_key(client: &Client, namespace: &str) -> Result<Option<LedgerKey>, kube::Error> {
    Ok(read(client, namespace, LEDGER_SECRET).await?.map(LedgerKey::from))
}

/// The same, once the controller has made it: web may create no Secret beside it. None when there is still none after a
/// while.
pub async fn wait_for_ledger_key(client: &Client, namespace: &str) -> Result<Option<LedgerKey>, kube::Error> {
    Ok(wait(client, namespace, LEDGER_SECRET).await?.map(LedgerKey::from))
}

/// The `ConfigMap` with the public half of the signing key, which verifies API keys: a JSON Web Key Set (RFC 7517, RFC
/// 8037).
pub const VERIFYING_KEY: &str = "tenant-operator-api-keys";
const KEY_SET: &str = "jwks.json";

/// Publishes the public half of the signing key.
pub async fn publish_verifying_key(client: &Client, namespace: &str, key: &VerifyingKey) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "x": BASE64.encode(key.as_bytes())}]});
    let data = Some(BTreeMap::from([(KEY_SET.to_owned(), set.to_string())]));
    let metadata = ObjectMeta { name: Some(VERIFYING_KEY.into()), ..ObjectMeta::default() };
    let map = ConfigMap { metadata, data: data.clone(), ..ConfigMap::default() };
    match api.create(&PostParams::default(), &map).await {
        Err(kube::Error::Api(e)) if e.code == 409 => {
            let change = Patch::Merge(json!({"data": data}));
            api.patch(VERIFYING_KEY, &PatchParams::default(), &change).await.map(drop)
        }
        made => made.map(drop),
    }
}

/// The public key of API keys, with the key set that publishes it.
#[derive(Clone, Debug)]
pub struct PublishedKey {
    /// The key.
    pub key: VerifyingKey,
    /// The set, as JSON Web Keys (RFC 7517).
    pub set: Value,
}

impl PublishedKey {
    fn of(set: Value) -> Option<Self> {
        let bytes = set["keys"][0]["x"].as_str().and_then(|x| BASE64.decode(x).ok())?;
        Some(Self { key: VerifyingKey::try_from(bytes.as_slice()).ok()?, set })
    }
}

/// Reads the published key. None before a controller has run.
pub async fn verifying_key(client: &Client, namespace: &str) -> Result<Option<PublishedKey>, kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let text = api.get_opt(VERIFYING_KEY).await?.and_then(|map| map.data).and_then(|mut data| data.remove(KEY_SET));
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).and_then(PublishedKey::of))
}

/// Hashes addresses and makes tokens.
#[derive(Clone)]
pub struct IdentityKey([u8; 32]);

impl From<[u8; 32]> for IdentityKey {
    fn from(key: [u8; 32]) -> Self {
        Self(key)
    }
}

impl IdentityKey {
    /// Reads or makes the key.
    pub async fn load(client: &Client, namespace: &str) -> Result<Self, kube::Error> {
        Ok(key(client, namespace, IDENTITY_SECRET).await?.into())
    }

    /// Reads the key, and waits a while for the controller to make it: web may create no Secret beside it. None when
    /// there is still none.
    pub async fn wait(client: &Client, namespace: &str) -> Result<Option<Self>, kube::Error> {
        Ok(wait(client, namespace, IDENTITY_SECRET).await?.map(Self))
    }

    /// Reads the key. None if there is none yet.
    pub async fn read(client: &Client, namespace: &str) -> Result<Option<Self>, kube::Error> {
        Ok(read(client, namespace, IDENTITY_SECRET).await?.map(Self))
    }

    fn mac(&self, purpose: &str, text: &str) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length (RFC 2104)");
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }

    /// The keyed hash of an e-mail address, the same for every way to write it: fits a label and an object's name.
    pub fn email_hash(&self, email: &str) -> String {
        hex::encode(&self.mac("email", &crate::email::normalize(email))[..20])
    }

    /// Proof that this operator issued the tenant id to this namespace and name.
    pub fn identity_proof(&self, tenant_id: &str, place: Place<'_>) -> String {
        self.seal("identity", &[tenant_id, place.namespace, place.name])
    }

    /// Whether the Tenant carries that proof.
    pub fn has_proof(&self, tenant: &Tenant) -> bool {
        let place = tenant.place();
        let there = tenant.metadata.annotations.as_ref().and_then(|a| a.get(PROOF_ANNOTATION));
        there.is_some_and(|proof| self.is_sealed("identity", &[tenant.tenant_id(), place.namespace, place.name], proof))
    }

    /// Proof that we made these parts for this purpose. No part may hold a NUL.
    pub fn seal(&self, purpose: &str, parts: &[&str]) -> String {
        BASE64.encode(self.mac(purpose, &parts.join("\0")))
    }

    /// Whether it is that proof.
    pub fn is_sealed(&self, purpose: &str, parts: &[&str], seal: &str) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.seal(purpose, parts).as_bytes(), seal.as_bytes()).into()
    }
}
