//! Which provider is the real one: the one whose key the user has set. The sandbox stands in for every other.

use std::path::Path;

use tenant_operator_sandbox::Sandbox;
use tokio::process::Command;
use url::Url;

const SANDBOX_STRIPE_KEY: &str = "sk_test_sandbox";

/// What the `env` file shows of the providers, with the real one's address.
const SHOWN: [(&str, &str); 8] = [
    ("PINECONE_URL", "https://api.pinecone.io"),
    ("PINECONE_API_KEY", ""),
    ("STRIPE_URL", "https://api.stripe.com"),
    ("STRIPE_SECRET_KEY", ""),
    ("OPENAI_BASE_URL", "https://api.openai.com/v1"),
    ("OPENAI_API_KEY", ""),
    ("SMTP_URL", ""),
    ("FRONTEND_URL", ""),
];

/// The variable of the `env` file that lists what it sets for the sandbox, as NAME=value. A variable that still has
/// this value was not set by the user: `source .dev/env; make dev` starts anew with the sandbox.
const SET_FOR_SANDBOX: &str = "SET_FOR_SANDBOX";

/// The providers' variables for controller and web. Variables that are not named here are the user's.
pub struct Providers {
    /// Whether payments go to the real Stripe.
    pub real_stripe: bool,
    /// The secret of the user's own webhook endpoint at the real Stripe, such as that of `stripe listen`.
    webhook_secret: Option<String>,
    /// What the sandbox stands in for.
    set: Vec<(&'static str, String)>,
    /// What an earlier run set for its sandbox.
    unset: Vec<String>,
    /// Lines for the `env` file.
    pub shown: Vec<(&'static str, String)>,
}

/// The variables of the user.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Providers {
    /// The webhook secrets of web: that of the endpoint at the sandbox, and the user's.
    pub fn webhook_secrets(&self, sandbox: &str) -> String {
        [Some(sandbox), self.webhook_secret.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(",")
    }

    /// Looks at the user's variables. `folder` is for the exports.
    pub fn choose(variables: Variables, sandbox: &Sandbox, web_url: &str, folder: &Path) -> Self {
        let earlier = variables(SET_FOR_SANDBOX).unwrap_or_default();
        let earlier = earlier.split(' ').filter_map(|set| set.split_once('='));
        let unset: Vec<_> = earlier
            .filter(|(name, value)| variables(name).as_deref() == Some(*value))
            .map(|(name, _)| name.to_owned())
            .collect();
        let users = |name: &str| variables(name).filter(|value| !value.is_empty() && !unset.iter().any(|u| u == name));
        let mut set = Vec::new();
        let mut stand_in = |for_lack_of: &[&str], values: &[(&'static str, &str)]| {
            let real = for_lack_of.iter().any(|name| users(name).is_some());
            if !real {
                set.extend(values.iter().map(|(name, value)| (*name, (*value).to_owned())));
            }
            real
        };
        let real_stripe = stand_in(
            &["STRIPE_SECRET_KEY"],
            &[("STRIPE_SECRET_KEY", SANDBOX_STRIPE_KEY), ("STRIPE_URL", &sandbox.stripe_url), ("STRIPE_RATE", "1000")],
        );
        stand_in(
            &["PINECONE_API_KEY"],
            &[("PINECONE_API_KEY", "pc-sandbox"), ("PINECONE_URL", &sandbox.pinecone_url), ("PINECONE_RATE", "1000")],
        );
        stand_in(
            &["OPENAI_API_KEY", "OPENAI_BASE_URL"],
            &[("OPENAI_API_KEY", "sk-sandbox"), ("OPENAI_BASE_URL", &sandbox.openai_url)],
        );
        stand_in(&["SMTP_URL"], &[("SMTP_URL", &format!("smtp://{}", sandbox.smtp_addr))]);
        stand_in(&["ALERT_WEBHOOK_URL"], &[("ALERT_WEBHOOK_URL", &format!("{}/_sandbox/alerts", sandbox.url))]);
        stand_in(&["FRONTEND_URL"], &[("FRONTEND_URL", web_url)]);
        if let Ok(exports) = Url::from_file_path(folder.join("exports")) {
            stand_in(&["EXPORTS_URL"], &[("EXPORTS_URL", exports.as_str())]);
        }
        if !real_stripe || users("STRIPE_PORTAL_KEY").is_none() {
            let key = if real_stripe { users("STRIPE_SECRET_KEY") } else { None };
            set.push(("STRIPE_PORTAL_KEY", key.unwrap_or_else(|| SANDBOX_STRIPE_KEY.into())));
        }
        let given = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.clone());
        let value = |(name, real): (&'static str, &str)| {
            (name, given(name).or_else(|| users(name)).unwrap_or_else(|| real.to_owned()))
        };
        let mut shown = SHOWN.map(value).to_vec();
        let openai =
            shown.iter().find(|(name, _)| *name == "OPENAI_BASE_URL").map(|(_, url)| ("OPENAI_URL", url.clone()));
        shown.extend(openai);
        let listed = SHOWN.iter().filter_map(|(name, _)| Some(format!("{name}={}", given(name)?)));
        let listed = listed.collect::<Vec<_>>().join(" ");
        shown.push((SET_FOR_SANDBOX, listed));
        let webhook_secret = users("STRIPE_WEBHOOK_SECRET").filter(|_| real_stripe);
        Self { real_stripe, webhook_secret, set, unset, shown }
    }

    /// The program gets the user's variables with these changes.
    pub fn tell(&self, command: &mut Command) {
        for name in &self.unset {
            command.env_remove(name);
        }
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::{IpAddr, Ipv4Addr};

    use tenant_operator_sandbox::SandboxConfig;

    use super::*;

    async fn sandbox() -> Sandbox {
        tenant_operator::cli::install_crypto();
        Sandbox::start(SandboxConfig {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            advertise: None,
            ports: [0; 5],
            webhook_secret: "whsec_test".into(),
            webhook_url: None,
            latency_ms: 0,
            data: None,
        })
        .await
        .expect("it starts")
    }

    /// What the `env` file of a start with these variables sets.
    fn shell(user: &HashMap<&str, String>, sandbox: &Sandbox, web: &str) -> (HashMap<&'static str, String>, Providers) {
        let chosen = Providers::choose(&|name| user.get(name).cloned(), sandbox, web, Path::new("/dev-folder"));
        (chosen.shown.iter().cloned().collect(), chosen)
    }

    #[tokio::test]
    async fn a_provider_is_real_when_its_key_is_set() {
        let sandbox = sandbox().await;
        let user = HashMap::from([
            ("STRIPE_SECRET_KEY", "sk_test_mine".to_owned()),
            ("STRIPE_WEBHOOK_SECRET", "whsec_mine".to_owned()),
            ("SMTP_URL", String::new()),
        ]);
        let (shell, chosen) = shell(&user, &sandbox, "http://web");
        assert!(chosen.real_stripe);
        assert_eq!(shell["STRIPE_URL"], "https://api.stripe.com");
        assert_eq!(shell["STRIPE_SECRET_KEY"], "sk_test_mine");
        assert_eq!(shell["PINECONE_URL"], sandbox.pinecone_url);
        assert_eq!(shell["SMTP_URL"], format!("smtp://{}", sandbox.smtp_addr));
        assert!(chosen.set.contains(&("STRIPE_PORTAL_KEY", "sk_test_mine".into())));
        assert_eq!(chosen.webhook_secrets("whsec_sandbox"), "whsec_sandbox,whsec_mine");
    }

    #[tokio::test]
    async fn what_an_earlier_run_set_for_its_sandbox_is_not_the_users() {
        let (first, second) = (sandbox().await, sandbox().await);
        let (mut user, _) = shell(&HashMap::new(), &first, "http://first");
        let (again, chosen) = shell(&user, &second, "http://second");
        assert!(!chosen.real_stripe);
        assert_eq!(chosen.webhook_secrets("whsec_sandbox"), "whsec_sandbox");
        assert_eq!(again["STRIPE_URL"], second.stripe_url);
        assert_eq!(again["OPENAI_BASE_URL"], second.openai_url);
        assert_eq!(again["FRONTEND_URL"], "http://second");
        // A key that the user sets in this shell is the user's, and its provider's old address is not.
        user.insert("STRIPE_SECRET_KEY", "sk_test_mine".into());
        let (real, chosen) = shell(&user, &second, "http://second");
        assert!(chosen.real_stripe && chosen.unset.contains(&"STRIPE_URL".to_owned()));
        assert_eq!(real["STRIPE_URL"], "https://api.stripe.com");
        assert_eq!(real["PINECONE_URL"], second.pinecone_url);
    }
}
