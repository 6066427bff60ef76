//! What a node says of itself.

use futures_util::TryFutureExt;
use futures_util::future::{join, join_all, try_join, try_join3};

use crate::bus::Bus;
use crate::handle::Accessibility;
use crate::id::NodeId;
use crate::names::{self, States};
use crate::{Error, Result};

/// Characters of a name or a description that are kept.
const MAX_NAME_CHARS: usize = 1_000;
/// Actions of one node that are asked for.
const MAX_ACTIONS: i32 = 32;
/// Characters of a node's text that [`Accessibility::node`] brings.
const NODE_TEXT_CHARS: usize = 10_000;

/// A rectangle on the screen in pixels. It may lie outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Bounds {
    pub x: i32,
    pub y: i32,
    pub width: i32,
    pub height: i32,
}

/// The number of a slider, a spin button, a scroll bar.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct Value {
    pub current: f64,
    pub minimum: f64,
    pub maximum: f64,
}

/// One node of the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// `None` for an application.
    pub parent: Option<NodeId>,
    /// 0 for an application, 1 for a window. Below the root of the query, if it has one; 0 for a single node.
    pub depth: usize,
    /// Its standard name, as `menu item`, `button`, `frame` (a window).
    pub role: String,
    /// Without white space at its ends; at most 1 000 characters.
    pub name: String,
    /// As `name`.
    pub description: String,
    /// Their standard names, as `focused`, `showing`, `editable`.
    pub states: Vec<&'static str>,
    /// `None` if it isn't on the screen.
    pub bounds: Option<Bounds>,
    /// Names of its actions; their index is their number.
    pub actions: Vec<String>,
    /// The beginning of its text, if it has one. Objects within the text are U+FFFC; a text of nothing else is left out, and an
    /// empty one, unless it can be edited.
    pub text: Option<String>,
    /// Characters that the whole text has.
    pub text_length: Option<usize>,
    /// Its number, if it has one.
    pub value: Option<Value>,
    /// How many children it says it has.
    pub child_count: usize,
}

impl Node {
    /// Bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        let actions: usize = self.actions.iter().map(String::len).sum();
        self.name.len() + self.description.len() + actions + self.text.as_ref().map_or(0, String::len)
    }
}

/// What it costs one round trip to know, or nothing with a cache.
#[derive(Debug, Clone)]
pub(crate) struct Outline {
    pub(crate) role: u32,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) states: States,
    pub(crate) interfaces: Vec<String>,
    /// `None` if it has to be asked for.
    pub(crate) child_count: Option<usize>,
}

impl Outline {
    pub(crate) async fn read(bus: &Bus, id: &NodeId) -> Result<Self> {
        let kind = try_join3(
            bus.call(id, "Accessible", "GetRole", &()),
            bus.call::<_, Vec<u32>>(id, "Accessible", "GetState", &()),
            bus.call::<_, Vec<String>>(id, "Accessible", "GetInterfaces", &()),
        );
        let said = try_join3(
            bus.get::<String>(id, "Accessible", "Name").or_else(unless_gone),
            bus.get::<String>(id, "Accessible", "Description").or_else(unless_gone),
            bus.get::<i32>(id, "Accessible", "ChildCount").or_else(unless_gone),
        );
        let ((role, states, interfaces), (name, description, child_count)) = try_join(kind, said).await?;
        let states = States::from_words(&states);
        if states.has("defunct") {
            return Err(Error::NoNode(id.to_string()));
        }
        let child_count = Some(usize::try_from(child_count).unwrap_or_default());
        Ok(Self { role, name: kept(&name), description: kept(&description), states, interfaces, child_count })
    }

    pub(crate) fn has(&self, interface: &str) -> bool {
        self.interfaces.iter().any(|full| full.strip_prefix("org.a11y.atspi.") == Some(interface))
    }

