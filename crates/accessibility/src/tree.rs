//! The tree of the desktop, and finding in it.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::Instant;

use crate::bus::Bus;
use crate::handle::{Accessibility, applications, pid_of};
use crate::id::NodeId;
use crate::names;
use crate::node::{Node, Outline};
use crate::walk::{Shared, Walked, walk};
use crate::{Error, Result};

/// The bound of nodes that a query may ask for.
pub const MAX_NODES: usize = 20_000;
/// The bound of characters of each node's text that a query may ask for.
pub const MAX_TEXT_CHARS: usize = 20_000;
/// Applications that are looked at.
const MAX_APPLICATIONS: usize = 200;
/// Applications that are walked at a time. A silent one holds one place until its bound, so there are some.
const APPLICATIONS_AT_A_TIME: usize = 16;

/// Which part of the tree, and its bounds.
#[derive(Debug, Clone)]
pub struct Query {
    /// Applications whose name has this in it, letter case aside.
    pub application: Option<String>,
    /// The application of this process.
    pub pid: Option<u32>,
    /// Windows (children of an application) whose name has this in it, letter case aside.
    pub window: Option<String>,
    /// This node and what is below it; the three above don't count then.
    pub root: Option<NodeId>,
    /// Nodes that are visited, 1 to 20 000, over all applications; those nearest to the top first. Default 2 000 for trees.
    pub max_nodes: usize,
    /// 0 is only applications, 1 their windows, too. Default 100.
    pub max_depth: usize,
    /// Leave out what isn't drawn, with all below it: closed menus, hidden tabs. Default false.
    pub visible_only: bool,
    /// Only nodes of these roles; what is below the others is still visited. Empty for all.
    pub roles: Vec<String>,
    /// Characters of each node's text, up to 20 000. Default 1 000.
    pub text_chars: usize,
    /// Bytes of names, descriptions, texts and actions of all nodes together; those under way when it is reached still come. Default
    /// 16 MiB.
    pub max_bytes: usize,
    /// How long an application may be silent before it is given up. Default 2 s.
    pub answer_timeout: Duration,
    /// For all together; then comes what there is. Default 15 s.
    pub timeout: Duration,
    /// Take an application's own list of its nodes where it has one. Default true.
    pub use_cache: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            application: None,
            pid: None,
            window: None,
            root: None,
            max_nodes: 2_000,
            max_depth: 100,
            visible_only: false,
            roles: Vec::new(),
            text_chars: 1_000,
            max_bytes: 16 * 1024 * 1024,
            answer_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(15),
            use_cache: true,
        }
    }
}

impl Query {
    pub(crate) fn text_chars(&self) -> usize {
        self.text_chars.min(MAX_TEXT_CHARS)
    }
}

/// How a text is compared; letter case and white space at the ends aside.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum TextMatch {
    Exact(String),
    Contains(String),
}

impl TextMatch {
    fn fits(&self, text: &str) -> bool {
        let text = text.trim().to_lowercase();
        match self {
            Self::Exact(wanted) => text == wanted.trim().to_lowercase(),
            Self::Contains(wanted) => text.contains(&wanted.to_lowercase()),
        }
    }
}

/// What a node must be to be found. All that is given must fit.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// Of the node's name.
    pub name: Option<TextMatch>,
    /// Any of these roles; spaces, hyphens and letter case aside. Empty for all.
    pub roles: Vec<String>,
    /// All of these states.
    pub states: Vec<String>,
    /// Of the node's text, as far as the query's `text_chars` go.
    pub text: Option<TextMatch>,
}

impl Match {
    /// What the outline tells: all but the text.
    pub(crate) fn outline(&self, outline: &Outline) -> bool {
        let role = names::folded(&names::role(outline.role));
        let states = outline.states.names().into_iter().map(names::folded).collect::<Vec<_>>();
        self.name.as_ref().is_none_or(|name| name.fits(&outline.name))
            && (self.roles.is_empty() || self.roles.contains(&role))
            && self.states.iter().all(|state| states.contains(state))
            && (self.text.is_none() || outline.has("Text"))
    }

    pub(crate) fn text(&self, node: &Node) -> bool {
        self.text.as_ref().is_none_or(|text| node.text.as_ref().is_some_and(|of| text.fits(of)))
    }

    /// With names as they are compared, and the query's roles where it has none.
    fn folded(&self, query: &Query) -> Self {
        let roles = if self.roles.is_empty() { &query.roles } else { &self.roles };
        let fold = |names: &[String]| names.iter().map(|name| names::folded(name)).collect();
        Self { name: self.name.clone(), roles: fold(roles), states: fold(&self.states), text: self.text.clone() }
    }
}

/// Why nodes are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CutReason {
    /// The query's `max_nodes`.
    MaxNodes,
    /// The query's `max_bytes`.
    MaxBytes,
    /// The query's `max_depth`.
    MaxDepth,
    /// The query's `timeout`.
    Timeout,
    /// As many as wanted are found; there may be more.
    Limit,
    /// A node with thousands of children: only its first 100 are visited.
    ManyChildren,
    /// The application refuses to tell of a node.
    Unreadable,
}

/// Nodes that are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Why.
    pub reason: CutReason,
    /// How many are known of; what is below them isn't counted.
    pub at_least: usize,
}

