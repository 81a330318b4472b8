//! Links by e-mail: asked for here, sent by the controller, and opened here, some of them once.

use axum::http::StatusCode;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::api::{
    EMAIL_LABEL, LINKS_USED_ANNOTATION, LinkKind, MAIL_REQUESTS_ANNOTATION, MailRequest, SESSIONS_ANNOTATION, Tenant,
    Timestamp, VERIFIED_ANNOTATION, mail_requests, reached_annotation, reached_at,
};
use crate::events::Event;
use crate::links::{OpenedLink, SPACING};
use crate::web::App;
use crate::web::serving::problem::{Code, Problem};
use crate::web::serving::tokens::{Pass, ending};

/// The answer to a link that is not good any more, or never was.
pub fn dead() -> Problem {
    let detail =
        "This link is no longer valid: it was used, it is too old, or it is not complete. Please ask for a new one.";
    Problem::new(StatusCode::GONE, Code::LinkExpired, detail)
}

/// The longest time between two e-mails to an unconfirmed address, in seconds: about five a day.
const LONGEST_SPACING: i64 = 5 * 3600;

/// How long after the last e-mail of a kind the next one is sent. To an unconfirmed address, each wait is as long as
/// all before it: a stranger who signed up with it fills no mailbox.
fn spacing(tenant: &Tenant, last: Timestamp) -> i64 {
    let label = tenant.labels().get(EMAIL_LABEL);
    if label.is_some() && tenant.annotations().get(VERIFIED_ANNOTATION) == label {
        return SPACING;
    }
    let since_signup = tenant.creation_timestamp().map_or(0, |created| last.since(created.0.into()));
    since_signup.clamp(SPACING, LONGEST_SPACING)
}

/// The requests with one more; None when one of this kind was made a moment ago.
fn with_request(tenant: &Tenant, kind: LinkKind, now: Timestamp) -> Option<String> {
    let soon = |at: Timestamp| now.since(at) < spacing(tenant, at);
    let before = tenant.annotations().get(MAIL_REQUESTS_ANNOTATION).map_or_else(Vec::new, |list| mail_requests(list));
    // The first confirmation is sent without being asked for.
    let first = kind == LinkKind::VerifyEmail && tenant.creation_timestamp().is_some_and(|at| soon(at.0.into()));
    if first || before.iter().any(|request| request.kind == kind && soon(request.at)) {
        return None;
    }
    let others = before.into_iter().filter(|request| request.kind != kind);
    let all: Vec<_> = others.chain([MailRequest { kind, at: now }]).map(|request| request.to_string()).collect();
    Some(all.join(","))
}

/// The links that were used, the last of each kind.
fn used(tenant: &Tenant) -> Vec<MailRequest> {
    tenant.annotations().get(LINKS_USED_ANNOTATION).map_or_else(Vec::new, |list| mail_requests(list))
}

impl App {
    /// Asks the controller for an e-mail with a link; false when one was sent a moment ago.
    pub async fn request_link(&self, tenant: &Tenant, kind: LinkKind) -> Result<bool, Problem> {
        let asked = |tenant: &Tenant| {
            let requests = with_request(tenant, kind, self.now());
            Ok(requests.map(|list| json!({"metadata": {"annotations": {MAIL_REQUESTS_ANNOTATION: list}}})))
        };
        // The spacing limits these writes. A stranger who knows the address may ask as well, and takes nothing from the
        // changes that the customer can make.
        let asked = self.change_by_link(tenant, asked).await?.is_some();
        if asked {
            tracing::info!(target: "audit", event = "link_requested", kind = kind.name(), tenant = tenant.name_any());
        }
        Ok(asked)
    }

    /// The tenant of a link, while the link is good.
    pub async fn by_link(&self, kind: LinkKind, token: &str) -> Result<Tenant, Problem> {
        Ok(self.opened_link(kind, token).await?.1)
    }

    /// The link as well.
    async fn opened_link(&self, kind: LinkKind, token: &str) -> Result<(OpenedLink, Tenant), Problem> {
        let link = self.identity.open_link(kind, token).filter(|link| link.request.is_open(self.now()));
        let link = link.ok_or_else(dead)?;
        let tenant = self.tenants().get_opt(&link.name).await?.ok_or_else(dead)?;
        if is_good(&link, &tenant) { Ok((link, tenant)) } else { Err(dead()) }
    }

