//! Short texts that many tenants share, such as the reasons and messages of conditions: kept once.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Texts that are kept; what comes after is not shared.
const KEPT: usize = 4096;
/// Longer ones are rarely the same.
const LONGEST: usize = 160;

/// A text that costs little to keep many times. With 10,000 tenants of ten conditions each, this is the difference of
/// some 20 MB.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Arc<str>);

static TEXTS: LazyLock<Mutex<HashSet<Arc<str>>>> = LazyLock::new(Mutex::default);

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        if text.len() > LONGEST {
            return Self(text.into());
        }
        let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = texts.get(text) {
            return Self(kept.clone());
        }
        let new: Arc<str> = text.into();
        if texts.len() < KEPT {
            texts.insert(new.clone());
        }
        Self(new)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self)
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&**self, f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(&*Cow::<str>::deserialize(deserializer)?))
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_kept_once_and_a_long_one_is_not_kept() {
        let json = r#""a reason that only this test has""#;
        let [a, b]: [Text; 2] = [(); 2].map(|()| serde_json::from_str(json).expect("a text"));
        assert!(a == b && Arc::ptr_eq(&a.0, &b.0));
        assert_eq!(serde_json::to_string(&a).expect("JSON"), json);
        let long = "x".repeat(LONGEST + 1);
        let (a, b) = (Text::from(long.as_str()), Text::from(long.as_str()));
        assert!(a == b && !Arc::ptr_eq(&a.0, &b.0));
    }
}
