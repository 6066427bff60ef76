//! Where a directory's skills come from, in the words of `sandbox-agent` 0.4.2.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A group of sources that have one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillsConfig {
    /// The sources.
    pub sources: Vec<SkillSource>,
    /// Members that this version doesn't know: kept in the file, not shown.
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

/// A folder, or a repository, with skills.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillSource {
    /// `local`, `github` or `git`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A folder (relative to the configured directory), `owner/repo`, or what `git clone` takes.
    pub source: String,
    /// Only these; all that are found when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<String>>,
    /// A branch, tag or commit; the repository's default branch when absent.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The folder within the source where skills are looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
    /// Members that this version doesn't know: kept in the file, not shown.
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

impl SkillsConfig {
    /// As clients see it: without members that the contract doesn't know.
    #[must_use]
    pub fn shown(mut self) -> Self {
        self.unknown.clear();
        self.sources.iter_mut().for_each(|source| source.unknown.clear());
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shown_as_the_contract_has_it_and_kept_as_given() {
        let source = json!({"ref": "main", "type": "foo", "source": "s", "zz": 1, "skills": null, "subpath": "p"});
        let config: SkillsConfig = serde_json::from_value(json!({"sources": [source], "more": true})).expect("valid");
        let kept = serde_json::to_value(&config).expect("JSON");
        assert_eq!((&kept["more"], &kept["sources"][0]["zz"]), (&json!(true), &json!(1)));
        let shown = serde_json::to_string(&config.shown()).expect("JSON");
        assert_eq!(shown, r#"{"sources":[{"type":"foo","source":"s","ref":"main","subpath":"p"}]}"#);
        for wrong in [json!({}), json!({"sources": [{"type": "foo"}]}), json!({"sources": [{"source": "foo"}]})] {
            assert!(serde_json::from_value::<SkillsConfig>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