    /// Uses a link, which proves that its bearer reads the address. Of two who use it at the same moment, one succeeds;
    /// only an address may be confirmed again. A new password ends the sessions, tokens and links from before it, the
    /// first proof of an address the sessions and tokens, and a log-in by e-mail a password that was chosen before the
    /// address was proven.
    pub async fn use_link(&self, kind: LinkKind, token: &str) -> Result<Tenant, Problem> {
        let (link, tenant) = self.opened_link(kind, token).await?;
        let unproven = kind == LinkKind::LoginLink && self.has_unproven_password(&tenant).await?;
        if unproven {
            // Before the link is used up: where this fails, the link works again. A stranger may have signed up with
            // the address, and have read the API key as well. Two generations later, no overlap keeps it good.
            let ended = |tenant: &Tenant| {
                Ok(Some(json!({
                    "metadata": {"annotations": {SESSIONS_ANNOTATION: ending(tenant, self.now())}},
                    "spec": {"apiKeyGeneration": tenant.spec.api_key_generation + 2},
                })))
            };
            self.change_by_link(&tenant, ended).await?;
            self.end_password(&tenant).await?;
        }
        let used = |tenant: &Tenant| {
            // The controller may have written as well: what counts is whether the link is still good then.
            if !is_good(&link, tenant) {
                return Err(dead());
            }
            let mut annotations = proof(tenant, &link, self.now());
            if unproven {
                // Until the password ended, a stranger could still log in with it.
                annotations[SESSIONS_ANNOTATION] = json!(ending(tenant, self.now()));
            }
            Ok(Some(json!({"metadata": {"annotations": annotations}})))
        };
        let changed = self.change_by_link(&tenant, used).await?.ok_or_else(dead)?;
        if reached_at(&tenant, "email-verified").is_none() {
            self.happened(&Event::milestone(&changed, "email-verified", self.now()));
        }
        tracing::info!(target: "audit", event = "link_used", kind = kind.name(), tenant = tenant.name_any());
        Ok(changed)
    }
}

impl App {
    /// Ends all sessions and tokens that were issued until now.
    pub async fn end_sessions(&self, tenant: &Tenant) -> Result<Tenant, Problem> {
        let ended = |tenant: &Tenant| {
            let annotations = json!({SESSIONS_ANNOTATION: ending(tenant, self.now())});
            Ok(Some(json!({"metadata": {"annotations": annotations}})))
        };
        self.change_by_link(tenant, ended).await?.ok_or_else(Problem::unavailable)
    }

    /// Confirms an address. True where the same customer is logged in, with a session or a token: then the password is
    /// known to be that of the address's owner.
    pub async fn confirm(&self, token: &str, pass: Option<&Pass>) -> Result<(Tenant, bool), Problem> {
        let before = self.by_link(LinkKind::VerifyEmail, token).await?;
        let own = pass.is_some_and(|pass| self.opens(pass, &before));
        let tenant = self.use_link(LinkKind::VerifyEmail, token).await?;
        if own {
            self.prove_password(&tenant).await?;
        }
        Ok((tenant, own))
    }
}

/// Whether a link opens this object: it is for it, and was not used.
fn is_good(link: &OpenedLink, tenant: &Tenant) -> bool {
    let MailRequest { kind, at } = link.request;
    let spent = used(tenant).iter().any(|used| used.kind == kind && at <= used.at);
    link.is_for(tenant) && !spent && tenant.metadata.deletion_timestamp.is_none()
}

/// The token of a confirmation link.
#[derive(Deserialize, ToSchema)]
pub struct Confirmation {
    /// As it stands in the link.
    #[schema(example = "analytical-engines.0b8f6f0e.1764403200.c2VhbA")]
    pub token: String,
}

/// A confirmed address.
#[derive(Serialize, ToSchema)]
pub struct Confirmed {
    /// The tenant's id.
    #[schema(example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")]
    pub tenant_id: String,
    /// In words.
    #[schema(example = "The e-mail address is confirmed.")]
    pub message: &'static str,
    /// A new token, where the request carried a token of the same account: those from before the first proof are over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "analytical-engines.0b8f6f0e.1764403200.c2VhbA")]
    pub token: Option<String>,
}

