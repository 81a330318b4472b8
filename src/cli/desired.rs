//! `kubectl tenant suspend` and `resume`, `delete` and `reactivate`: what an admin wants of a tenant.
//!
//! Each command reads the Tenant first, refuses what does not fit its state, and writes only what it has read: the
//! patch carries the resource version. The Kubernetes user is recorded with the wish.

use anyhow::bail;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::{KubeArgs, TenantArgs};
use crate::api::facts::SuspendedFor;
use crate::api::tenant::{Desired, Wish};
use crate::api::{Phase, Tenant, Timestamp, conditions};

#[derive(clap::Args)]
pub struct SuspendArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Why, such as a case number. Recorded in spec.suspension and in the transition; the customer does not see it.
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
}

/// Stops serving a tenant.
pub async fn suspend(kube: &KubeArgs, args: SuspendArgs) -> anyhow::Result<()> {
    let desk = Desk::open(kube, &args.tenant).await?;
    let name = &args.tenant.name;
    let change = desk.change(|tenant| {
        refuse_closed(tenant)?;
        if let Some(wish) = &tenant.spec.suspension {
            return Ok(Answer::Said(format!("{name} is suspended already, by {wish} on {}.", wish.at)));
        }
        let wish = desk.wish(Desired::Suspended, args.reason.as_deref()).patch();
        let spec = json!({"desired": Desired::Suspended, "wish": wish, "suspension": wish});
        Ok(Answer::Change(spec))
    });
    match change.await? {
        Some(said) => println!("{said}"),
        None => println!(
            "{name} will be suspended: not served, not charged, its data kept. `kubectl tenant resume {name}` ends it; \
             no action of the customer ends it."
        ),
    }
    Ok(())
}

/// Serves it again.
pub async fn resume(kube: &KubeArgs, args: TenantArgs) -> anyhow::Result<()> {
    let desk = Desk::open(kube, &args).await?;
    let name = &args.name;
    let change = desk.change(|tenant| {
        let spec = &tenant.spec;
        let closed = spec.desired == Desired::Deleted;
        if spec.suspension.is_some() && closed {
            bail!(
                "{name} is closed, and suspended by an admin as well. Run `kubectl tenant reactivate {name}` first; it comes \
                 back suspended, and `kubectl tenant resume {name}` then ends that"
            );
        }
        refuse_closed(tenant)?;
        if !spec.is_suspended() {
            let status = tenant.status.clone().unwrap_or_default();
            if status.phase == Some(Phase::Suspended) && !by_admin(tenant) {
                let why = status.message.unwrap_or_default();
                bail!(
                    "{name} is suspended for a missing payment or a dispute, not by an admin: {why}. It is served again when \
                     that is settled"
                );
            }
            return Ok(Answer::Said(format!("{name} is not suspended.")));
        }
        let wish = desk.wish(Desired::Active, None).patch();
        Ok(Answer::Change(json!({"desired": Desired::Active, "wish": wish, "suspension": null})))
    });
    println!("{}", change.await?.unwrap_or_else(|| format!("{name} will be served again.")));
    Ok(())
}

/// Whether the status says that an admin suspended the tenant.
fn by_admin(tenant: &Tenant) -> bool {
    tenant.status.as_ref().and_then(|status| status.suspended_for) == Some(SuspendedFor::Admin)
}

/// Closes a tenant, and has it erased after its retention.
pub async fn delete(kube: &KubeArgs, args: TenantArgs) -> anyhow::Result<()> {
    let desk = Desk::open(kube, &args).await?;
    let name = &args.name;
    let change = desk.change(|tenant| {
        refuse_erased(tenant)?;
        if tenant.spec.desired == Desired::Deleted {
            return Ok(Answer::Said(format!("{name} is closed already.")));
        }
        let mut spec = json!({"desired": Desired::Deleted, "wish": desk.wish(Desired::Deleted, None).patch()});
        if tenant.spec.desired == Desired::Suspended && tenant.spec.suspension.is_none() {
            spec["suspension"] = desk.wish(Desired::Suspended, None).patch();
        }
        Ok(Answer::Change(spec))
    });
    let said = change.await?.unwrap_or_else(|| {
        format!(
            "{name} is closed: not served, its subscription not renewed. Its data is erased after the retention of its plan; \
             status.erasesAt says when. `kubectl tenant reactivate {name}` takes it back until then."
        )
    });
    println!("{said}");
    Ok(())
}

