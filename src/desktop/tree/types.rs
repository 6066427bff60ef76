//! What clients ask of the accessibility tree, and what they are told.

use accessibility::{Cut, CutReason, MAX_NODES, MAX_TEXT_CHARS, Match, Node, NodeId, Query, Silent, TextMatch, Tree};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::config::{Bounds, as_duration, as_usize};
use crate::desktop::Error;

/// Which part of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct TreeScope {
    /// Programs whose name has this in it, whatever its case.
    pub application: Option<String>,
    /// The program with this pid.
    pub pid: Option<u32>,
    /// Windows whose title has this in it, whatever its case.
    pub window: Option<String>,
    /// The id of a node: it and what is below it. The three above don't count then.
    pub root: Option<String>,
    /// Leaves out what isn't drawn, with all below it: closed menus, hidden tabs.
    pub visible_only: Option<bool>,
    /// 0 is only programs, 1 their windows, too; below `root`, 0 is `root`. 100 when absent.
    pub max_depth: Option<usize>,
    /// Nodes that are visited, 1 to 20 000, those nearest to the top first. When absent, 2 000 for a tree, 20 000 to find one.
    pub max_nodes: Option<usize>,
    /// Characters of each node's text, to 20 000; 1 000 when absent.
    pub text_chars: Option<usize>,
}

/// Which nodes. All that is given must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeMatch {
    /// A role, as `button`; several are divided by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// All of its name, whatever its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A part of its name, whatever its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_contains: Option<String>,
    /// All of its text, whatever its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A part of its text, whatever its case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_contains: Option<String>,
    /// States that it has, all of them, as `showing`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
}

/// Nodes to look for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeFind {
    /// Where.
    #[serde(flatten)]
    pub scope: TreeScope,
    /// Which.
    #[serde(flatten)]
    pub wanted: NodeMatch,
    /// Waits so long until there is one, to 60 000; 0 when absent.
    pub timeout_ms: Option<u64>,
}

/// Nodes to find.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindSpec {
    /// What to look for.
    #[serde(flatten)]
    pub find: NodeFind,
    /// So many at most, those nearest to the top first; 20 when absent.
    pub limit: Option<usize>,
}

/// A rectangle in pixels of the screen, as pointer calls count them. It may lie outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[allow(missing_docs)]
pub struct NodeBounds {
    pub x: i32,
    pub y: i32,
    pub width: i32,
    pub height: i32,
}

/// The number of a slider, a spin button, a scroll bar.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[allow(missing_docs)]
pub struct NodeValue {
    pub current: f64,
    pub minimum: f64,
    pub maximum: f64,
}

/// One node of the tree.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TreeNode {
    /// For other calls; void once its program or the accessibility bus has ended.
    pub id: String,
    /// The id of the node above it; absent for a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// 0 for a program, 1 for a window; below `root`, and for a single node, 0 is that.
    pub depth: usize,
    /// The standard's name, as `menu item`, `button`, `frame` (a window).
    pub role: String,
    /// At most 1 000 characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// At most 1 000 characters.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The standard's names, as `focused`, `showing`, `editable`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<&'static str>,
    /// Where it is; absent when it isn't on the screen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<NodeBounds>,
    /// What can be done with it, by name; at most 32.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// The beginning of its text. An object within it is U+FFFC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Characters of the whole text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_length: Option<usize>,
    /// Its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<NodeValue>,
    /// Children that it says it has.
    pub child_count: usize,
}

/// Why nodes are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TreeCutReason {
    /// `maxNodes`, or more than 200 programs.
    MaxNodes,
    /// `desktop_accessibility_answer_max_bytes`.
    MaxBytes,
    /// `maxDepth`.
    MaxDepth,
    /// `desktop_accessibility_timeout_ms`.
    Timeout,
    /// `limit`: there may be more.
    Limit,
    /// A node with more than 2 000 children: the first 100 are visited.
    ManyChildren,
    /// The program refuses to tell of a node.
    Unreadable,
}

/// Nodes that are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TreeCut {
    /// Why.
    pub reason: TreeCutReason,
    /// How many are known of, without what is below them.
    pub at_least: usize,
}

/// A program of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TreeApplication {
    /// Its top node.
    pub id: String,
    /// What it calls itself; with `root`, that node's name.
    pub name: String,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Nodes of it that were visited.
    pub visited: usize,
}

/// A program that doesn't answer, or not to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SilentApplication {
    /// Its top node.
    pub id: String,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Why it was given up.
    pub message: String,
}

