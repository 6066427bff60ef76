//! JSON that is kept as text: compact, shared, read only when somebody looks into it.

use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// One JSON value as text. Cloning shares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawJson(Arc<str>);

impl RawJson {
    /// The same as a tree.
    pub fn parse(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default() // it was checked when it was made
    }

    /// Takes text in that is JSON.
    ///
    /// # Errors
    /// Where it isn't.
    pub fn from_text(text: Arc<str>) -> serde_json::Result<Self> {
        serde_json::from_str::<&RawValue>(&text)?;
        Ok(Self(text))
    }
}

impl From<&Value> for RawJson {
    fn from(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(Box::<str>::from(raw).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_through_as_it_is() {
        let raw: RawJson = serde_json::from_str(r#"{"b":1.50,"a":[ ]}"#).expect("JSON");
        assert_eq!(serde_json::to_string(&raw).expect("JSON"), r#"{"b":1.50,"a":[ ]}"#);
        assert_eq!(raw.parse()["b"], 1.5);
        assert!(RawJson::from_text("{".into()).is_err());
    }
}
