//! The nodes of one application: breadth first, many calls in flight, each with its bound.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::bus::Bus;
use crate::cache::Cache;
use crate::id::NodeId;
use crate::names;
use crate::node::{Node, Outline};
use crate::tree::{Cut, CutReason, Match, Query};
use crate::{Error, Result};

/// Nodes of one application that are asked at a time, each with up to a dozen calls.
const NODES_IN_FLIGHT: usize = 24;
/// A node with more children than this (a table of a spreadsheet has millions) is asked for its first ones only.
const MAX_CHILDREN: usize = 2_000;
/// How many those first ones are.
const FIRST_CHILDREN: i32 = 100;

/// What all walks of one query share.
pub(crate) struct Shared<'a> {
    pub(crate) bus: Bus,
    pub(crate) query: &'a Query,
    /// Which nodes are wanted; all are visited.
    pub(crate) wanted: &'a Match,
    pub(crate) deadline: Instant,
    /// Nodes that may still be visited.
    pub(crate) to_visit: AtomicUsize,
    /// Nodes that may still be found.
    pub(crate) to_find: AtomicUsize,
    /// Bytes that nodes may still have.
    pub(crate) to_bring: AtomicUsize,
}

/// What came of the walk of one application.
#[derive(Default)]
pub(crate) struct Walked {
    /// Parents before their children, in the order of the screen.
    pub(crate) nodes: Vec<Node>,
    pub(crate) name: String,
    pub(crate) visited: usize,
    pub(crate) cuts: Vec<Cut>,
    /// Why the rest of it is missing.
    pub(crate) failed: Option<Error>,
}

/// A node to visit.
struct Step {
    id: NodeId,
    parent: Option<NodeId>,
    depth: usize,
}

/// A node that was visited.
struct Visited {
    step: Step,
    children: Vec<NodeId>,
    /// `None` if it isn't wanted.
    node: Option<Node>,
    name: String,
    cut: Option<Cut>,
}

/// Walks from `root`, an application or a node of it. Never fails as a whole: what was read before a failure stays.
pub(crate) async fn walk(shared: &Shared<'_>, root: NodeId) -> Walked {
    let mut walked = Walked::default();
    let cache = match tokio::time::timeout_at(shared.deadline, cache(shared, &root)).await {
        Ok(Ok(cache)) => cache,
        Ok(Err(error)) => return Walked { failed: Some(error), ..walked },
        Err(_) => return Walked { cuts: vec![Cut { reason: CutReason::Timeout, at_least: 1 }], ..walked },
    };
    let mut seen = HashSet::from([root.clone()]);
    let mut visits: HashMap<NodeId, Visited> = HashMap::new();
    let mut frontier = VecDeque::from([Step { id: root.clone(), parent: None, depth: 0 }]);
    let mut in_flight = FuturesUnordered::new();
    loop {
        while in_flight.len() < NODES_IN_FLIGHT && !frontier.is_empty() {
            if let Some(reason) = shared.exhausted() {
                walked.cuts.push(Cut { reason, at_least: frontier.len() });
                frontier.clear();
            } else if let Some(step) = frontier.pop_front() {
                in_flight.push(visit(shared, &cache, step));
            }
        }
        let next = match tokio::time::timeout_at(shared.deadline, in_flight.next()).await {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(_) => {
                walked.cuts.push(Cut { reason: CutReason::Timeout, at_least: in_flight.len() + frontier.len() });
                break;
            }
        };
        match next {
            Ok(None) => {}
            Ok(Some(visited)) => {
                let Step { id, depth, .. } = &visited.step;
                let new = visited.children.iter().filter(|child| seen.insert((*child).clone()));
                frontier.extend(new.map(|child| Step { id: child.clone(), parent: Some(id.clone()), depth: depth + 1 }));
                walked.cuts.extend(visited.cut);
                visits.insert(id.clone(), visited);
            }
            // gone between being named and being asked
            Err(Error::NoNode(_)) if !visits.is_empty() => {}
            Err(Error::Refused(_)) if !visits.is_empty() => walked.cuts.push(Cut { reason: CutReason::Unreadable, at_least: 1 }),
            Err(error) => {
                walked.failed = Some(error);
                break;
            }
        }
    }
    drop(in_flight);
    walked.visited = visits.len();
    walked.name = visits.get(&root).map(|visited| visited.name.clone()).unwrap_or_default();
    walked.nodes = in_order(visits, root);
    walked
}

/// The application's cache, and that it answers at all: a silent one is given up after one bound, not after one for each.
async fn cache(shared: &Shared<'_>, root: &NodeId) -> Result<Cache> {
    if !shared.query.use_cache {
        return Ok(Cache::default());
    }
    let lives = shared.bus.call::<_, u32>(root, "Accessible", "GetRole", &());
    let (lives, cache) = join(lives, Cache::read(&shared.bus, root.bus_name())).await;
    lives.map(|_| cache)
}

