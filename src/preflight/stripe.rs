//! Stripe: the key, the account, the Plans' prices, the webhook endpoint, and a subscription made and undone.

use futures::FutureExt;
use kube::ResourceExt;
use secrecy::ExposeSecret;

use super::{Check, CheckOutcome, Target, pinned};
use crate::api::Plan;
use crate::providers::stripe::{EVENTS, Stripe, UsagePriceError};

const KEY: &str = "Correct STRIPE_SECRET_KEY";

pub const CHECKS: &[Check] = &[
    Check {
        name: "stripe/key",
        blocks_start: true,
        title: "the Stripe key is accepted",
        about: "Payment links, subscriptions and refunds need it.",
        needs: None,
        writes: false,
        run: |target| key(target).boxed(),
    },
    Check {
        name: "stripe/account",
        blocks_start: false,
        title: "the key is of the account and mode that the tenants pay to",
        about: "With a key of another one, the controller does nothing at Stripe, and is not ready. Before the first \
            start, nothing is \
                pinned yet.",
        needs: Some("stripe/key"),
        writes: false,
        run: |target| account(target).boxed(),
    },
    Check {
        name: "stripe/mode",
        blocks_start: false,
        title: "a live key is used in production only",
        about: "A live key moves real money. Do not use it where customers reach web by plain HTTP.",
        needs: Some("stripe/key"),
        writes: false,
        run: |target| std::future::ready(mode(target)).boxed(),
    },
    Check {
        name: "stripe/charges",
        blocks_start: false,
        title: "the account can charge",
        about: "Stripe opens an account for charges after its verification.",
        needs: Some("stripe/key"),
        writes: false,
        run: |target| charges(target).boxed(),
    },
    Check {
        name: "stripe/prices",
        blocks_start: false,
        title: "every Plan's price is an active, recurring price of the same amount",
        about: "Stripe charges its own price; what the Plan shows to people should be the same.",
        needs: Some("stripe/key"),
        writes: false,
        run: |target| prices(target).boxed(),
    },
    Check {
        name: "stripe/webhook",
        blocks_start: false,
        title: "a webhook endpoint gets the events that are needed",
        about: "Without it, only the comparison every ten minutes notices payments. Events about usage that Stripe found wrong \
                are thin and need an event destination of their own, which docs/usage-billing.md describes.",
        needs: Some("stripe/key"),
        writes: false,
        run: |target| webhook(target).boxed(),
    },
    Check {
        name: "stripe/webhook-secret",
        blocks_start: false,
        title: "the webhook secrets look like Stripe's",
        about: "Checked if STRIPE_WEBHOOK_SECRET is set. With a wrong secret, web refuses every webhook.",
        needs: None,
        writes: false,
        run: |target| std::future::ready(webhook_secret(target)).boxed(),
    },
    Check {
        name: "stripe/portal",
        blocks_start: false,
        title: "the customer portal has saved settings",
        about: "Customers pay late invoices and change their card there. Stripe refuses to open it until its settings are saved.",
        needs: Some("stripe/key"),
        writes: false,
        run: |target| portal(target).boxed(),
    },
    Check {
        name: "stripe/subscription",
        blocks_start: false,
        title: "a subscription can be made and cancelled",
        about: "Runs with test keys only: makes a customer with a trial of the first Plan's price that is right, and deletes both.",
        needs: Some("stripe/key"),
        writes: true,
        run: |target| subscription(target).boxed(),
    },
];

fn stripe(target: &Target) -> Result<(&Stripe, &str), CheckOutcome> {
    let missing =
        || CheckOutcome::failed("STRIPE_SECRET_KEY is not set", "Set it to a secret or restricted key of Stripe's");
    target.stripe.as_ref().map(|(stripe, key)| (stripe, key.expose_secret())).ok_or_else(missing)
}

fn live(key: &str) -> bool {
    key.starts_with("sk_live_") || key.starts_with("rk_live_")
}

async fn key(target: &Target) -> CheckOutcome {
    let (stripe, _) = match stripe(target) {
        Ok(both) => both,
        Err(outcome) => return outcome,
    };
    match stripe.identity().await {
        Ok(account) => CheckOutcome::Ok(account.to_string()),
        Err(error) => CheckOutcome::of(target, &error, KEY),
    }
}

