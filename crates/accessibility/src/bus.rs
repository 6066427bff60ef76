//! One call and its bound; errors of D-Bus told as ours.

use std::time::Duration;

use serde::Serialize;
use zbus::wire::DynamicDeserialize;
use zbus::{Connection, DynamicType, OwnedVariant, Variant, fdo};

use crate::id::NodeId;
use crate::{Error, Result};

/// A bus, and how long an answer may take.
#[derive(Clone)]
pub(crate) struct Bus {
    pub(crate) connection: Connection,
    pub(crate) answer: Duration,
}

impl Bus {
    /// The same bus with another bound for answers.
    pub(crate) fn within(&self, answer: Duration) -> Self {
        Self { connection: self.connection.clone(), answer }
    }

    /// Calls `interface.method` of a node. `interface` is without `org.a11y.atspi.`.
    pub(crate) async fn call<B, R>(&self, node: &NodeId, interface: &str, method: &str, body: &B) -> Result<R>
    where
        B: Serialize + DynamicType + Sync,
        R: for<'d> DynamicDeserialize<'d>,
    {
        self.raw(node, &format!("org.a11y.atspi.{interface}"), method, body).await
    }

    /// A property of a node, by `Get`: some versions of Qt crash on `GetAll`.
    pub(crate) async fn get<R>(&self, node: &NodeId, interface: &str, property: &str) -> Result<R>
    where
        R: TryFrom<OwnedVariant>,
    {
        let body = (format!("org.a11y.atspi.{interface}"), property);
        let value: OwnedVariant = self.raw(node, "org.freedesktop.DBus.Properties", "Get", &body).await?;
        R::try_from(value).map_err(|_| Error::Refused(format!("{node}: {property} has another type than the standard's")))
    }

    /// Sets a property of a node.
    pub(crate) async fn set(&self, node: &NodeId, interface: &str, property: &str, value: Variant<'_>) -> Result<()> {
        let body = (format!("org.a11y.atspi.{interface}"), property, value);
        self.raw(node, "org.freedesktop.DBus.Properties", "Set", &body).await
    }

    async fn raw<B, R>(&self, node: &NodeId, interface: &str, method: &str, body: &B) -> Result<R>
    where
        B: Serialize + DynamicType + Sync,
        R: for<'d> DynamicDeserialize<'d>,
    {
        let what = || format!("{node}: {method}");
        let reply = self.ask((node.bus_name(), node.path(), interface, method), body).await;
        reply.map_err(|failed| failed.about(node.to_string(), what()))
    }

    /// One call to anyone: bus name, path, interface, method. An answer of another type than asked for counts as a refusal.
    pub(crate) async fn ask<B, R>(&self, to: (&str, &str, &str, &str), body: &B) -> std::result::Result<R, Failed>
    where
        B: Serialize + DynamicType + Sync,
        R: for<'d> DynamicDeserialize<'d>,
    {
        let (bus_name, path, interface, method) = to;
        let call = self.connection.call_method(Some(bus_name), path, Some(interface), method, body);
        match tokio::time::timeout(self.answer, call).await {
            Err(_) => Err(Failed::Silent(self.answer)),
            Ok(Err(error)) => Err(Failed::of(error)),
            Ok(Ok(message)) => message.body().deserialize().map_err(|error| Failed::Refused(error.to_string())),
        }
    }
}

/// How a call failed, before it is known what it was about.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nobody has the bus name, or the object isn't there.
    Absent(String),
    /// The connection to the bus is lost.
    Lost(String),
    Refused(String),
    Silent(Duration),
}

impl Failed {
    fn of(error: zbus::Error) -> Self {
        let text = error.to_string();
        match error {
            zbus::Error::FDO(error) => match *error {
                fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) | fdo::Error::UnknownObject(_) => {
                    Self::Absent(text)
                }
                // GDBus, which GTK 4 uses, for an object that isn't there
                fdo::Error::UnknownMethod(why) if why.contains("Object does not exist") => Self::Absent(text),
                // the bus answers so for a program that ends with the call unanswered
                fdo::Error::NoReply(_) | fdo::Error::Disconnected(_) => Self::Absent(text),
                _ => Self::Refused(text),
            },
            zbus::Error::InputOutput(_) => Self::Lost(text),
            _ => Self::Refused(text),
        }
    }

    /// The error for a call to `node`.
    fn about(self, node: String, what: String) -> Error {
        match self {
            Self::Absent(_) => Error::NoNode(node),
            Self::Lost(why) => Error::Disconnected(why),
            Self::Refused(why) => Error::Refused(format!("{what}: {}", why.chars().take(500).collect::<String>())),
            Self::Silent(answer) => Error::TimedOut { what, timeout_ms: millis(answer) },
        }
    }

    /// The cause alone.
    pub(crate) fn why(self) -> String {
        match self {
            Self::Absent(why) | Self::Lost(why) | Self::Refused(why) => why,
            Self::Silent(answer) => format!("no answer within {} ms", millis(answer)),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