impl Shared<'_> {
    /// Takes one visit, or says why there is none left.
    fn exhausted(&self) -> Option<CutReason> {
        if self.to_find.load(Ordering::Relaxed) == 0 {
            return Some(CutReason::Limit);
        }
        if self.to_bring.load(Ordering::Relaxed) == 0 {
            return Some(CutReason::MaxBytes);
        }
        let taken = self.to_visit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.is_err().then_some(CutReason::MaxNodes)
    }
}

/// Reads one node and whom it has for children; `None` if the query leaves it out with all below it.
async fn visit(shared: &Shared<'_>, cache: &Cache, step: Step) -> Result<Option<Visited>> {
    let (bus, query, wanted) = (&shared.bus, shared.query, shared.wanted);
    let outline = match cache.outline(&step.id) {
        Some(outline) => outline.clone(),
        None => Outline::read(bus, &step.id).await?,
    };
    if !query.enters(&outline, &step) {
        return Ok(None);
    }
    let name = outline.name.clone();
    let below = children(shared, cache, &step, outline.child_count);
    let is_wanted = wanted.outline(&outline);
    let node =
        async { if is_wanted { outline.detail(bus, step.id.clone(), query.text_chars()).await.map(Some) } else { Ok(None) } };
    let (below, node) = join(below, node).await;
    let (children, cut) = below?;
    let mut node = node?.filter(|node| wanted.text(node));
    if let Some(node) = &mut node {
        node.parent.clone_from(&step.parent);
        node.depth = step.depth;
        node.child_count = node.child_count.max(children.len());
        let taken = shared.to_find.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if taken.is_err() {
            return Ok(None);
        }
        let bytes = node.bytes();
        let _ = shared.to_bring.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(bytes)));
    }
    Ok(Some(Visited { step, children, node, name, cut }))
}

/// Whom a node has for children, and what is left out.
async fn children(shared: &Shared<'_>, cache: &Cache, step: &Step, count: Option<usize>) -> Result<(Vec<NodeId>, Option<Cut>)> {
    let bus = &shared.bus;
    if count == Some(0) {
        return Ok((Vec::new(), None));
    }
    if step.depth >= shared.query.max_depth {
        return Ok((Vec::new(), Some(Cut { reason: CutReason::MaxDepth, at_least: count.unwrap_or(1) })));
    }
    if let Some(children) = cache.children(&step.id) {
        return Ok((children.to_vec(), None));
    }
    let count = match count {
        Some(count) => count,
        None => usize::try_from(bus.get::<i32>(&step.id, "Accessible", "ChildCount").await?).unwrap_or_default(),
    };
    if count <= MAX_CHILDREN {
        let references: Vec<(String, zbus::OwnedObjectPath)> = bus.call(&step.id, "Accessible", "GetChildren", &()).await?;
        return Ok((references.iter().take(MAX_CHILDREN).filter_map(NodeId::from_reference).collect(), None));
    }
    let mut first = Vec::new();
    for index in 0..FIRST_CHILDREN {
        let ((bus_name, path),): ((String, zbus::OwnedObjectPath),) =
            bus.call(&step.id, "Accessible", "GetChildAtIndex", &index).await?;
        first.extend(NodeId::from_reference(&(bus_name, path)));
    }
    let at_least = count - first.len();
    Ok((first, Some(Cut { reason: CutReason::ManyChildren, at_least })))
}

impl Query {
    /// Whether a node is entered: with it goes all that is below it.
    fn enters(&self, outline: &Outline, step: &Step) -> bool {
        let is_application = names::role(outline.role) == "application";
        let from_top = self.root.is_none();
        let contains = |filter: &Option<String>| {
            filter.as_ref().is_none_or(|part| outline.name.to_lowercase().contains(&part.to_lowercase()))
        };
        match step.depth {
            0 if from_top => contains(&self.application),
            1 if from_top && !contains(&self.window) => false,
            _ => !self.visible_only || is_application || outline.states.showing(),
        }
    }
}

/// Depth first from the root, children in their order.
fn in_order(mut visits: HashMap<NodeId, Visited>, root: NodeId) -> Vec<Node> {
    let mut nodes = Vec::with_capacity(visits.len());
    let mut stack = vec![root];
    while let Some(id) = stack.pop() {
        if let Some(visited) = visits.remove(&id) {
            nodes.extend(visited.node);
            stack.extend(visited.children.into_iter().rev());
        }
    }
    nodes
}
