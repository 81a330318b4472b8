//! The parts of a Tenant object that decisions rest on.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::Notice;
use crate::api::status::Erasure;
use crate::api::{
    self, ACCEPT_DISPUTE_ANNOTATION, CHOOSE_DATA_ANNOTATION, CONFIRM_ANNOTATION, EMAIL_LABEL, ERASED_ANNOTATION,
    FINALIZER, FORCE_DELETE_ANNOTATION, KEEP_DATA_ANNOTATION, LEGAL_HOLD_ANNOTATION, MAIL_REQUESTS_ANNOTATION,
    MailRequest, PAYMENT_LINK_ANNOTATION, RETRY_ANNOTATION, SENT_ANNOTATION, SIGNUP_ANNOTATION, Tenant, TenantSpec,
    TenantStatus, Timestamp, UNSUBSCRIBED_ANNOTATION, Usage, VERIFIED_ANNOTATION, WAIVE_REFUND_ANNOTATION,
    mail_requests, reached_annotation,
};

/// What only the holder of the operator's keys, or of the cache of all Tenants, can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Whether the object carries proof that this operator issued its tenant id to its namespace and name.
    pub proof: bool,
    /// Whether the label with the hash of the e-mail address is that of the present address.
    pub labelled: bool,
    /// The first other objects that claim the same tenant id, as `namespace/name`.
    pub rivals: Vec<String>,
    /// How many claim it beside those.
    pub more_rivals: usize,
    /// Whether one of them has the better claim.
    pub outranked: bool,
}

/// Whose the tenant id in the spec is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// There is none yet.
    Unassigned,
    /// This object's: its own uid, or issued to it by this operator.
    Rightful,
    /// Another object's, or without a valid proof.
    Unproven,
    /// It was issued to this object, and to another one that has the better claim.
    Outranked,
}

/// A Tenant, as far as decisions rest on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's uid.
    pub uid: String,
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// When the object was made.
    pub created_at: Timestamp,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// What was checked with the operator's keys.
    pub credentials: Credentials,
    /// The value of the retry annotation.
    pub retry_token: Option<String>,
    /// Whether a deletion may leave things behind.
    pub force_delete: bool,
    /// Whether a deletion is meant to erase the customer.
    pub erase: bool,
    /// Whether a deletion leaves everything as it is.
    pub keep_data: bool,
    /// Why nothing may be erased, if there is a legal hold.
    pub legal_hold: Option<String>,
    /// The generation of the data that a person chose, of this very object.
    pub chosen: Option<u32>,
    /// The id of a dispute that was settled with the customer.
    pub accepted_dispute: Option<String>,
    /// The refund that a person settles outside of the operator.
    pub waived_refund: Option<String>,
    /// What a person has confirmed of what is held.
    pub confirmed: Option<String>,
    /// The number of the Checkout session that was asked for.
    pub link_asked: Option<u32>,
    /// What was erased, of a tenant that was.
    pub erasure: Option<Erasure>,
    /// Whether the customer proved to read the present e-mail address.
    pub email_verified: bool,
    /// The e-mails that the customer asked for.
    pub mail_requests: Vec<MailRequest>,
    /// Whether the customer wants no e-mails beyond those that the service needs.
    pub unsubscribed: bool,
    /// Whether the customer agreed to e-mails about offers.
    pub marketing: bool,
    /// Whether the customer has asked a question.
    pub asked: bool,
    /// Whether the customer has stored a document.
    pub stored: bool,
    /// When the customer completed the setup.
    pub completed_at: Option<Timestamp>,
    /// What versions before the ledger noted of its usage.
    pub usage: Usage,
    /// Keys of the notices that were sent.
    pub sent: BTreeSet<String>,
    /// The spec.
    pub spec: TenantSpec,
    /// The status.
    pub status: TenantStatus,
}

