//! The accessibility tree: what is on the screen by role and name, and what can be done with it without a pointer.
//!
//! Programs answer for themselves, over a bus that the session's launcher brings; the crate `accessibility` speaks to them. The
//! bus is found when somebody first asks, and again once it is lost.
//!
//! | module | what |
//! |---|---|
//! | `types` | what is asked and told |
//! | `act` | something is done with a node |
//! | `launcher` | the process that brings the bus |

mod act;
pub(super) mod launcher;
mod types;

use std::time::Duration;

use accessibility::{Accessibility, Match, Query, Tree};
use tokio::time::Instant;

pub use act::{ActSpec, Acted};
use types::NodeRef;
pub use types::{FindSpec, FoundNodes, NodeFind, TreeAnswer, TreeNode, TreeScope};

use super::action::WAIT_MAX_MS;
use super::session::Session;
use super::{Desktop, Error, needs};
use crate::config::Env;

/// Nodes that are found unless somebody wants more.
const LIMIT: usize = 20;
/// The least time between two looks of who waits; as long as a look takes if that is more.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Desktop {
    /// The tree, only nodes of these roles if there are some. Cancel safe.
    ///
    /// # Errors
    /// What is out of range, [`Error::NodeNotFound`] for a root that is gone, no bus, no desktop. A program that fails is told in
    /// the answer.
    pub async fn tree(&self, scope: &TreeScope, role: Option<&str>) -> Result<TreeAnswer, Error> {
        let query = scope.query(&self.parts().bounds, Query::default().max_nodes, role)?;
        let (tree, bus_tag) = self.look(scope, &query, &Match::default(), usize::MAX).await?;
        Ok(TreeAnswer::of(tree, &bus_tag))
    }

    /// Nodes that fit; waits for the first if that is wanted. Cancel safe.
    ///
    /// # Errors
    /// As [`Desktop::tree`].
    pub async fn find_nodes(&self, spec: &FindSpec) -> Result<FoundNodes, Error> {
        let limit = spec.limit.unwrap_or(LIMIT);
        if limit == 0 {
            return Err(Error::Invalid("limit is at least 1".to_owned()));
        }
        let began = Instant::now();
        let (tree, bus_tag) = self.find_until(&spec.find, limit).await?;
        let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(FoundNodes { tree: TreeAnswer::of(tree, &bus_tag), waited_ms })
    }

    /// One node, with 10 000 characters of its text. Cancel safe.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`], [`Error::ApplicationSilent`], no bus, no desktop.
    pub async fn node(&self, id: &str) -> Result<TreeNode, Error> {
        let id = NodeRef::parse(id)?;
        let env = &self.parts().env;
        let session = self.session()?;
        let (bus, bus_tag) = session.accessibility(env).await?;
        let node = bus.node(&id.on(&bus_tag)?).await;
        node.map(|node| TreeNode::of(node, &bus_tag)).map_err(|error| of_tree(error, env))
    }

    /// Nodes that fit, and the tag of their bus: looks until there is one, or its time is over.
    async fn find_until(&self, find: &NodeFind, limit: usize) -> Result<(Tree, String), Error> {
        let query = find.scope.query(&self.parts().bounds, accessibility::MAX_NODES, None)?;
        let wanted = find.wanted.wanted()?;
        let timeout_ms = find.timeout_ms.unwrap_or(0);
        if timeout_ms > WAIT_MAX_MS {
            return Err(Error::Invalid(format!("timeoutMs is at most {WAIT_MAX_MS}, not {timeout_ms}")));
        }
        let until = Instant::now() + Duration::from_millis(timeout_ms);
        loop {
            let began = Instant::now();
            let found = self.look(&find.scope, &query, &wanted, limit).await;
            // a bus that is started again may be back in time
            let is_to_come = match &found {
                Ok((tree, _)) => tree.nodes.is_empty(),
                Err(error) => matches!(error, Error::AccessibilityUnavailable(_)),
            };
            let next = Instant::now() + began.elapsed().max(LOOK_EVERY);
            if !is_to_come || Instant::now() >= until {
                return found;
            }
            tokio::time::sleep_until(next.min(until)).await;
        }
    }

    /// One look, and the tag of the bus; another one if the bus was lost in the middle of it.
    async fn look(&self, scope: &TreeScope, query: &Query, wanted: &Match, limit: usize) -> Result<(Tree, String), Error> {
        let env = &self.parts().env;
        let session = self.session()?;
        let mut is_first = true;
        loop {
            let (bus, bus_tag) = session.accessibility(env).await?;
            if let Some(root) = &scope.root {
                NodeRef::parse(root)?.on(&bus_tag)?;
            }
            match bus.find(query, wanted, limit).await {
                Err(accessibility::Error::Disconnected(_)) if is_first => is_first = false,
                looked => return looked.map(|tree| (tree, bus_tag)).map_err(|error| of_tree(error, env)),
            }
        }
    }
}

impl Session {
    /// The accessibility bus and its tag, found by the first who asks; programs are told then that a tree is wanted.
    ///
    /// # Errors
    /// [`Error::DependenciesMissing`], [`Error::AccessibilityUnavailable`].
    async fn accessibility(&self, env: &Env) -> Result<(&Accessibility, String), Error> {
        let Some(address) = &self.bus else {
            return Err(match needs::find(env, "dbus-daemon") {
                None => missing("dbus-daemon"),
                Some(_) => Error::AccessibilityUnavailable("the desktop was started without D-Bus: stop and start it".to_owned()),
            });
        };
        let connect = || async {
            let bus = Accessibility::connect(address).await?;
            if let Err(error) = bus.enable().await {
                tracing::warn!(%error, "programs aren't told that the accessibility tree is wanted");
            }
            Ok(bus)
        };
        let bus = self.tree.get_or_try_init(connect).await.map_err(|error| of_tree(error, env))?;
        let bus_tag = bus.bus_tag().await.map_err(|error| of_tree(error, env))?;
        Ok((bus, bus_tag))
    }
}

fn missing(program: &str) -> Error {
    Error::DependenciesMissing { missing: vec![program.to_owned()], install: needs::INSTALL_COMMAND.to_owned() }
}

/// What an error of the tree means to who asked.
fn of_tree(error: accessibility::Error, env: &Env) -> Error {
    use accessibility::Error as Tree;
    let text = error.to_string();
    match error {
        Tree::NoAccessibility(_) | Tree::NoRegistry(_) if needs::launcher(env).is_none() => missing(needs::LAUNCHER),
        Tree::NoBus { .. } | Tree::NoAccessibility(_) | Tree::NoRegistry(_) | Tree::Disconnected(_) => {
            Error::AccessibilityUnavailable(text)
        }
        Tree::NoNode(id) => Error::NodeNotFound(format!("no node has the id {id}: it is gone, or its program ended")),
        Tree::NoAction { actions, .. } => Error::NodeRefused { why: text, actions },
        Tree::Refused(_) => Error::NodeRefused { why: text, actions: Vec::new() },
        Tree::TimedOut { .. } => Error::ApplicationSilent(text),
        Tree::Invalid(why) => Error::Invalid(why),
    }
}
