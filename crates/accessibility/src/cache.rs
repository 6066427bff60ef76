//! What an application says of all its nodes at once: `org.a11y.atspi.Cache.GetItems`.
//!
//! Only a help: GTK 3 has the object only while somebody listens to its events, Qt answers with an empty list, GTK 4 leaves out
//! what nobody asked for yet, and menus come without the order of their items. So the tree is always walked, and an item of
//! the cache spares the questions that it answers, where what it says is whole.

use std::collections::HashMap;

use zbus::OwnedObjectPath;

use crate::bus::Bus;
use crate::id::NodeId;
use crate::names::States;
use crate::node::{Outline, kept};

const PATH: &str = "/org/a11y/atspi/cache";
/// Items that are looked at.
const MAX_ITEMS: usize = 50_000;

type Reference = (String, OwnedObjectPath);
/// Object, application, parent, index in the parent, count of children, interfaces, name, role, description, states:
/// `(so)(so)(so)iiassusau`, Cache.xml of at-spi2-core since 2.45.
type Item = (Reference, Reference, Reference, i32, i32, Vec<String>, String, u32, String, Vec<u32>);

/// Outlines of nodes, and the children of those whose children are all there.
#[derive(Default)]
pub(crate) struct Cache {
    outlines: HashMap<NodeId, Outline>,
    children: HashMap<NodeId, Vec<NodeId>>,
}

impl Cache {
    /// Empty if the application has none, or one of another shape.
    pub(crate) async fn read(bus: &Bus, bus_name: &str) -> Self {
        let items = bus.ask((bus_name, PATH, "org.a11y.atspi.Cache", "GetItems"), &()).await;
        items.map_or_else(|_| Self::default(), Self::from_items)
    }

    pub(crate) fn outline(&self, id: &NodeId) -> Option<&Outline> {
        self.outlines.get(id)
    }

    /// In their order.
    pub(crate) fn children(&self, id: &NodeId) -> Option<&[NodeId]> {
        self.children.get(id).map(Vec::as_slice)
    }

    fn from_items(items: Vec<Item>) -> Self {
        let mut cache = Self::default();
        let mut found: HashMap<NodeId, Vec<(i32, NodeId)>> = HashMap::new();
        for (object, _, parent, index, child_count, interfaces, name, role, description, states) in
            items.into_iter().take(MAX_ITEMS)
        {
            let Some(id) = NodeId::from_reference(&object) else { continue };
            if let Some(parent) = NodeId::from_reference(&parent) {
                found.entry(parent).or_default().push((index, id.clone()));
            }
            let outline = Outline {
                role,
                name: kept(&name),
                description: kept(&description),
                states: States::from_words(&states),
                interfaces,
                child_count: usize::try_from(child_count).ok(),
            };
            cache.outlines.insert(id, outline);
        }
        for (parent, mut children) in found {
            children.sort_by_key(|(index, _)| *index);
            let said = cache.outlines.get(&parent).and_then(|outline| outline.child_count);
            let in_order = children.iter().zip(0..).all(|((index, _), place)| *index == place);
            if in_order && said == Some(children.len()) {
                cache.children.insert(parent, children.into_iter().map(|(_, id)| id).collect());
            }
        }
        cache
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(object: &str, parent: &str, index: i32, child_count: i32) -> Item {
        let reference = |name: &str| {
            let path = format!("/org/a11y/atspi/accessible/{name}");
            (":1.4".to_owned(), OwnedObjectPath::try_from(path).expect("a path"))
        };
        (
            reference(object),
            reference("root"),
            reference(parent),
            index,
            child_count,
            vec![],
            object.into(),
            35,
            "".into(),
            vec![],
        )
    }

    fn id(text: &str) -> NodeId {
        text.parse().expect("an id")
    }

    #[test]
    fn children_are_known_only_when_whole_and_in_order() {
        let whole = [item("1", "root", 0, 2), item("3", "1", 1, 0), item("2", "1", 0, 0)];
        let unordered = [item("10", "root", 1, -1), item("11", "10", -1, 0)];
        let missing = [item("20", "root", 2, 2), item("21", "20", 0, 0)];
        let cache = Cache::from_items(whole.into_iter().chain(unordered).chain(missing).collect());
        assert_eq!(cache.children(&id("1.4/1")), Some([id("1.4/2"), id("1.4/3")].as_slice()));
        assert_eq!(cache.children(&id("1.4/10")), None);
        assert_eq!(cache.children(&id("1.4/20")), None);
        assert_eq!(cache.outline(&id("1.4/11")).map(|outline| outline.name.as_str()), Some("11"));
    }
}
