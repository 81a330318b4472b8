//! Faults, each with the check that finds it.

use serde_json::{Value, json};
use tenant_operator::providers::stripe::EVENTS;

use super::{FRONTEND, Lab, Seed, answer, revision, words};

pub(super) const POLICY: &str = "rag.default.tenant-operator.dev";

/// Another account and another index are pinned.
pub(super) fn pin_seeds() -> Vec<Seed> {
    let pinned = |check, entry: &str, says| Seed {
        check,
        kubectl: vec![words(&format!("create configmap tenant-operator-pins -n default --from-literal={entry}"))],
        undo: vec![words("delete configmap tenant-operator-pins -n default")],
        says,
        verdict: "failed",
        ..Seed::default()
    };
    let account = json!({"account": "acct_before", "livemode": false});
    let index = json!({"index": "multi-tenant-rag", "host": "http://before.example", "dimension": 1536});
    vec![
        pinned("stripe/account", &format!("stripe={account}"), "acct_before"),
        pinned("pinecone/pinned", &format!("pinecone={index}"), "http://before.example"),
        pinned("stripe/account", "stripe=nonsense", "cannot be read"),
        pinned("pinecone/pinned", "pinecone=nonsense", "cannot be read"),
    ]
}

/// The admission policy of the chart, as far as the checks look at it.
pub(super) fn policy(exempt: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": POLICY, "labels": {"app.kubernetes.io/name": "tenant-operator"},
            "annotations": {"tenant-operator.dev/exempt": exempt}},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": ["tenant-operator.dev"], "apiVersions": ["v1alpha1"],
            "resources": ["tenants"], "operations": ["CREATE"]}]}, "validations": [{"expression": "true"}]},
    })
}

/// Where signups are, and who is exempt from the policies.
pub(super) fn access_seeds(lab: &Lab) -> Vec<Seed> {
    let shared = ("TENANT_NAMESPACE", "default".to_owned());
    let allowed = ("SHARED_SIGNUP_NAMESPACE", "true".to_owned());
    let seed = |check, says, verdict| Seed { check, says, verdict, ..Seed::default() };
    let whole = lab.manifest("whole", &policy(""));
    vec![
        Seed { env: vec![shared.clone()], ..seed("access/signup-namespace", "web may read every key", "failed") },
        Seed { env: vec![shared, allowed], ..seed("access/signup-namespace", "web may read every key", "warning") },
        Seed {
            kubectl: vec![words(&format!("delete validatingadmissionpolicy {POLICY}"))],
            undo: vec![words(&format!("apply -f {whole}"))],
            ..seed("access/admission", "the release in namespace default has none", "warning")
        },
    ]
}

/// A kubeconfig of a user without any rights.
pub(super) fn without_rights(lab: &Lab) -> String {
    let text = std::fs::read_to_string(&lab.cluster.kubeconfig).expect("a file");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["users"][0]["user"]["as"] = json!("without-rights");
    let path = lab.folder.join("without-rights");
    std::fs::write(&path, config.to_string()).expect("a file");
    path.display().to_string()
}

pub(super) fn kubernetes_seeds(lab: &Lab, old: &std::path::Path) -> Vec<Seed> {
    let failed = |check, says| Seed { check, says, verdict: "failed", ..Seed::default() };
    vec![
        Seed { env: vec![("KUBECONFIG", old.display().to_string())], ..failed("kubernetes/version", "v1.32.9") },
        Seed { env: vec![("KUBECONFIG", "/nonexistent".into())], ..failed("kubernetes/version", "no cluster") },
        Seed {
            kubectl: vec![revision("0")],
            undo: vec![words("apply -f crds/")],
            ..failed("kubernetes/crds", "is of revision 0; this version needs")
        },
        Seed {
            kubectl: vec![revision("99")],
            undo: vec![words("apply -f crds/")],
            verdict: "warning",
            ..failed("kubernetes/crds", "newer than this version's")
        },
        Seed {
            kubectl: vec![words("delete plans --all")],
            undo: vec![words("apply -f examples/plans.yaml")],
            verdict: "warning",
            ..failed("kubernetes/plans", "there is none")
        },
        Seed {
            env: vec![("KUBECONFIG", without_rights(lab))],
            ..failed("kubernetes/permissions", "may not: list tenants")
        },
    ]
}

