//! Links in e-mails: made by the controller, opened by web. Both hold the operator's identity key, so nothing is
//! stored.
//!
//! A link says which Tenant it is for, which address it was sent to and when it was asked for, sealed for its purpose.

use crate::api::{EMAIL_LABEL, LinkKind, MailRequest, Tenant, Timestamp};
use crate::operator_keys::IdentityKey;

/// The least time between two e-mails of one kind to one customer, in seconds, so that a stranger cannot fill the
/// mailbox.
pub const SPACING: i64 = 120;

/// What a link opens, once its seal is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedLink {
    /// The Tenant's name.
    pub name: String,
    /// Its uid: another Tenant may have the same name later.
    pub uid: String,
    /// The hash of the address that it was sent to.
    pub address: String,
    /// Which request it answers.
    pub request: MailRequest,
}

impl OpenedLink {
    /// Whether it is for this object and its present address.
    pub fn is_for(&self, tenant: &Tenant) -> bool {
        let label = tenant.metadata.labels.as_ref().and_then(|labels| labels.get(EMAIL_LABEL));
        tenant.metadata.uid.as_ref() == Some(&self.uid) && label == Some(&self.address)
    }
}

fn owner(tenant: &Tenant) -> (&str, &str) {
    (tenant.place().name, tenant.metadata.uid.as_deref().unwrap_or_default())
}

impl IdentityKey {
    /// The path of a link, with what proves it.
    pub fn link(&self, tenant: &Tenant, request: MailRequest) -> String {
        let (name, uid) = owner(tenant);
        let (address, at) = (self.email_hash(&tenant.spec.admin_email), request.at.as_second().to_string());
        let seal = self.seal(request.kind.name(), &[name, uid, &address, &at]);
        format!("{}?token={name}.{uid}.{address}.{at}.{seal}", request.kind.page())
    }

    /// What a token of this kind opens. None for a token that we never made. Does not check whether it has expired.
    pub fn open_link(&self, kind: LinkKind, token: &str) -> Option<OpenedLink> {
        let [name, uid, address, at, seal] = parts(token)?;
        if !self.is_sealed(kind.name(), &[name, uid, address, at], seal) {
            return None;
        }
        let at = Timestamp::from_second(at.parse().ok()?);
        let [name, uid, address] = [name, uid, address].map(str::to_owned);
        Some(OpenedLink { name, uid, address, request: MailRequest { kind, at } })
    }

    /// The path by which a customer ends e-mails that the service does not need. It never expires.
    pub fn unsubscribe_link(&self, tenant: &Tenant) -> String {
        let (name, uid) = owner(tenant);
        format!("/unsubscribe?token={name}.{uid}.{}", self.seal("unsubscribe", &[name, uid]))
    }

    /// Name and uid of the Tenant whose customer a token unsubscribes.
    pub fn open_unsubscribe_link<'t>(&self, token: &'t str) -> Option<(&'t str, &'t str)> {
        let [name, uid, seal] = parts(token)?;
        self.is_sealed("unsubscribe", &[name, uid], seal).then_some((name, uid))
    }
}

/// The parts of a token. Only the first, an object's name, may hold dots.
pub fn parts<const N: usize>(token: &str) -> Option<[&str; N]> {
    let mut parts: Vec<&str> = token.rsplitn(N, '.').collect();
    parts.reverse();
    parts.try_into().ok()
}
