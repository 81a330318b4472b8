//! Alerts to the platform team by a Slack-compatible webhook.

use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{CallLimits, Caller, ProviderError};
use crate::lifecycle::Provider;

/// As Slack reads it: names and texts of customers hold no markup, no link and no mention of everybody.
/// <https://docs.slack.dev/messaging/formatting-message-text/#escaping>
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Sends alerts; without a URL they go to the log alone.
#[derive(Debug)]
pub struct Alerts {
    url: Option<SecretString>,
    caller: Caller,
}

impl Alerts {
    /// A client of the webhook at `url`, whose path is what lets us write.
    pub fn new(url: Option<SecretString>) -> Self {
        let per_second = NonZeroU32::MIN.saturating_add(9);
        let limits = CallLimits { per_second, timeout: Duration::from_secs(5), retries: 2 };
        Self { url, caller: Caller::new(Provider::AlertWebhook, limits) }
    }

    /// Sends one alert.
    pub async fn send(&self, text: &str) -> Result<(), ProviderError> {
        tracing::warn!(alert = text, "alert");
        if let Some(url) = &self.url {
            self.caller.bytes(|c| c.post(url.expose_secret()).json(&json!({"text": escaped(text)}))).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customers_name_cannot_mention_a_channel() {
        assert_eq!(
            escaped("Tenant a (<!channel> & <https://evil.example|us>)"),
            "Tenant a (&lt;!channel&gt; &amp; &lt;https://evil.example|us&gt;)"
        );
    }
}
