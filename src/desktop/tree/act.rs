//! Something is done with a node: an action of it, its text, its number, the focus.

use accessibility::{Accessibility, Action, NodeId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::types::{NodeFind, NodeMatch, NodeRef, TreeNode};
use super::{Desktop, of_tree};
use crate::desktop::Error;

/// Nodes that are shown to who meant one of them.
const CANDIDATES_MAX: usize = 10;

/// What to do, and with which node: `node` or `find`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActSpec {
    /// Its id.
    pub node: Option<String>,
    /// What only it is: nothing is done when several nodes fit.
    pub find: Option<NodeFind>,
    /// `click` (what a click does there, whatever it is called), `focus`, `scrollTo`, `setText`, `insertText`, `setValue`, or the name
    /// of one of its `actions`.
    pub action: String,
    /// For `setText` and `insertText`: at most a million characters.
    pub text: Option<String>,
    /// For `insertText`: before which character, from 0; past the end is the end. Where the caret is when absent.
    pub position: Option<usize>,
    /// For `setValue`.
    pub value: Option<f64>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Acted {
    /// The id of the node.
    pub id: String,
    /// What was done, by its name at the program: `click` may be called `press` there.
    pub action: String,
    /// The node afterwards; absent when it is gone, or its program doesn't answer. What the program does later isn't in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<TreeNode>,
}

/// What is done with a node.
#[derive(Debug, Clone, PartialEq)]
enum Deed {
    Do(Action),
    Focus,
    ScrollTo,
    SetText(String),
    InsertText { text: String, position: Option<usize> },
    SetValue(f64),
}

impl ActSpec {
    /// # Errors
    /// What is wrong with it, as far as that is known without a tree.
    pub(in crate::desktop) fn check(&self) -> Result<(), Error> {
        self.deed()?;
        match (&self.node, &self.find) {
            (Some(id), None) => NodeRef::parse(id).map(drop),
            (None, Some(find)) if find.wanted == NodeMatch::default() => {
                Err(Error::Invalid("`find` says nothing of the node: give its role, name, text or states".to_owned()))
            }
            (None, Some(find)) => find.wanted.wanted().map(drop),
            _ => Err(Error::Invalid("say which node: either `node` or `find`".to_owned())),
        }
    }

    fn deed(&self) -> Result<Deed, Error> {
        let lacks = |field: &str| Error::Invalid(format!("{} needs `{field}`", self.action));
        let text = || self.text.clone().ok_or_else(|| lacks("text"));
        Ok(match self.action.as_str() {
            "" => return Err(Error::Invalid("say which `action`".to_owned())),
            "click" => Deed::Do(Action::Default),
            "focus" => Deed::Focus,
            "scrollTo" => Deed::ScrollTo,
            "setText" => Deed::SetText(text()?),
            "insertText" => Deed::InsertText { text: text()?, position: self.position },
            "setValue" => Deed::SetValue(self.value.ok_or_else(|| lacks("value"))?),
            name => Deed::Do(Action::Name(name.to_owned())),
        })
    }
}

impl Deed {
    /// Gives what it is called.
    async fn carry_out(self, bus: &Accessibility, id: &NodeId) -> Result<String, accessibility::Error> {
        let done = match self {
            Self::Do(action) => return bus.act(id, &action).await,
            Self::Focus => bus.focus(id).await.map(|()| "focus"),
            Self::ScrollTo => bus.scroll_to(id).await.map(|()| "scrollTo"),
            Self::SetText(text) => bus.set_text(id, &text).await.map(|()| "setText"),
            Self::InsertText { text, position } => {
                let position = match position {
                    Some(position) => position,
                    None => bus.text(id, 0, Some(0)).await.map(|text| text.caret.unwrap_or(text.length))?,
                };
                bus.insert_text(id, position, &text).await.map(|()| "insertText")
            }
            Self::SetValue(number) => bus.set_value(id, number).await.map(|_| "setValue"),
        };
        done.map(str::to_owned)
    }
}

impl Desktop {
    /// Does something with a node. Dropping the future doesn't take back what was sent to its program.
    ///
    /// # Errors
    /// What is wrong with it, before anything is done; [`Error::NodeNotFound`], [`Error::NodeAmbiguous`], [`Error::NodeRefused`];
    /// [`Error::ApplicationSilent`]: it may have been done; no bus, no desktop.
    pub async fn act_on_node(&self, spec: &ActSpec) -> Result<Acted, Error> {
        spec.check()?;
        let deed = spec.deed()?;
        let id = match &spec.node {
            Some(id) => NodeRef::parse(id)?,
            None => self.the_one(&spec.find.clone().unwrap_or_default()).await?,
        };
        let env = &self.parts().env;
        let session = self.session()?;
        let (bus, bus_tag) = session.accessibility(env).await?;
        let id = id.on(&bus_tag)?;
        let action = deed.carry_out(bus, &id).await.map_err(|error| of_tree(error, env))?;
        let node = match bus.node(&id).await {
            Ok(node) => Some(TreeNode::of(node, &bus_tag)),
            Err(error) => {
                tracing::debug!(%error, %id, "a node after something was done with it");
                None
            }
        };
        Ok(Acted { id: NodeRef::written(&id, &bus_tag), action, node })
    }

    /// The only node that fits.
    async fn the_one(&self, find: &NodeFind) -> Result<NodeRef, Error> {
        let (mut found, bus_tag) = self.find_until(find, CANDIDATES_MAX).await?;
        match found.nodes.len() {
            1 => Ok(NodeRef::new(found.nodes.swap_remove(0).id, bus_tag)),
            0 => Err(Error::NodeNotFound(nobody(find, &found))),
            _ => Err(Error::NodeAmbiguous(found.nodes.into_iter().map(|node| TreeNode::of(node, &bus_tag)).collect())),
        }
    }
}

/// That nothing fits, and what wasn't looked at.
fn nobody(find: &NodeFind, looked: &accessibility::Tree) -> String {
    let wanted = serde_json::to_string(&find.wanted).unwrap_or_default();
    let silent: Vec<String> = looked.silent.iter().filter_map(|silent| silent.pid).map(|pid| pid.to_string()).collect();
    let mut text = format!("no node fits {wanted}");
    if !silent.is_empty() {
        text.push_str(&format!("; programs that don't answer: {}", silent.join(", ")));
    }
    if looked.is_truncated() {
        text.push_str("; not all was looked at: see GET /v1/desktop/accessibility/tree for what cut it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_says_what_it_needs() {
        let deed = |json: serde_json::Value| serde_json::from_value::<ActSpec>(json).expect("a spec").deed();
        for wrong in [
            serde_json::json!({"action": ""}),
            serde_json::json!({"action": "setText"}),
            serde_json::json!({"action": "insertText", "position": 3}),
            serde_json::json!({"action": "setValue", "text": "3"}),
        ] {
            assert!(matches!(deed(wrong.clone()), Err(Error::Invalid(_))), "{wrong}");
        }
        assert_eq!(deed(serde_json::json!({"action": "click"})).expect("a deed"), Deed::Do(Action::Default));
        assert_eq!(deed(serde_json::json!({"action": "press"})).expect("a deed"), Deed::Do(Action::Name("press".into())));
        let clear = deed(serde_json::json!({"action": "setText", "text": ""})).expect("a deed");
        assert_eq!(clear, Deed::SetText(String::new()));
    }
}
