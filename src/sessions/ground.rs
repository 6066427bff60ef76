//! The ground that a session stands on: its roots, and a working tree of its own.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A directory that paths in a session's name stay beneath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// As it was named: an absolute path.
    pub path: String,
    /// Where it really was then, without links.
    pub real: String,
}

/// Roots as they were named.
pub(super) fn named(roots: &[Root]) -> Vec<&str> {
    roots.iter().map(|root| root.path.as_str()).collect()
}

/// Shows them so.
#[allow(clippy::ref_option)] // serde's signature
pub(super) fn show<S: serde::Serializer>(roots: &Option<Vec<Root>>, serializer: S) -> Result<S::Ok, S::Error> {
    roots.as_deref().map(named).serialize(serializer)
}

/// A working tree of a git repository for a session of its own.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionWorktree {
    /// A directory in the repository.
    pub repository: String,
    /// The directory to make, the one above it is there; beside `repository`, with the session's id behind its name, when absent.
    #[serde(default)]
    pub target: Option<String>,
    /// The branch to check out, made when it isn't there; without one, the commit alone is checked out.
    #[serde(default)]
    pub branch: Option<String>,
    /// The commit, branch or tag that a new branch begins with; what is checked out when absent.
    #[serde(default)]
    pub base: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::super::types::SessionDoc;
    use super::*;

    #[test]
    fn a_document_that_can_not_be_read_leads_nowhere() {
        assert_eq!(SessionDoc::of("{").roots, Some(Vec::new()));
        assert_eq!(SessionDoc::of(r#"{"roots": ["/plain"]}"#).roots, Some(Vec::new()));
        assert_eq!(SessionDoc::of("{}").roots, None, "as sessions were before there were any");
        let root = Root { path: "/a".to_owned(), real: "/b".to_owned() };
        let doc = SessionDoc { roots: Some(vec![root.clone()]), ..SessionDoc::default() };
        let text = serde_json::to_string(&doc).expect("plain");
        assert_eq!((SessionDoc::of(&text).roots, named(&[root])), (doc.roots, vec!["/a"]));
    }
}
