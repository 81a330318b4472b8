//! Whether what a key reaches is what is pinned.

use std::collections::BTreeMap;

use super::{Pins, Region};
use crate::providers::stripe::Identity;
use crate::providers::vector_store::IndexIdentity;

/// What a look at the pins says of something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is as pinned.
    Same,
    /// Nothing is pinned yet.
    New,
    /// It is something else. What, and the fix.
    Another {
        /// A sentence.
        what: String,
        /// A sentence.
        fix: String,
    },
}

impl Pins {
    /// Whether this is the account that the tenants pay.
    pub fn compare_stripe(&self, found: &Identity) -> Finding {
        match &self.stripe {
            None => Finding::New,
            Some(pinned) if pinned == found => Finding::Same,
            Some(pinned) => Finding::Another {
                what: format!("the key is of {found}, and the tenants pay to {pinned}: nothing is done at Stripe"),
                fix: format!(
                    "Correct STRIPE_SECRET_KEY. To change the account on purpose, run `{} --stripe-account {} --livemode {}`",
                    self.command(),
                    found.account,
                    found.livemode
                ),
            },
        }
    }

    /// Whether these are the indexes that the tenants' documents are in. If regions are added or removed, the index
    /// that holds the documents stays in use.
    pub fn compare_index(&self, region: Option<&str>, found: &BTreeMap<Region, IndexIdentity>) -> Finding {
        let region = region.map(str::to_owned);
        let Some(here) = found.get(&region) else { return Finding::New };
        let pinned = match (self.indexes.get(&region), self.indexes.get(&None)) {
            // One index for all, of which there may have been several before.
            _ if region.is_none() => self.indexes.values().find(|pinned| *pinned != here),
            (Some(pinned), _) => Some(pinned).filter(|pinned| *pinned != here),
            // One index becomes one of several.
            (None, Some(all)) => Some(all).filter(|all| !found.values().any(|index| index == *all)),
            (None, None) => None,
        };
        match pinned {
            None if self.indexes.contains_key(&region) => Finding::Same,
            None => Finding::New,
            Some(pinned) => Finding::Another {
                what: format!(
                    "the key reaches {here}, and the tenants' documents are in {pinned}: nothing is done there"
                ),
                fix: format!(
                    "Correct PINECONE_API_KEY, PINECONE_INDEX and PINECONE_REGIONS, or restore the index from a backup. To use \
                     this index on purpose, run `{} --pinecone-index {} --pinecone-host {} --dimension {}{}`",
                    self.command(),
                    here.index,
                    here.host,
                    here.dimension,
                    region.map_or_else(String::new, |region| format!(" --region {region}"))
                ),
            },
        }
    }

    /// The command that pins something, up to its arguments.
    fn command(&self) -> String {
        format!("kubectl tenant pin --operator-namespace {}", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(account: &str, livemode: bool) -> Identity {
        Identity { account: account.into(), livemode }
    }

    fn index(name: &str, host: &str) -> IndexIdentity {
        IndexIdentity { index: name.into(), host: host.into(), dimension: 1536 }
    }

    fn of(all: &[(Option<&str>, IndexIdentity)]) -> BTreeMap<Region, IndexIdentity> {
        all.iter().map(|(region, index)| (region.map(str::to_owned), index.clone())).collect()
    }

    #[test]
    fn another_account_or_mode_is_refused_with_the_command_that_changes_it() {
        let pins = Pins { stripe: Some(account("acct_1", true)), namespace: "rag".into(), ..Pins::default() };
        assert_eq!(pins.compare_stripe(&account("acct_1", true)), Finding::Same);
        assert_eq!(Pins::default().compare_stripe(&account("acct_1", true)), Finding::New);
        for other in [account("acct_2", true), account("acct_1", false)] {
            let Finding::Another { what, fix } = pins.compare_stripe(&other) else { panic!("refused: {other}") };
            assert!(
                what.contains("acct_1 (live mode)")
                    && fix.contains("kubectl tenant pin --operator-namespace rag --stripe-account"),
                "{what} {fix}"
            );
        }
    }

    #[test]
    fn an_index_of_another_name_host_or_dimension_is_refused() {
        let pins = Pins { indexes: of(&[(None, index("rag", "a"))]), ..Pins::default() };
        let found = |there: IndexIdentity| pins.compare_index(None, &of(&[(None, there)]));
        assert_eq!(found(index("rag", "a")), Finding::Same);
        let anew = [index("rag", "b"), index("other", "a"), IndexIdentity { dimension: 3072, ..index("rag", "a") }];
        for there in anew {
            assert!(matches!(found(there.clone()), Finding::Another { .. }), "{there}");
        }
    }

    #[test]
    fn the_index_of_all_regions_stays_in_use_when_regions_are_added_or_merged() {
        let one = Pins { indexes: of(&[(None, index("rag", "a"))]), ..Pins::default() };
        let (us, eu) = ((Some("us"), index("rag", "a")), (Some("eu"), index("rag-eu", "b")));
        let both = of(&[us.clone(), eu.clone()]);
        assert_eq!(one.compare_index(Some("us"), &both), Finding::New);
        assert_eq!(one.compare_index(Some("eu"), &both), Finding::New);
        let without = of(&[(Some("us"), index("fresh", "c")), eu.clone()]);
        assert!(matches!(one.compare_index(Some("us"), &without), Finding::Another { .. }));
        let several = Pins { indexes: of(&[us.clone(), eu]), ..Pins::default() };
        assert!(
            matches!(several.compare_index(None, &of(&[(None, us.1)])), Finding::Another { .. }),
            "one is left out"
        );
        assert_eq!(several.compare_index(Some("ap"), &of(&[(Some("ap"), index("rag-ap", "d"))])), Finding::New);
    }
}
