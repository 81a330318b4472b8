//! The settings of the lifecycle.

use std::collections::BTreeSet;

/// Until when a customer who signed up must have proved to read the e-mail address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmailVerification {
    /// Before anything is set up. The payment is taken meanwhile.
    #[default]
    BeforeProvisioning,
    /// Before there is a payment link.
    BeforePayment,
    /// Never.
    Off,
}

/// The regions that have an index of their own. If empty, one index holds the data of all regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regions(BTreeSet<String>);

impl FromIterator<String> for Regions {
    fn from_iter<T: IntoIterator<Item = String>>(names: T) -> Self {
        Self(names.into_iter().collect())
    }
}

impl Regions {
    /// Whether one index holds the data of all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why the data of a plan cannot be kept in its region, if so.
    pub fn unsupported(&self, plan: &str, region: &str) -> Option<String> {
        let known = self.is_empty() || self.0.contains(region);
        let regions: Vec<_> = self.0.iter().map(String::as_str).collect();
        (!known).then(|| {
            format!(
                "Plan {plan} keeps data in {region}, where the operator has no index. Choose a Plan of one of its regions ({}), or \
                 name an index for {region} in PINECONE_REGIONS",
                regions.join(", ")
            )
        })
    }
}

/// The waits before each retry of provisioning, in seconds, unless the settings say otherwise.
pub const RETRY_WAITS: [i64; 3] = [60, 120, 240];

/// How soon a card that was declined is charged again, in seconds: each attempt is a charge of its own at the
/// customer's bank.
pub const CARD_RETRY: i64 = 24 * 3600;

/// How long an upload may take, in seconds, unless the settings of web and of the controller say otherwise: a file of
/// 10 MB that is sent, read, embedded and stored.
pub const UPLOAD_LIMIT: i64 = 300;

/// Waits and limits, in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The waits between attempts to provision; as many retries as entries.
    pub retry_waits: Vec<i64>,
    /// Each wait is lengthened by up to this percentage.
    pub jitter_percent: u32,
    /// The limit of one attempt.
    pub attempt_limit: i64,
    /// A signup that is not paid for after this long is removed. An expired payment link of any other tenant that was
    /// never served is replaced for as long.
    pub signup_ttl: i64,
    /// How long after the end of its subscription a suspended tenant's expired payment link is replaced.
    pub link_renewal: i64,
    /// Until when the e-mail address of a signup must be proved.
    pub email_verification: EmailVerification,
    /// A signup that is paid for, and whose address is not proved after this long, is Failed and refunded.
    pub verification_limit: i64,
    /// How long after Active a customer who has asked no question is reminded; 0 for never.
    pub nudge_after: i64,
    /// How long after the closing of an account its customer is invited back, once; 0 for never.
    pub win_back_after: i64,
    /// Whether customers get the data-processing agreement.
    pub data_processing_agreement: bool,
    /// How long a tenant is served whose payment is late.
    pub payment_grace: i64,
    /// Whether a tenant whose customer disputes a payment is suspended until that is over.
    pub suspend_disputed: bool,
    /// How often the controller looks for changes at Stripe that no webhook reported.
    pub resync: i64,
    /// How often everything at Stripe and the vector store is compared.
    pub full_resync: i64,
    /// Paid and not Active after this long is slow.
    pub slow_after: i64,
    /// The wait before a failed notice or cleanup is retried; it doubles with each failure in a row, up to 32 times.
    pub notice_retry: i64,
    /// A login Secret without a Tenant is deleted after this long.
    pub orphan_ttl: i64,
    /// How long an upload that began before a tenant was closed may still write. After this, an erasure deletes the
    /// data again.
    pub upload_limit: i64,
    /// The wait before a tenant on hold is tried again.
    pub hold_retry: i64,
    /// A tenant that is on hold for this long is Failed, and refunded, unless it was served before.
    pub hold_limit: i64,
    /// Whether transitions are shipped to a transition log.
    pub outbox: bool,
    /// How long the files of an export are kept. None if no storage for exports is set.
    pub exports_kept: Option<i64>,
    /// An export that is not complete after this long is Failed.
    pub export_limit: i64,
    /// The regions that have an index of their own. If empty, one index holds the data of all regions.
    pub regions: Regions,
    /// How long the old vectors are kept after a tenant's data was moved. Until then, no other move begins.
    pub migration_overlap: i64,
    /// A move of data that is not complete after this long is given up.
    pub migration_limit: i64,
    /// While the controller is overloaded, a welcome e-mail waits this long at most.
    pub welcome_hold: i64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retry_waits: RETRY_WAITS.into(),
            jitter_percent: 10,
            attempt_limit: 300,
            signup_ttl: 7 * 24 * 3600,
            link_renewal: 24 * 3600,
            email_verification: EmailVerification::default(),
            verification_limit: 7 * 24 * 3600,
            nudge_after: 24 * 3600,
            win_back_after: 7 * 24 * 3600,
            data_processing_agreement: false,
            payment_grace: 7 * 24 * 3600,
            suspend_disputed: false,
            resync: 600,
            full_resync: 3600,
            slow_after: 300,
            notice_retry: 30,
            orphan_ttl: 3600,
            upload_limit: UPLOAD_LIMIT,
            hold_retry: 30,
            hold_limit: 3600,
            outbox: true,
            exports_kept: None,
            export_limit: 24 * 3600,
            regions: Regions::default(),
            migration_overlap: 3600,
            migration_limit: 24 * 3600,
            welcome_hold: 20,
        }
    }
}

impl Policy {
    /// The wait between attempts whose number has no limit.
    pub fn longest_wait(&self) -> i64 {
        self.retry_waits.iter().copied().max().unwrap_or(self.hold_retry)
    }

    /// The wait after the `failed`-th failed attempt, or None when no attempt is left. The jitter depends on the
    /// tenant alone, so that the same decision is made twice.
    pub fn wait_after(&self, failed: u32, tenant_id: &str) -> Option<i64> {
        let wait = *self.retry_waits.get(usize::try_from(failed).ok()?.checked_sub(1)?)?;
        let spread = wait * i64::from(self.jitter_percent) / 100;
        let sum: i64 = tenant_id.bytes().map(i64::from).sum::<i64>() + i64::from(failed) * 7;
        Some(wait + if spread > 0 { sum % (spread + 1) } else { 0 })
    }
}