pub(super) fn stripe_seeds() -> Vec<Seed> {
    let failed = |check, says| Seed { check, says, verdict: "failed", ..Seed::default() };
    let endpoint = |status: &str, events: &[&str]| {
        let endpoint =
            json!({"url": format!("{FRONTEND}/webhooks/stripe"), "status": status, "enabled_events": events});
        vec![answer("stripe", "/v1/webhook_endpoints", 200, &json!({"data": [endpoint]}))]
    };
    let price = |change: Value| {
        let mut price = json!({"id": "price", "active": true, "unit_amount": 4900, "currency": "usd", "recurring": {"interval": "month"}});
        for (key, value) in change.as_object().into_iter().flatten() {
            price[key] = value.clone();
        }
        vec![answer("stripe", "/v1/prices/price_starter_monthly", 200, &price)]
    };
    let none = json!({});
    vec![
        Seed { faults: vec![answer("stripe", "/v1/account", 401, &none)], ..failed("stripe/key", "Stripe") },
        Seed { env: vec![("STRIPE_SECRET_KEY", String::new())], ..failed("stripe/key", "is not set") },
        Seed {
            env: vec![("STRIPE_SECRET_KEY", "sk_live_x".into())],
            verdict: "warning",
            ..failed("stripe/mode", "a live key")
        },
        Seed {
            faults: vec![answer("stripe", "/v1/account", 200, &json!({"id": "acct_1", "charges_enabled": false}))],
            ..failed("stripe/charges", "acct_1 may not charge yet")
        },
        Seed {
            faults: vec![answer("stripe", "/v1/prices/price_pro", 404, &none)],
            ..failed("stripe/prices", "Plan pro: Stripe has no price")
        },
        Seed { faults: price(json!({"active": false})), ..failed("stripe/prices", "is not active") },
        Seed { faults: price(json!({"recurring": null})), ..failed("stripe/prices", "is not recurring") },
        Seed {
            faults: price(json!({"unit_amount": 1})),
            verdict: "warning",
            ..failed("stripe/prices", "Plan starter shows 4900 usd, Stripe charges 1 usd")
        },
        Seed {
            faults: vec![answer("stripe", "/v1/webhook_endpoints", 200, &json!({"data": []}))],
            ..failed("stripe/webhook", "no endpoint ends with")
        },
        Seed { faults: endpoint("disabled", &["*"]), ..failed("stripe/webhook", "is disabled") },
        Seed {
            faults: endpoint("enabled", &EVENTS[1..]),
            ..failed("stripe/webhook", "does not get checkout.session.completed")
        },
        Seed {
            env: vec![("FRONTEND_URL", "http://elsewhere.example".into())],
            verdict: "warning",
            ..failed("stripe/webhook", "not http://elsewhere")
        },
        Seed {
            env: vec![("STRIPE_WEBHOOK_SECRET", "whsec_a,sk_test_b".into())],
            ..failed("stripe/webhook-secret", "number 2")
        },
        Seed {
            faults: vec![answer("stripe", "/v1/billing_portal/configurations", 200, &json!({"data": []}))],
            verdict: "warning",
            ..failed("stripe/portal", "never saved in this mode")
        },
        Seed {
            faults: vec![answer("stripe", "/v1/subscriptions", 403, &none)],
            ..failed("stripe/subscription", "Stripe")
        },
        Seed {
            faults: vec![
                json!({"provider": "stripe", "path": "/", "status": 404, "date": "Wed, 25 Nov 2020 00:00:00 GMT", "times": 9}),
            ],
            ..failed("clock/skew", "ahead of Stripe's")
        },
    ]
}

