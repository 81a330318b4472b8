//! The settings of leads: messages to the sales team, and entries of the waitlist.

/// How leads are kept.
#[derive(Clone, Debug)]
pub struct LeadConfig {
    /// Seconds after which a lead is deleted.
    pub ttl: i64,
    /// Where the count is published.
    pub operator_namespace: String,
}