    /// The whole node: asks for what its interfaces promise.
    pub(crate) async fn detail(self, bus: &Bus, id: NodeId, text_chars: usize) -> Result<Node> {
        let component = async { if self.has("Component") { bounds(bus, &id).await } else { Ok(None) } };
        let actions = async { if self.has("Action") { actions(bus, &id).await } else { Ok(Vec::new()) } };
        let text = async {
            if self.has("Text") { text(bus, &id, text_chars).await.map(Some) } else { Ok(None) }.or_else(refused_is_none)
        };
        let value = async { if self.has("Value") { value(bus, &id).await.map(Some).or_else(refused_is_none) } else { Ok(None) } };
        let ((bounds, actions), (text, value)) = join(join(component, actions), join(text, value)).await;
        let says = |text: &str| self.states.has("editable") || text.chars().any(|c| c != '\u{fffc}');
        let (text, text_length) = text?.filter(|(text, _)| says(text)).unzip();
        Ok(Node {
            parent: None,
            depth: 0,
            role: names::role(self.role),
            states: self.states.names(),
            name: self.name,
            description: self.description,
            bounds: bounds?,
            actions: actions?,
            text,
            text_length,
            value: value?,
            child_count: self.child_count.unwrap_or_default(),
            id,
        })
    }
}

impl Accessibility {
    /// One node, with up to 10 000 characters of its text. Takes a few round trips.
    ///
    /// # Errors
    /// [`Error::NoNode`], [`Error::TimedOut`], [`Error::Disconnected`].
    pub async fn node(&self, id: &NodeId) -> Result<Node> {
        let bus = self.bus().await?;
        let parent = bus.get::<zbus::OwnedVariant>(id, "Accessible", "Parent");
        let (outline, parent) = join(Outline::read(&bus, id), parent).await;
        let mut node = outline?.detail(&bus, id.clone(), NODE_TEXT_CHARS).await?;
        // that of an application is the registry
        let above = |parent: &NodeId| node.role != "application" && parent != id;
        node.parent = parent.ok().and_then(|parent| NodeId::from_variant(&parent)).filter(above);
        Ok(node)
    }
}

/// A text as it is kept: without white space at its ends, bounded.
pub(crate) fn kept(text: &str) -> String {
    text.trim().chars().take(MAX_NAME_CHARS).collect()
}

/// Nothing for what an application lacks, although it should have it.
async fn unless_gone<T: Default>(error: Error) -> Result<T> {
    if let Error::Refused(_) = error { Ok(T::default()) } else { Err(error) }
}

fn refused_is_none<T>(error: Error) -> Result<Option<T>> {
    if let Error::Refused(_) = error { Ok(None) } else { Err(error) }
}

/// Where it is on the screen. Toolkits say what isn't drawn by sizes of 0 or −1, or by positions at the end of the range.
async fn bounds(bus: &Bus, id: &NodeId) -> Result<Option<Bounds>> {
    const SCREEN: u32 = 0;
    let extents: Result<((i32, i32, i32, i32),)> = bus.call(id, "Component", "GetExtents", &SCREEN).await;
    let (x, y, width, height) = match extents {
        Ok((extents,)) => extents,
        Err(error) => return refused_is_none(error),
    };
    let drawn = width > 0 && height > 0 && x != i32::MIN && y != i32::MIN;
    Ok(drawn.then_some(Bounds { x, y, width, height }))
}

/// Names of actions: those of the standard, not the translated ones that `GetActions` brings.
pub(crate) async fn actions(bus: &Bus, id: &NodeId) -> Result<Vec<String>> {
    let count: i32 = bus.get(id, "Action", "NActions").or_else(unless_gone).await?;
    let name = |index: i32| async move { bus.call::<_, String>(id, "Action", "GetName", &index).or_else(unless_gone).await };
    let names = (0..count.min(MAX_ACTIONS)).map(name);
    let names: Result<Vec<_>> = join_all(names).await.into_iter().collect();
    Ok(names?.iter().map(|name| kept(name)).collect())
}

/// The beginning of a text and how long all of it is, in characters.
async fn text(bus: &Bus, id: &NodeId, chars: usize) -> Result<(String, usize)> {
    let count: i32 = bus.get(id, "Text", "CharacterCount").await?;
    let length = usize::try_from(count).unwrap_or_default();
    let end = i32::try_from(length.min(chars)).unwrap_or(i32::MAX);
    let text: String = if end == 0 { String::new() } else { bus.call(id, "Text", "GetText", &(0_i32, end)).await? };
    Ok((text.chars().take(chars).collect(), length))
}

pub(crate) async fn value(bus: &Bus, id: &NodeId) -> Result<Value> {
    let get = |property: &'static str| bus.get::<f64>(id, "Value", property);
    let (current, minimum, maximum) = try_join3(get("CurrentValue"), get("MinimumValue"), get("MaximumValue")).await?;
    Ok(Value { current, minimum, maximum })
}
