//! Ids of nodes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use zbus::names::UniqueName;
use zbus::{ObjectPath, OwnedObjectPath, Variant};

use crate::{Error, Result};

/// What most toolkits' object paths begin with; ids leave it out.
const USUAL: &str = "/org/a11y/atspi/accessible/";

/// One node: the application's unique name on the accessibility bus and the object's path, written `1.4/149` for `:1.4` and
/// `/org/a11y/atspi/accessible/149`, or `1.4//org/gnome/…` for another path.
///
/// Valid as long as the application lives and keeps the object; neither part is used twice on one bus. After a restart of the
/// accessibility bus ids of before mean nothing, or another node.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    bus_name: Arc<str>,
    path: Arc<str>,
}

impl NodeId {
    /// From a reference as it is on the bus, type `(so)`. The null reference (`/org/a11y/atspi/null`) is `None`.
    pub(crate) fn from_reference((bus_name, path): &(String, OwnedObjectPath)) -> Option<Self> {
        let null = bus_name.is_empty() || path.as_str().ends_with("/null");
        (!null).then(|| Self { bus_name: bus_name.as_str().into(), path: path.as_str().into() })
    }

    /// As [`Self::from_reference`], for a property.
    pub(crate) fn from_variant(value: &Variant<'_>) -> Option<Self> {
        let Variant::Structure(reference) = value else { return None };
        let [Variant::Str(bus_name), Variant::ObjectPath(path)] = reference.fields() else { return None };
        Self::from_reference(&(bus_name.to_string(), path.to_owned().into()))
    }

    /// The top of an application.
    pub(crate) fn root_of(bus_name: &str) -> Self {
        Self { bus_name: bus_name.into(), path: format!("{USUAL}root").into() }
    }

    /// The application's unique name on the accessibility bus, as `:1.4`.
    pub fn bus_name(&self) -> &str {
        &self.bus_name
    }

    /// The object's path.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.strip_prefix(USUAL).unwrap_or(&self.path);
        write!(f, "{}/{path}", self.bus_name.trim_start_matches(':'))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = Error;

    /// [`Error::Invalid`] for a text that is no id. Whether there is such a node only a call can tell.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid(format!("`{}` is no id of a node", text.chars().take(100).collect::<String>()));
        let (bus_name, path) = text.split_once('/').ok_or_else(invalid)?;
        let bus_name = format!(":{}", bus_name.trim_start_matches(':'));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{USUAL}{path}") };
        UniqueName::try_from(bus_name.as_str()).map_err(|_| invalid())?;
        ObjectPath::try_from(path.as_str()).map_err(|_| invalid())?;
        Ok(Self { bus_name: bus_name.into(), path: path.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_come_back() {
        for (text, bus_name, path) in [
            ("1.4/149", ":1.4", "/org/a11y/atspi/accessible/149"),
            ("1.4/root", ":1.4", "/org/a11y/atspi/accessible/root"),
            ("1.12//org/gnome/Maps/a11y/a_b", ":1.12", "/org/gnome/Maps/a11y/a_b"),
        ] {
            let id: NodeId = text.parse().expect("an id");
            assert_eq!((id.bus_name(), id.path()), (bus_name, path));
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "149", "/149", "1.4/", "1.4/a b", "1.4/../x", "1/é"] {
            let id = text.parse::<NodeId>();
            assert!(matches!(id, Err(Error::Invalid(_))), "{text}: {id:?}");
        }
    }
}