impl View {
    /// Reads an object.
    pub fn of(tenant: &Tenant, credentials: Credentials) -> Self {
        let annotations = tenant.annotations();
        let reached = |milestone| annotations.contains_key(&reached_annotation(milestone));
        let address = tenant.labels().get(EMAIL_LABEL).filter(|_| credentials.labelled);
        let verified = annotations.get(VERIFIED_ANNOTATION);
        Self {
            namespace: tenant.namespace().unwrap_or_default(),
            name: tenant.name_any(),
            uid: tenant.uid().unwrap_or_default(),
            generation: tenant.metadata.generation,
            created_at: tenant.creation_timestamp().map_or(Timestamp::from_second(0), |t| t.0.into()),
            deleting: tenant.metadata.deletion_timestamp.is_some(),
            finalizer: tenant.finalizers().iter().any(|f| f == FINALIZER),
            credentials,
            retry_token: annotations.get(RETRY_ANNOTATION).cloned(),
            force_delete: annotations.get(FORCE_DELETE_ANNOTATION).is_some_and(|v| v == "true"),
            erase: tenant.is_to_be_erased(),
            keep_data: annotations.get(KEEP_DATA_ANNOTATION).is_some_and(|v| v == "true"),
            legal_hold: annotations.get(LEGAL_HOLD_ANNOTATION).filter(|why| !why.is_empty()).cloned(),
            chosen: chosen_generation(tenant),
            accepted_dispute: annotations.get(ACCEPT_DISPUTE_ANNOTATION).cloned(),
            waived_refund: annotations.get(WAIVE_REFUND_ANNOTATION).cloned(),
            confirmed: annotations.get(CONFIRM_ANNOTATION).cloned(),
            link_asked: annotations.get(PAYMENT_LINK_ANNOTATION).and_then(|attempt| attempt.parse().ok()),
            erasure: annotations.get(ERASED_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()),
            email_verified: verified.is_some() && verified == address,
            mail_requests: annotations.get(MAIL_REQUESTS_ANNOTATION).map_or_else(Vec::new, |text| mail_requests(text)),
            unsubscribed: annotations.get(UNSUBSCRIBED_ANNOTATION).is_some_and(|v| v == "true"),
            marketing: annotations.get(SIGNUP_ANNOTATION).is_some_and(|record| agreed(record)),
            asked: reached("sample-query") || reached("own-query"),
            stored: reached("first-document"),
            completed_at: api::reached_at(tenant, "completed"),
            usage: Usage::of(tenant),
            sent: annotations
                .get(SENT_ANNOTATION)
                .map(|list| list.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect())
                .unwrap_or_default(),
            spec: tenant.spec.clone(),
            status: tenant.status.clone().unwrap_or_default(),
        }
    }

    /// Whether a notice was written down as sent.
    pub fn noted(&self, notice: &Notice) -> bool {
        self.sent.contains(&notice.key())
    }

    /// Whether the tenant was served before, by what outlives a lost status: what was sent to served customers, what
    /// the customer did and stored, and an id that is older than the object, as after `recover` or a restore.
    /// `spec.planInForce` does not tell: it is written before the first provisioning.
    pub fn served_before(&self) -> bool {
        let usage = &self.usage;
        self.status.provisioned_at.is_some()
            || self.asked
            || self.stored
            || [usage.queries, usage.earlier_queries, usage.documents, usage.embedded].iter().any(|used| *used > 0)
            || self.completed_at.is_some()
            || self.spec.data.is_some()
            || self.spec.tenant_id.as_ref().is_some_and(|id| *id != self.uid)
            || self.sent.iter().any(|key| Notice::follows_service(key))
    }

    /// Whose the tenant id is.
    pub fn claim(&self) -> Claim {
        match &self.spec.tenant_id {
            None => Claim::Unassigned,
            Some(id) if *id != self.uid && !self.credentials.proof => Claim::Unproven,
            Some(_) if self.credentials.outranked => Claim::Outranked,
            Some(_) => Claim::Rightful,
        }
    }

    /// Whether id, proof, finalizer and label are in place.
    pub fn identified(&self) -> bool {
        let own = self.claim() == Claim::Rightful && self.credentials.proof;
        own && self.finalizer && self.credentials.labelled
    }

    /// The identity at every provider.
    pub fn tenant_id(&self) -> &str {
        self.spec.tenant_id.as_deref().unwrap_or(&self.uid)
    }