pub(super) fn other_seeds(lab: &Lab) -> Vec<Seed> {
    let failed = |check, says| Seed { check, says, verdict: "failed", ..Seed::default() };
    let host = lab.sandbox.pinecone_url.clone();
    let index = json!({"name": "multi-tenant-rag", "dimension": 4096, "host": host});
    let short = json!({"data": [{"index": 0, "embedding": [0.6, 0.8]}]});
    let away = words("--web-url http://127.0.0.1:9");
    let found = json!({"matches": [{"id": "preflight", "score": 1.0}]});
    let none = json!({});
    vec![
        Seed { env: vec![("PINECONE_INDEX", "other".into())], ..failed("pinecone/index", "no index named other") },
        Seed { env: vec![("PINECONE_URL", "http://127.0.0.1:9".into())], ..failed("pinecone/index", "Pinecone") },
        Seed {
            env: vec![("PINECONE_REGIONS", "us-east-1=multi-tenant-rag,eu-central-1=rag-eu".into())],
            ..failed("pinecone/index", "eu-central-1: Pinecone")
        },
        Seed {
            env: vec![("PINECONE_REGIONS", "eu-central-1=multi-tenant-rag-eu".into())],
            ..failed("pinecone/regions", "keeps data in us-east-1, where the operator has no index")
        },
        Seed {
            faults: vec![answer("pinecone", "/indexes", 200, &index)],
            ..failed("pinecone/dimension", "no vectors of 4096 numbers, the index multi-tenant-rag takes 4096")
        },
        Seed {
            faults: vec![answer("openai", "/v1/embeddings", 200, &short)],
            ..failed("pinecone/dimension", "vectors of 2 numbers, the index multi-tenant-rag takes 1536")
        },
        Seed {
            args: words("--pinecone-namespace-limit 0"),
            ..failed("pinecone/capacity", "of 0 namespaces are in use")
        },
        Seed {
            faults: vec![
                json!({"provider": "pinecone", "method": "POST", "path": "/namespaces", "status": 403, "times": 9}),
            ],
            ..failed("pinecone/namespace", "Pinecone")
        },
        Seed {
            faults: vec![answer("pinecone", "/query", 200, &found)],
            ..failed("pinecone/isolation", "found from another")
        },
        Seed { faults: vec![answer("openai", "/v1/embeddings", 404, &none)], ..failed("openai/embedding", "OpenAI") },
        Seed { faults: vec![answer("openai", "/v1/chat", 401, &none)], ..failed("openai/chat", "OpenAI") },
        Seed { env: vec![("SMTP_URL", "smtp://127.0.0.1:9".into())], ..failed("mail/smtp", "cannot be reached") },
        Seed { args: away, ..failed("web/ready", "does not answer") },
        Seed { env: vec![("SMTP_URL", "nonsense".into())], ..failed("mail/smtp", "SMTP_URL") },
        Seed {
            faults: vec![json!({"provider": "smtp", "method": "DATA", "path": "ops@example.com", "status": 550})],
            ..failed("mail/test-mail", "did not take it")
        },
    ]
}

pub(super) fn sender_seeds() -> Vec<Seed> {
    let from = |domain: &str| vec![("FROM_EMAIL", format!("hello@{domain}"))];
    let failed = |check, says, domain| Seed { check, says, verdict: "failed", env: from(domain), ..Seed::default() };
    let warned = |check, says, domain| Seed { verdict: "warning", ..failed(check, says, domain) };
    let selector = |name: &str| vec![("DKIM_SELECTORS", name.to_owned())];
    vec![
        warned("mail/spf", "bare.example has no SPF record", "bare.example"),
        failed("mail/spf", "two.example has 2 SPF records", "two.example"),
        failed("mail/spf", "lets every server send as you", "open.example"),
        warned("mail/dkim", "s1._domainkey.bare.example has no DKIM key", "bare.example"),
        Seed { env: selector("s1,s3"), ..failed("mail/dkim", "s3._domainkey.mail.good.example was revoked", "") },
        warned("mail/dmarc", "_dmarc.bare.example has no DMARC record", "bare.example"),
        failed("mail/dmarc", "has no valid policy: v=DMARC1; p=perhaps", "open.example"),
        failed("mail/dmarc", "_dmarc.two.example has 2 DMARC records", "two.example"),
        Seed { env: vec![("DNS_SERVER", "127.0.0.1:9".into())], ..warned("mail/spf", "DNS: ", "") },
    ]
}