/// What is written down when a link is used.
fn proof(tenant: &Tenant, link: &OpenedLink, now: Timestamp) -> Value {
    let mut annotations = json!({VERIFIED_ANNOTATION: link.address});
    let first = tenant.annotations().get(VERIFIED_ANNOTATION) != Some(&link.address);
    if first || matches!(link.request.kind, LinkKind::PasswordReset | LinkKind::Invitation) {
        annotations[SESSIONS_ANNOTATION] = json!(ending(tenant, now));
    }
    if reached_at(tenant, "email-verified").is_none() {
        annotations[reached_annotation("email-verified")] = json!(now);
    }
    let spent = match link.request.kind {
        // It may be opened again.
        LinkKind::VerifyEmail => return annotations,
        LinkKind::LoginLink => vec![link.request],
        LinkKind::PasswordReset | LinkKind::Invitation => {
            [LinkKind::LoginLink, LinkKind::PasswordReset, LinkKind::Invitation]
                .map(|kind| MailRequest { kind, at: now })
                .into()
        }
    };
    let others = used(tenant).into_iter().filter(|used| spent.iter().all(|request| request.kind != used.kind));
    let all: Vec<_> = others.chain(spent.iter().copied()).map(|request| request.to_string()).collect();
    annotations[LINKS_USED_ANNOTATION] = json!(all.join(","));
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> Tenant {
        let spec = json!({"companyName": "A", "adminEmail": "a@b.example"});
        let mut tenant = Tenant::new("t-1", serde_json::from_value(spec).expect("a spec"));
        tenant.metadata.uid = Some("u1".into());
        tenant.labels_mut().insert(EMAIL_LABEL.into(), "hash".into());
        tenant
    }

    fn link(kind: LinkKind, at: i64) -> OpenedLink {
        let request = MailRequest { kind, at: Timestamp::from_second(at) };
        OpenedLink { name: "t-1".into(), uid: "u1".into(), address: "hash".into(), request }
    }

    /// Uses a link, as the API server would keep it.
    fn use_up(tenant: &mut Tenant, link: &OpenedLink, now: i64) {
        let annotations = proof(tenant, link, Timestamp::from_second(now));
        for (name, value) in annotations.as_object().expect("an object") {
            tenant.annotations_mut().insert(name.clone(), value.as_str().expect("text").into());
        }
    }

    #[test]
    fn a_link_works_once_and_ends_no_other_of_the_same_second() {
        let mut tenant = tenant();
        let (login, reset) = (link(LinkKind::LoginLink, 100), link(LinkKind::PasswordReset, 100));
        use_up(&mut tenant, &login, 101);
        assert!(!is_good(&login, &tenant) && is_good(&reset, &tenant));
        assert!(!is_good(&link(LinkKind::LoginLink, 99), &tenant), "one that was asked for before");
        assert!(is_good(&link(LinkKind::LoginLink, 101), &tenant));
        use_up(&mut tenant, &reset, 130);
        assert!(!is_good(&reset, &tenant) && !is_good(&link(LinkKind::LoginLink, 130), &tenant));
        assert!(is_good(&link(LinkKind::LoginLink, 131), &tenant));
        let verify = link(LinkKind::VerifyEmail, 100);
        use_up(&mut tenant, &verify, 140);
        assert!(is_good(&verify, &tenant), "an address may be confirmed again");
    }

    #[test]
    fn a_link_ends_the_sessions_of_the_second_in_which_others_ended() {
        let mut tenant = tenant();
        let since = |tenant: &Tenant| tenant.annotations()[SESSIONS_ANNOTATION].clone();
        use_up(&mut tenant, &link(LinkKind::LoginLink, 100), 130);
        assert_eq!(since(&tenant), "131", "the first proof of the address");
        use_up(&mut tenant, &link(LinkKind::PasswordReset, 101), 130);
        assert_eq!(since(&tenant), "132", "and a new password in the same second");
    }

    #[test]
    fn a_request_is_made_once_in_a_while_and_replaces_the_last_of_its_kind() {
        let mut tenant = tenant();
        let ask = |tenant: &Tenant, kind, now| with_request(tenant, kind, Timestamp::from_second(now));
        tenant
            .annotations_mut()
            .insert(MAIL_REQUESTS_ANNOTATION.into(), "login-link.100,password-reset.90,nonsense".into());
        assert_eq!(ask(&tenant, LinkKind::LoginLink, 100 + SPACING - 1), None);
        let both = format!("password-reset.90,login-link.{}", 100 + SPACING);
        assert_eq!(ask(&tenant, LinkKind::LoginLink, 100 + SPACING), Some(both));
    }

    #[test]
    fn an_unconfirmed_address_gets_few_e_mails_a_day() {
        let mails = |confirmed: bool| {
            let mut tenant = tenant();
            let created = "1970-01-01T00:00:00Z".parse().map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
            tenant.metadata.creation_timestamp = created.ok();
            if confirmed {
                tenant.annotations_mut().insert(VERIFIED_ANNOTATION.into(), "hash".into());
            }
            let mut sent = 0;
            for minute in 0..24 * 60 {
                if let Some(list) = with_request(&tenant, LinkKind::LoginLink, Timestamp::from_second(minute * 60)) {
                    tenant.annotations_mut().insert(MAIL_REQUESTS_ANNOTATION.into(), list);
                    sent += 1;
                }
            }
            sent
        };
        assert!((5..=13).contains(&mails(false)), "{}", mails(false));
        assert_eq!(mails(true), 720);
    }
}