/// An application of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Its top node.
    pub id: NodeId,
    /// What it calls itself; with a root in the query, the name of that node.
    pub name: String,
    /// Its process, as the bus knows it.
    pub pid: Option<u32>,
    /// Nodes of it that were visited.
    pub visited: usize,
}

/// An application that doesn't answer, or not to the end; what came before is in the tree.
#[derive(Debug, Clone)]
pub struct Silent {
    /// Its top node.
    pub id: NodeId,
    /// Its process, as the bus knows it.
    pub pid: Option<u32>,
    /// [`Error::TimedOut`], or why else.
    pub error: Error,
}

/// The tree, or the part of it that was asked for.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Parents before their children, in their order.
    pub nodes: Vec<Node>,
    /// Those that were visited.
    pub applications: Vec<Application>,
    /// What the bounds left out, one for each reason; empty if this is all.
    pub cuts: Vec<Cut>,
    /// Applications that failed.
    pub silent: Vec<Silent>,
}

impl Tree {
    /// Whether a bound left something out.
    pub fn is_truncated(&self) -> bool {
        !self.cuts.is_empty()
    }
}

/// What was found: as a tree, whose nodes are only those that fit.
pub type Found = Tree;

impl Accessibility {
    /// The tree. Takes some 50 ms for a few hundred nodes, 5 ms for what is visible of them, the query's `timeout` at most.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bound out of range, [`Error::Disconnected`], [`Error::NoNode`] for a root that isn't there.
    /// Applications that fail are reported in the tree.
    pub async fn tree(&self, query: &Query) -> Result<Tree> {
        self.look(query, &Match::default(), usize::MAX).await
    }

    /// The nodes that fit, `limit` at most, those nearest to the top first. Visits as many nodes as `query` allows: for a whole
    /// desktop raise its `max_nodes` to 20 000.
    ///
    /// # Errors
    /// As [`Self::tree`].
    pub async fn find(&self, query: &Query, wanted: &Match, limit: usize) -> Result<Found> {
        self.look(query, wanted, limit).await
    }

    async fn look(&self, query: &Query, wanted: &Match, limit: usize) -> Result<Tree> {
        if !(1..=MAX_NODES).contains(&query.max_nodes) || limit == 0 {
            return Err(Error::Invalid(format!("max_nodes is 1 to {MAX_NODES}, and a limit at least 1")));
        }
        let shared = Shared {
            bus: self.bus().await?.within(query.answer_timeout),
            query,
            wanted: &wanted.folded(query),
            deadline: Instant::now() + query.timeout,
            to_visit: AtomicUsize::new(query.max_nodes),
            to_find: AtomicUsize::new(limit),
            to_bring: AtomicUsize::new(query.max_bytes),
        };
        let roots = roots(&shared.bus, query).await?;
        let more = roots.len().saturating_sub(MAX_APPLICATIONS);
        let walks = stream::iter(roots.into_iter().take(MAX_APPLICATIONS).map(|root| one(&shared, root)));
        let walks: Vec<_> = walks.buffered(APPLICATIONS_AT_A_TIME).collect().await;
        let mut tree = gather(walks.into_iter().flatten(), query)?;
        if more > 0 {
            tree.cuts.push(Cut { reason: CutReason::MaxNodes, at_least: more });
        }
        Ok(tree)
    }
}

/// Where the walks begin.
async fn roots(bus: &Bus, query: &Query) -> Result<Vec<NodeId>> {
    match &query.root {
        Some(root) => Ok(vec![root.clone()]),
        None => Ok(applications(bus).await?.iter().filter_map(NodeId::from_reference).collect()),
    }
}

/// One application, if the query wants its process.
async fn one(shared: &Shared<'_>, root: NodeId) -> Option<(NodeId, Option<u32>, Walked)> {
    let pid = pid_of(&shared.bus, root.bus_name()).await;
    if shared.query.root.is_none() && shared.query.pid.is_some() && shared.query.pid != pid {
        return None;
    }
    let walked = walk(shared, root.clone()).await;
    Some((root, pid, walked))
}

fn gather(walks: impl Iterator<Item = (NodeId, Option<u32>, Walked)>, query: &Query) -> Result<Tree> {
    let mut tree = Tree { nodes: Vec::new(), applications: Vec::new(), cuts: Vec::new(), silent: Vec::new() };
    for (root, pid, walked) in walks {
        let id = NodeId::root_of(root.bus_name());
        match walked.failed {
            Some(Error::Disconnected(why)) => return Err(Error::Disconnected(why)),
            Some(Error::NoNode(node)) if query.root.is_some() => return Err(Error::NoNode(node)),
            // it ended meanwhile
            Some(Error::NoNode(_)) | None => {}
            Some(error) => tree.silent.push(Silent { id: id.clone(), pid, error }),
        }
        if walked.visited > 0 {
            tree.applications.push(Application { id, name: walked.name, pid, visited: walked.visited });
        }
        tree.nodes.extend(walked.nodes);
        for cut in walked.cuts {
            match tree.cuts.iter_mut().find(|known| known.reason == cut.reason) {
                Some(known) => known.at_least += cut.at_least,
                None => tree.cuts.push(cut),
            }
        }
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_without_case_and_ends() {
        assert!(TextMatch::Exact("save as…".into()).fits("Save As…      "));
        assert!(!TextMatch::Exact("Save".into()).fits("Save As"));
        assert!(TextMatch::Contains("ÄTZ".into()).fits("Plätze"));
    }
}