async fn account(target: &Target) -> CheckOutcome {
    let Ok((stripe, _)) = stripe(target) else { return CheckOutcome::Skipped(String::new()) };
    let pins = match target.pins().await {
        Ok(pins) => pins,
        Err(outcome) => return outcome,
    };
    match stripe.identity().await {
        Ok(found) => pinned(pins.compare_stripe(&found)),
        Err(error) => CheckOutcome::of(target, &error, KEY),
    }
}

fn mode(target: &Target) -> CheckOutcome {
    let Ok((_, key)) = stripe(target) else { return CheckOutcome::Skipped(String::new()) };
    if !live(key) {
        return CheckOutcome::Ok("test key".into());
    }
    if !target.real_stripe {
        return CheckOutcome::warning(
            "a live key is sent to something that is not Stripe",
            "Use a test key, or leave STRIPE_URL unset",
        );
    }
    if !target.frontend_url.starts_with("https://") {
        let reason =
            format!("a live key, and FRONTEND_URL is {:?}: this looks like a test set-up", target.frontend_url);
        return CheckOutcome::warning(reason, "Use a test key, or set FRONTEND_URL to your https:// address");
    }
    CheckOutcome::Ok("live key".into())
}

async fn charges(target: &Target) -> CheckOutcome {
    let Ok((stripe, _)) = stripe(target) else { return CheckOutcome::Skipped(String::new()) };
    match stripe.account().await {
        Ok(account) if account.charges_enabled => CheckOutcome::Ok(String::new()),
        Ok(account) => CheckOutcome::failed(
            format!("{} may not charge yet", account.id),
            "Complete the account's verification in Stripe's dashboard",
        ),
        // A restricted key need not read the account.
        Err(error) if error.status == Some(403) => CheckOutcome::Skipped("the key may not read the account".into()),
        Err(error) => CheckOutcome::of(target, &error, KEY),
    }
}

async fn prices(target: &Target) -> CheckOutcome {
    let Ok((stripe, _)) = stripe(target) else { return CheckOutcome::Skipped(String::new()) };
    let mut count = 0;
    for plan in target.plans().await {
        let (name, shown) = (plan.name_any(), &plan.spec.monthly_price);
        let Some(id) = &plan.spec.stripe_price_id else { continue };
        let price = match stripe.price(id).await {
            Ok(price) => price,
            Err(error) if error.is_not_found() => {
                let fix = format!("Create the price in Stripe, or correct spec.stripePriceId of Plan {name}");
                return CheckOutcome::failed(format!("Plan {name}: Stripe has no price {id}"), fix);
            }
            Err(error) => return CheckOutcome::of(target, &error, KEY),
        };
        if !price.active || !price.recurring() {
            let what = if price.active { "is not recurring" } else { "is not active" };
            let fix = format!("Activate it, or name another in spec.stripePriceId of Plan {name}");
            return CheckOutcome::failed(format!("Plan {name}: price {id} {what}"), fix);
        }
        if price.unit_amount != Some(shown.amount) || price.currency != shown.currency {
            let charged = price.unit_amount.map_or("a variable amount".into(), |a| format!("{a} {}", price.currency));
            let reason = format!("Plan {name} shows {} {}, Stripe charges {charged}", shown.amount, shown.currency);
            return CheckOutcome::warning(reason, format!("Correct spec.monthlyPrice of Plan {name}"));
        }
        if let Some(unfit) = usage_prices(target, stripe, plan).await {
            return unfit;
        }
        count += 1 + plan.spec.usage_prices.len();
    }
    CheckOutcome::Ok(format!("{count} prices"))
}

/// What is wrong with the prices of a Plan by use.
async fn usage_prices(target: &Target, stripe: &Stripe, plan: &Plan) -> Option<CheckOutcome> {
    for price in &plan.spec.usage_prices {
        let checked = async { stripe.usage_meter(&stripe.meter_of_price(price).await?).await };
        match checked.await {
            Ok(_) => {}
            Err(UsagePriceError::Unfit(why)) => {
                let name = plan.name_any();
                let fix = format!("Correct spec.usagePrices of Plan {name}, or make the price and its meter at Stripe");
                return Some(CheckOutcome::failed(format!("Plan {name}: {why}"), fix));
            }
            Err(UsagePriceError::Provider(error)) => return Some(CheckOutcome::of(target, &error, KEY)),
        }
    }
    None
}

