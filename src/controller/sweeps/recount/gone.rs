//! Takes away the documents that a ledger has from its snapshot and that the vector store does not hold: they were
//! deleted after it was taken.
//!
//! A vector store may list late, so a document that is not listed is no proof: the controller fetches its first part, and
//! removes the document only if both looks find nothing twice.

use std::collections::HashSet;

use super::tenant::{Account, Listed};
use super::{RecountError, Unseen};
use crate::api::Unit;
use crate::ledger::names;
use crate::ledger::units::Amounts;
use crate::ledger::wire::{Counted, OldDocument};
use crate::rag;

/// Documents of one answer of the ledger, and of one call to the vector store.
const PAGE: u32 = 100;

/// What the store says of a document that the ledger has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum There {
    /// It is stored.
    Stored,
    /// Another upload of the same content has its place.
    Replaced,
    /// It is not listed.
    Unlisted,
}

impl Listed {
    fn there(&self, id: &str, upload: &str) -> There {
        if self.unread.iter().any(|unread| unread == id) {
            return There::Stored;
        }
        let Some(head) = self.heads.get(id) else { return There::Unlisted };
        // An upload that another one completed: the first one has its place, also where it was too old to be named in the
        // store.
        let same = head.upload.as_deref().is_none_or(|there| there == upload) || head.posted[Unit::Documents] == 0;
        if same { There::Stored } else { There::Replaced }
    }
}

/// Takes away what is gone, and adds it up.
pub async fn take_away(
    account: &Account<'_>,
    listed: &Listed,
    unseen: &Unseen,
    gone: &mut Amounts,
) -> Result<(), RecountError> {
    let (mut after, mut pending, mut unsure) = (String::from("d"), false, false);
    loop {
        let page = account.context.ledger.old_documents(account.id, &after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.operation);
        let there: Vec<_> = page.iter().filter_map(|old| Some((old, look(account, listed, old)?))).collect();
        let ids: Vec<_> =
            there.iter().filter(|(_, (_, there))| *there == There::Unlisted).map(|(_, (id, _))| *id).collect();
        let fetched: HashSet<_> = rag::heads_of(account.index, &account.namespace, &ids).await?.into_iter().collect();
        for (old, (id, there)) in there {
            if there == There::Stored {
                unseen.forget(&old.operation);
            } else if old.pending {
                pending = true;
            } else if there == There::Unlisted
                && (fetched.contains(id) || !unseen.for_long(&old.operation, account.context.clock.read().now))
            {
                unsure = true;
            } else {
                release(account, old).await?;
                unseen.forget(&old.operation);
                *gone = gone.plus(old.amounts);
            }
        }
    }
    match (pending, unsure) {
        (true, _) => Err(RecountError::Pending),
        (_, true) => Err(RecountError::Unsure),
        _ => Ok(()),
    }
}

/// The id of a document that the ledger has, and what the store lists of it. None if its name does not tell the id.
fn look<'a>(account: &Account<'_>, listed: &Listed, old: &'a OldDocument) -> Option<(&'a str, There)> {
    let (id, upload) = names::parts(account.id, &old.operation)?;
    Some((id, listed.there(id, upload)))
}

async fn release(account: &Account<'_>, old: &OldDocument) -> Result<(), RecountError> {
    let body = Counted { tenant: account.tenant.clone(), period: account.period, amounts: old.amounts };
    account.context.ledger.release(&names::gone(&old.operation), &body).await?;
    Ok(())
}