/// Takes it back.
pub async fn reactivate(kube: &KubeArgs, args: TenantArgs) -> anyhow::Result<()> {
    let desk = Desk::open(kube, &args).await?;
    let name = &args.name;
    let change = desk.change(|tenant| {
        refuse_erased(tenant)?;
        let closed = tenant.spec.desired == Desired::Deleted;
        if !closed && !ends_at_stripe(tenant) {
            return Ok(Answer::Said(format!("{name} is not closed.")));
        }
        if !closed && tenant.spec.is_suspended() {
            bail!(
                "{name} is suspended by an admin. `kubectl tenant resume {name}` ends that, and renews its subscription"
            );
        }
        let wish = desk.wish(Desired::Active, None).patch();
        Ok(Answer::Change(json!({"desired": Desired::Active, "wish": wish})))
    });
    let said = change.await?.unwrap_or_else(|| {
        format!(
            "{name} is taken back. If its subscription has ended, `kubectl tenant open` prints a link that sells it \
             again. A tenant that an \
             admin suspended stays suspended until `kubectl tenant resume {name}`."
        )
    });
    println!("{said}");
    Ok(())
}

/// Whether the status says that Stripe ends the subscription of a tenant that is open.
fn ends_at_stripe(tenant: &Tenant) -> bool {
    tenant.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, conditions::RENEWAL_STOPPED))
}

/// A tenant that is closed is neither suspended nor resumed: either would revive it.
fn refuse_closed(tenant: &Tenant) -> anyhow::Result<()> {
    refuse_erased(tenant)?;
    let name = tenant.name_any();
    let phase = tenant.status.as_ref().and_then(|status| status.phase);
    if tenant.spec.desired == Desired::Deleted || phase == Some(Phase::Deleting) {
        let by = tenant.spec.wisher().map(|wish| format!(" by {wish}")).unwrap_or_default();
        bail!("{name} is closed{by}, and this command would revive it. Run `kubectl tenant reactivate {name}` first");
    }
    Ok(())
}

/// Once an erasure has begun, there is no way back.
fn refuse_erased(tenant: &Tenant) -> anyhow::Result<()> {
    let name = tenant.name_any();
    if tenant.metadata.deletion_timestamp.is_some() {
        bail!("the object of {name} is being deleted");
    }
    let status = tenant.status.as_ref();
    if status.is_some_and(|status| status.erasure.is_some() || status.phase == Some(Phase::Deleted)) {
        bail!("the erasure of {name} has begun, so it can no longer be changed");
    }
    Ok(())
}

/// What a command does with the tenant that it has read.
enum Answer {
    /// Changes the spec.
    Change(Value),
    /// Changes nothing, and says why.
    Said(String),
}

/// Where an admin changes one tenant.
struct Desk {
    api: Api<Tenant>,
    name: String,
    /// The Kubernetes user, where the API server tells it.
    user: Option<String>,
}

impl Desk {
    async fn open(kube: &KubeArgs, args: &TenantArgs) -> anyhow::Result<Self> {
        let client = kube.client().await?;
        let user = user(&client).await;
        Ok(Self { api: args.api(client), name: args.name.clone(), user })
    }

    /// A request of this user.
    fn wish(&self, desired: Desired, reason: Option<&str>) -> Wish {
        Wish::of_admin(desired, self.user.as_deref(), reason, Timestamp::now())
    }

    /// Reads the tenant and writes the change that `look` answers, unless the tenant has changed meanwhile: then it
    /// looks again. None once it is written, else what is to be said.
    async fn change(&self, look: impl Fn(&Tenant) -> anyhow::Result<Answer>) -> anyhow::Result<Option<String>> {
        for _ in 0..5 {
            let tenant = self.api.get(&self.name).await?;
            let spec = match look(&tenant)? {
                Answer::Said(text) => return Ok(Some(text)),
                Answer::Change(spec) => spec,
            };
            let seen = json!({"uid": tenant.uid(), "resourceVersion": tenant.resource_version()});
            let change = Patch::Merge(json!({"metadata": seen, "spec": spec}));
            match self.api.patch(&self.name, &PatchParams::default(), &change).await {
                Err(kube::Error::Api(e)) if e.code == 409 => {}
                patched => return Ok(patched.map(|_| None)?),
            }
        }
        bail!("{} keeps changing; try again", self.name)
    }
}

/// The name of the user that the API server authenticates. A cluster that does not tell it is no reason to refuse.
async fn user(client: &Client) -> Option<String> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await.ok()?;
    review.status?.user_info?.username
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that people read may change, and Ready may say something else meanwhile.
    #[test]
    fn who_suspended_a_tenant_is_read_from_its_status_and_not_from_words() {
        let suspended = |why: &str, ready: &str| -> Tenant {
            serde_json::from_value(json!({
                "metadata": {"name": "acme"},
                "spec": {
                    "companyName": "Acme", "adminEmail": "ada@example.com", "plan": "starter",
                    "billing": {"mode": "Stripe"},
                },
                "status": {"phase": "Suspended", "suspendedFor": why, "conditions": [{
                    "type": "Ready", "status": "False", "reason": ready, "message": "",
                    "lastTransitionTime": Timestamp::from_second(1),
                }]},
            }))
            .expect("a Tenant")
        };
        assert!(by_admin(&suspended("Admin", "StripeUnreachable")));
        assert!(!by_admin(&suspended("Dispute", "SuspendedByAdmin")));
    }
}
