//! The names of operations that several parts of the operator use: the same name is the same operation, and counts
//! once.

use sha2::{Digest, Sha256};

/// The longest name of a document's operation: the ledger takes 128 characters, and its release and what is beyond it
/// have longer names.
const LONGEST: usize = 112;

/// What a document's upload is counted as. `upload` tells it from others of the same content.
pub fn document(tenant: &str, id: &str, upload: &str) -> String {
    fitted(format!("{}{id}-{upload}", documents(tenant)))
}

/// How the names of a tenant's documents begin.
pub fn documents(tenant: &str) -> String {
    format!("d-{tenant}-")
}

/// The deletion of a document that was counted under this name.
pub fn gone(document: &str) -> String {
    format!("gone-{document}")
}

/// The id and the upload of a document that was counted under this name for a tenant. None if the name was too long to
/// tell.
pub fn parts<'a>(tenant: &str, document: &'a str) -> Option<(&'a str, &'a str)> {
    document.strip_prefix(&documents(tenant))?.rsplit_once('-')
}

/// The name itself, or a digest where it is too long.
pub fn fitted(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let kind = name.split('-').next().unwrap_or_default();
    format!("{kind}-{}", hex::encode(Sha256::digest(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_told_by_its_name() {
        let name = document("acme-1", "0a", "f7");
        assert_eq!((name.as_str(), parts("acme-1", &name)), ("d-acme-1-0a-f7", Some(("0a", "f7"))));
        assert_eq!(gone(&name), "gone-d-acme-1-0a-f7");
        assert_eq!(parts("other", &name), None);
        let long = document(&"t".repeat(120), "0a", "f7");
        assert!(long.starts_with("d-") && long.len() == 66 && parts(&"t".repeat(120), &long).is_none(), "{long}");
    }
}