/// The tree, or a part of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TreeAnswer {
    /// Each after the one above it, in their order.
    pub nodes: Vec<TreeNode>,
    /// Programs that were looked at.
    pub applications: Vec<TreeApplication>,
    /// Whether a bound left something out.
    pub truncated: bool,
    /// What, and which bound.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<TreeCut>,
    /// Programs that don't answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<SilentApplication>,
}

/// Nodes that fit.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundNodes {
    /// Those that fit, none if none does, as a part of the tree.
    #[serde(flatten)]
    pub tree: TreeAnswer,
    /// How long it took.
    pub waited_ms: u64,
}

impl TreeScope {
    /// # Errors
    /// [`Error::Invalid`]: what is out of range, or no role.
    pub(super) fn query(&self, bounds: &Bounds, usual_nodes: usize, role: Option<&str>) -> Result<Query, Error> {
        let max_nodes = self.max_nodes.unwrap_or(usual_nodes);
        if !(1..=MAX_NODES).contains(&max_nodes) {
            return Err(Error::Invalid(format!("maxNodes is 1 to {MAX_NODES}, not {max_nodes}")));
        }
        let usual = Query::default();
        let text_chars = self.text_chars.unwrap_or(usual.text_chars);
        if text_chars > MAX_TEXT_CHARS {
            return Err(Error::Invalid(format!("textChars is at most {MAX_TEXT_CHARS}, not {text_chars}")));
        }
        Ok(Query {
            application: self.application.clone(),
            pid: self.pid,
            window: self.window.clone(),
            root: self.root.as_deref().map(NodeRef::parse).transpose()?.map(|root| root.id),
            max_nodes,
            max_depth: self.max_depth.unwrap_or(usual.max_depth),
            visible_only: self.visible_only.unwrap_or(usual.visible_only),
            roles: roles(role)?,
            text_chars,
            max_bytes: as_usize(bounds.desktop_accessibility_answer_max_bytes),
            answer_timeout: as_duration(bounds.desktop_accessibility_silence_ms),
            timeout: as_duration(bounds.desktop_accessibility_timeout_ms),
            ..usual
        })
    }
}

impl NodeMatch {
    /// # Errors
    /// [`Error::Invalid`]: what is no role or state, or contradicts itself.
    pub(super) fn wanted(&self) -> Result<Match, Error> {
        if let Some(state) = self.states.iter().find(|state| !accessibility::is_state(state)) {
            return Err(Error::Invalid(format!("no state is called {state:?}; there are showing, enabled, focused, checked, …")));
        }
        let text = |exact: &Option<String>, part: &Option<String>, field: &str| match (exact, part) {
            (Some(_), Some(_)) => Err(Error::Invalid(format!("{field} and {field}Contains exclude each other"))),
            (Some(all), None) => Ok(Some(TextMatch::Exact(all.clone()))),
            (None, part) => Ok(part.clone().map(TextMatch::Contains)),
        };
        Ok(Match {
            name: text(&self.name, &self.name_contains, "name")?,
            text: text(&self.text, &self.text_contains, "text")?,
            roles: roles(self.role.as_deref())?,
            states: self.states.clone(),
        })
    }
}

/// An id as clients have it: `1.4/149@9f86d081`. The tag of its bus is in it, because another bus gives the same ids to other
/// nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeRef {
    id: NodeId,
    bus_tag: String,
}

impl NodeRef {
    pub(super) fn new(id: NodeId, bus_tag: String) -> Self {
        Self { id, bus_tag }
    }

    /// # Errors
    /// [`Error::Invalid`].
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let (id, bus_tag) = text.rsplit_once('@').unwrap_or((text, ""));
        let id = id.parse().map_err(|error: accessibility::Error| Error::Invalid(error.to_string()))?;
        Ok(Self { id, bus_tag: bus_tag.to_owned() })
    }

    /// The node on the bus with this tag.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`]: its bus ended.
    pub(super) fn on(self, bus_tag: &str) -> Result<NodeId, Error> {
        match self.bus_tag == bus_tag {
            true => Ok(self.id),
            false => Err(Error::NodeNotFound(format!("no node has the id {}: its accessibility bus ended", self.id))),
        }
    }

    pub(super) fn written(id: &NodeId, bus_tag: &str) -> String {
        format!("{id}@{bus_tag}")
    }
}

fn roles(text: Option<&str>) -> Result<Vec<String>, Error> {
    let roles: Vec<String> = text.into_iter().flat_map(|text| text.split(',')).map(|role| role.trim().to_owned()).collect();
    match roles.iter().find(|role| !accessibility::is_role(role)) {
        Some(role) => {
            Err(Error::Invalid(format!("no role is called {role:?}; there are button, menu item, entry, text, link, …")))
        }
        None => Ok(roles),
    }
}