async fn webhook(target: &Target) -> CheckOutcome {
    let Ok((stripe, _)) = stripe(target) else { return CheckOutcome::Skipped(String::new()) };
    let url = format!("{}/webhooks/stripe", target.frontend_url.trim_end_matches('/'));
    let endpoints = match stripe.webhook_endpoints().await {
        Ok(all) => all,
        Err(error) => return CheckOutcome::of(target, &error, KEY),
    };
    let ours: Vec<_> = endpoints.iter().filter(|e| e.url.ends_with("/webhooks/stripe")).collect();
    let Some(endpoint) = ours.iter().find(|e| e.url == url).or(ours.first()) else {
        let fix = format!("Add the endpoint {url} in Stripe's dashboard, for the events {}", EVENTS.join(", "));
        return CheckOutcome::failed("no endpoint ends with /webhooks/stripe", fix);
    };
    if endpoint.status != "enabled" {
        return CheckOutcome::failed(
            format!("{} is {}", endpoint.url, endpoint.status),
            "Enable it in Stripe's dashboard",
        );
    }
    let gets = |event: &str| endpoint.enabled_events.iter().any(|e| e == "*" || e == event);
    let missing: Vec<_> = EVENTS.iter().copied().filter(|event| !gets(event)).collect();
    if !missing.is_empty() {
        return CheckOutcome::failed(
            format!("{} does not get {}", endpoint.url, missing.join(", ")),
            "Add these events to it",
        );
    }
    if endpoint.url != url {
        let fix = "Correct FRONTEND_URL or the endpoint, unless another host leads to the same web";
        return CheckOutcome::warning(format!("the endpoint is {}, not {url}", endpoint.url), fix);
    }
    CheckOutcome::Ok(endpoint.url.clone())
}

fn webhook_secret(target: &Target) -> CheckOutcome {
    let Some(secrets) = &target.webhook_secrets else {
        return CheckOutcome::Skipped("STRIPE_WEBHOOK_SECRET is web's".into());
    };
    match secrets.iter().position(|s| !s.expose_secret().starts_with("whsec_")) {
        None => CheckOutcome::Ok(format!("{} of them", secrets.len())),
        Some(i) => CheckOutcome::failed(
            format!("number {} of STRIPE_WEBHOOK_SECRET does not start with whsec_", i + 1),
            "Copy the endpoint's signing secret from Stripe's dashboard; it is not the API key",
        ),
    }
}

async fn portal(target: &Target) -> CheckOutcome {
    let Ok((stripe, key)) = stripe(target) else { return CheckOutcome::Skipped(String::new()) };
    let mode = if live(key) { "" } else { "test/" };
    match stripe.portal_is_set_up().await {
        Ok(true) => CheckOutcome::Ok(String::new()),
        Ok(false) => CheckOutcome::warning(
            "the portal's settings were never saved in this mode",
            format!("Save them at https://dashboard.stripe.com/{mode}settings/billing/portal"),
        ),
        Err(error) if error.status == Some(403) => {
            CheckOutcome::Skipped("the key may not read the portal's configurations".into())
        }
        Err(error) => CheckOutcome::of(target, &error, KEY),
    }
}

async fn subscription(target: &Target) -> CheckOutcome {
    let Ok((stripe, key)) = stripe(target) else { return CheckOutcome::Skipped(String::new()) };
    if live(key) {
        return CheckOutcome::Skipped("not with a live key".into());
    }
    for plan in target.plans().await {
        let Some(id) = &plan.spec.stripe_price_id else { continue };
        match stripe.price(id).await {
            Ok(price) if price.active && price.recurring() => {
                let fix = "Give the key the right to write customers and subscriptions";
                let tried = stripe.try_subscription(id).await;
                return tried
                    .map_or_else(|error| CheckOutcome::of(target, &error, fix), |()| CheckOutcome::Ok(String::new()));
            }
            // The check of the prices names it.
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return CheckOutcome::of(target, &error, KEY),
        }
    }
    CheckOutcome::Skipped("no Plan has a price that can be sold".into())
}