    /// The name of the plan that is in force.
    pub fn plan_in_force(&self) -> &str {
        api::tenant::plan_in_force(&self.spec, Some(&self.status))
    }

    /// The namespace of the tenant's data.
    pub fn data_namespace(&self) -> String {
        api::data_namespace(self.tenant_id(), self.data_generation())
    }

    /// The generation of the tenant's data.
    pub fn data_generation(&self) -> u32 {
        self.spec.data_generation()
    }

    /// The region where the tenant's data is, once that is known.
    pub fn region(&self) -> Option<&str> {
        api::region(self.spec.data.as_ref(), self.status.region.as_ref())
    }

    /// The model that the tenant's data was embedded with, once that is known.
    pub fn embedding(&self) -> Option<&str> {
        api::embedding(self.spec.data.as_ref(), self.status.config.as_ref()).map(|embedding| &**embedding)
    }

    /// The Secret in the Tenant's namespace that holds its API key.
    pub fn api_key_secret(&self) -> String {
        api::api_key_secret(&self.name)
    }

    /// Names the refund that may be owed now: by the tenant, and by when its present run of attempts began. What is paid
    /// for the next run is another payment.
    pub fn refund_name(&self) -> String {
        let since = self.status.provisioning.as_ref().map_or(self.created_at, |run| run.started_at);
        format!("{}.{since}", self.tenant_id())
    }

    /// Whether a person settles that refund outside of the operator.
    pub fn refund_waived(&self) -> bool {
        self.waived_refund.as_deref().and_then(|value| waived_payment(value, &self.refund_name())).is_some()
    }

    /// The invoice that the person names whose payment they settle.
    pub fn waived_invoice(&self) -> Option<&str> {
        waived_payment(self.waived_refund.as_deref()?, &self.refund_name()).filter(|invoice| !invoice.is_empty())
    }

    /// Names the present run of attempts: new with each new value of the retry annotation.
    pub fn run(&self) -> String {
        let token = self.status.provisioning.as_ref().and_then(|p| p.retry_token.as_deref());
        let token: String =
            token.unwrap_or("first").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        token.chars().take(40).collect()
    }
}

/// What the annotation says after the name of the refund, if it names this one: an invoice, or nothing.
fn waived_payment<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    match value.strip_prefix(name)? {
        "" => Some(""),
        invoice => invoice.strip_prefix('.').filter(|id| !id.is_empty()),
    }
}

/// The generation of the data that a person chose. A choice names the object that it was made of: one that a backup
/// brings back counts no more.
pub fn chosen_generation(tenant: &Tenant) -> Option<u32> {
    let (generation, uid) = tenant.annotations().get(CHOOSE_DATA_ANNOTATION)?.split_once('.')?;
    generation.parse().ok().filter(|_| tenant.uid().is_some_and(|own| own == uid))
}

/// Whether the record of a signup says that offers are welcome.
fn agreed(record: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(record).is_ok_and(|record| record["marketing"] == true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an object with this label and proof counts as confirmed; `labelled` says whether the label is that of
    /// the present address.
    fn verified(label: Option<&str>, proof: Option<&str>, labelled: bool) -> bool {
        let spec = serde_json::json!({"companyName": "A", "adminEmail": "a@b.example"});
        let mut tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        tenant.labels_mut().extend(label.map(|hash| (EMAIL_LABEL.to_owned(), hash.to_owned())));
        tenant.annotations_mut().extend(proof.map(|hash| (VERIFIED_ANNOTATION.to_owned(), hash.to_owned())));
        View::of(&tenant, Credentials { labelled, ..Credentials::default() }).email_verified
    }

    #[test]
    fn only_the_present_address_counts_as_confirmed() {
        assert!(verified(Some("new"), Some("new"), true));
        assert!(!verified(Some("new"), Some("old"), true), "another address was confirmed");
        assert!(!verified(Some("old"), Some("old"), false), "the address was changed, and the label not yet");
        assert!(
            !verified(Some("new"), None, true) && !verified(None, None, true) && !verified(None, Some("old"), true)
        );
    }
}