impl TreeNode {
    pub(super) fn of(node: Node, bus_tag: &str) -> Self {
        let bounds = node.bounds.map(|at| NodeBounds { x: at.x, y: at.y, width: at.width, height: at.height });
        let value = node.value.map(|value| NodeValue { current: value.current, minimum: value.minimum, maximum: value.maximum });
        Self {
            id: NodeRef::written(&node.id, bus_tag),
            parent: node.parent.map(|parent| NodeRef::written(&parent, bus_tag)),
            depth: node.depth,
            role: node.role,
            name: node.name,
            description: node.description,
            states: node.states,
            bounds,
            actions: node.actions,
            text: node.text,
            text_length: node.text_length,
            value,
            child_count: node.child_count,
        }
    }
}

impl TreeAnswer {
    pub(super) fn of(tree: Tree, bus_tag: &str) -> Self {
        let application = |application: accessibility::Application| TreeApplication {
            id: NodeRef::written(&application.id, bus_tag),
            name: application.name,
            pid: application.pid,
            visited: application.visited,
        };
        let silent = |Silent { id, pid, error }: Silent| SilentApplication {
            id: NodeRef::written(&id, bus_tag),
            pid,
            message: error.to_string(),
        };
        Self {
            truncated: tree.is_truncated(),
            nodes: tree.nodes.into_iter().map(|node| TreeNode::of(node, bus_tag)).collect(),
            applications: tree.applications.into_iter().map(application).collect(),
            cuts: tree.cuts.into_iter().map(TreeCut::from).collect(),
            silent: tree.silent.into_iter().map(silent).collect(),
        }
    }
}

impl From<Cut> for TreeCut {
    fn from(cut: Cut) -> Self {
        let reason = match cut.reason {
            CutReason::MaxNodes => TreeCutReason::MaxNodes,
            CutReason::MaxBytes => TreeCutReason::MaxBytes,
            CutReason::MaxDepth => TreeCutReason::MaxDepth,
            CutReason::Timeout => TreeCutReason::Timeout,
            CutReason::Limit => TreeCutReason::Limit,
            CutReason::ManyChildren => TreeCutReason::ManyChildren,
            CutReason::Unreadable => TreeCutReason::Unreadable,
        };
        Self { reason, at_least: cut.at_least }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_or_unknown_is_named() {
        let bounds = Bounds::default();
        let wrong = [
            TreeScope { max_nodes: Some(0), ..TreeScope::default() },
            TreeScope { max_nodes: Some(20_001), ..TreeScope::default() },
            TreeScope { text_chars: Some(20_001), ..TreeScope::default() },
            TreeScope { root: Some("../x@1".into()), ..TreeScope::default() },
        ];
        for scope in wrong {
            assert!(matches!(scope.query(&bounds, 1, None), Err(Error::Invalid(_))), "{scope:?}");
        }
        let query = TreeScope::default().query(&bounds, 7, Some("button, menu item")).expect("a query");
        assert_eq!((query.max_nodes, query.roles), (7, vec!["button".to_owned(), "menu item".to_owned()]));
        assert!(TreeScope::default().query(&bounds, 1, Some("buton")).is_err());
    }

    #[test]
    fn an_id_is_of_its_bus() {
        let id = NodeRef::parse("1.4/149@abc").expect("an id");
        assert_eq!(NodeRef::written(&id.clone().on("abc").expect("there"), "abc"), "1.4/149@abc");
        assert!(matches!(id.on("abd"), Err(Error::NodeNotFound(_))));
        assert!(matches!(NodeRef::parse("1.4/149").expect("an id").on("abc"), Err(Error::NodeNotFound(_))));
        assert!(matches!(NodeRef::parse("nonsense"), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_match_says_what_it_means() {
        let parsed = |json: serde_json::Value| serde_json::from_value::<NodeMatch>(json).expect("a match").wanted();
        for wrong in [
            serde_json::json!({"role": "buton"}),
            serde_json::json!({"states": ["shown"]}),
            serde_json::json!({"name": "a", "nameContains": "b"}),
        ] {
            assert!(matches!(parsed(wrong.clone()), Err(Error::Invalid(_))), "{wrong}");
        }
        let wanted = parsed(serde_json::json!({"role": "Push Button", "textContains": "x", "states": ["showing"]}));
        let wanted = wanted.expect("a match");
        assert!(matches!(wanted.text, Some(TextMatch::Contains(_))) && wanted.name.is_none() && wanted.roles.len() == 1);
    }
}
