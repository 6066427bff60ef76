//! The connection: found, lost, found again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use zbus::connection::Builder;
use zbus::{Connection, Variant};

use crate::bus::{Bus, Failed};
use crate::{Error, Result};

/// For connecting, and for a bus that has to be started by its activation first.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// For a single answer outside of a walk, whose query says it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Of the bus's GUID, which is random: enough to tell buses of one session apart.
const BUS_TAG_CHARS: usize = 8;

const REGISTRY: &str = "org.a11y.atspi.Registry";
const REGISTRY_ROOT: &str = "/org/a11y/atspi/accessible/root";
const LAUNCHER: (&str, &str) = ("org.a11y.Bus", "/org/a11y/bus");

/// The accessibility bus of one session. Cheap calls may run beside each other.
///
/// When the bus ends, the call under way fails with [`Error::Disconnected`], and the next one connects anew; ids of before are
/// then void.
pub struct Accessibility {
    session_address: String,
    bus: Mutex<Bus>,
    /// Whether the next launcher is to be told, too.
    is_enabled: AtomicBool,
}

impl Accessibility {
    /// Asks the session bus at `session_bus_address` (as in `DBUS_SESSION_BUS_ADDRESS`) for the accessibility bus, and connects
    /// to it. Starts no program; the session bus itself activates the launcher, and that the registry, where they are
    /// installed. Takes milliseconds, 15 s at most.
    ///
    /// # Errors
    /// [`Error::NoBus`], [`Error::NoAccessibility`], [`Error::NoRegistry`]; the last two name the package that is missing.
    pub async fn connect(session_bus_address: &str) -> Result<Self> {
        let bus = accessibility_bus(session_bus_address).await?;
        Ok(Self { session_address: session_bus_address.to_owned(), bus: Mutex::new(bus), is_enabled: AtomicBool::new(false) })
    }

    /// Tells programs that a tree is wanted (`org.a11y.Status.IsEnabled`): Qt and Chromium then build theirs, also those that
    /// run already. The launcher of a bus that is connected to anew is told again.
    ///
    /// # Errors
    /// As [`Self::connect`]; [`Error::Refused`].
    pub async fn enable(&self) -> Result<()> {
        self.is_enabled.store(true, Ordering::Relaxed);
        let session = session_bus(&self.session_address).await?;
        let (name, path) = LAUNCHER;
        let body = ("org.a11y.Status", "IsEnabled", Variant::from(true));
        let set: std::result::Result<(), Failed> = session.ask((name, path, PROPERTIES, "Set"), &body).await;
        set.map_err(|failed| match failed {
            Failed::Refused(why) => Error::Refused(why),
            other => Error::NoAccessibility(other.why()),
        })
    }

    /// Whether programs are told that a tree is wanted.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn is_enabled(&self) -> Result<bool> {
        let session = session_bus(&self.session_address).await?;
        let (name, path) = LAUNCHER;
        let get = session.ask::<_, zbus::OwnedVariant>((name, path, PROPERTIES, "Get"), &("org.a11y.Status", "IsEnabled")).await;
        let value = get.map_err(|failed| Error::NoAccessibility(failed.why()))?;
        bool::try_from(value).map_err(|_| Error::NoAccessibility("IsEnabled is no truth value".into()))
    }

    /// Which bus it is: another one, where ids mean other nodes, has another tag. Connects anew if the bus was lost.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn bus_tag(&self) -> Result<String> {
        let bus = self.bus().await?;
        Ok(bus.connection.server_guid().as_str().chars().take(BUS_TAG_CHARS).collect())
    }

    /// The bus, connected anew if it was lost.
    pub(crate) async fn bus(&self) -> Result<Bus> {
        let mut bus = self.bus.lock().await;
        if bus.connection.is_closed() {
            *bus = accessibility_bus(&self.session_address).await?;
            if self.is_enabled.load(Ordering::Relaxed) {
                let _ = self.enable().await; // without it there is less in the tree, as with a program that doesn't care
            }
        }
        Ok(bus.clone())
    }
}

/// Whether a launcher of the accessibility bus runs in the session, whoever started it. Has none started.
///
/// # Errors
/// [`Error::NoBus`].
pub async fn has_launcher(session_bus_address: &str) -> Result<bool> {
    let session = session_bus(session_bus_address).await?;
    let asked = session.ask((DBUS, "/org/freedesktop/DBus", DBUS, "NameHasOwner"), &LAUNCHER.0).await;
    asked.map_err(|failed| Error::NoBus { address: session_bus_address.to_owned(), why: failed.why() })
}

const DBUS: &str = "org.freedesktop.DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

async fn open(address: &str, answer: Duration) -> std::result::Result<Bus, String> {
    let connecting = async {
        let builder = Builder::address(address).method_timeout(CONNECT_TIMEOUT);
        builder.build().await.map_err(|error| error.to_string())
    };
    let opened: std::result::Result<Connection, String> = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())));
    opened.map(|connection| Bus { connection, answer })
}

async fn session_bus(address: &str) -> Result<Bus> {
    let opened = open(address, CONNECT_TIMEOUT).await;
    opened.map_err(|why| Error::NoBus { address: address.to_owned(), why })
}

async fn accessibility_bus(session_address: &str) -> Result<Bus> {
    let found = tokio::time::timeout(CONNECT_TIMEOUT, find_accessibility_bus(session_address)).await;
    found.unwrap_or_else(|_| Err(Error::NoAccessibility(format!("not found within {} s", CONNECT_TIMEOUT.as_secs()))))
}

async fn find_accessibility_bus(session_address: &str) -> Result<Bus> {
    let session = session_bus(session_address).await?;
    let (name, path) = LAUNCHER;
    let address: String =
        session.ask((name, path, name, "GetAddress"), &()).await.map_err(|failed| Error::NoAccessibility(failed.why()))?;
    let bus = open(&address, CONNECT_TIMEOUT).await.map_err(Error::NoAccessibility)?;
    registry(&bus).await.map_err(|failed| Error::NoRegistry(failed.why()))?;
    listen(&bus).await;
    Ok(bus.within(ANSWER_TIMEOUT))
}

/// Whether there is a registry. The first question has the bus start it; one that ended meanwhile (with a reset of the X server
/// that it had just come to) is started by the next.
async fn registry(bus: &Bus) -> std::result::Result<(), Failed> {
    const ATTEMPTS: usize = 3;
    let ask = || bus.ask::<_, u32>((REGISTRY, REGISTRY_ROOT, "org.a11y.atspi.Accessible", "GetRole"), &());
    let mut answer = ask().await;
    for _ in 1..ATTEMPTS {
        if !matches!(answer, Err(Failed::Absent(_))) {
            break;
        }
        answer = ask().await;
    }
    answer.map(|_| ())
}

/// Has the bridges of GTK 3 and Chromium keep their caches, which they do only while somebody listens to some event; this one is
/// rare. No signal comes here, since none is subscribed to at the bus. Without it trees take longer, so a failure is passed over.
async fn listen(bus: &Bus) {
    let event = ("object:announcement", Vec::<String>::new(), "");
    let to = (REGISTRY, "/org/a11y/atspi/registry", REGISTRY, "RegisterEvent");
    let _ = bus.ask::<_, ()>(to, &event).await;
}

/// The applications of the desktop: the references that the registry has.
pub(crate) async fn applications(bus: &Bus) -> Result<Vec<(String, zbus::OwnedObjectPath)>> {
    let asked = bus.ask((REGISTRY, REGISTRY_ROOT, "org.a11y.atspi.Accessible", "GetChildren"), &()).await;
    asked.map_err(|failed| match failed {
        Failed::Lost(why) => Error::Disconnected(why),
        other => Error::NoRegistry(other.why()),
    })
}

/// The process behind a bus name; the bus answers, not the program.
pub(crate) async fn pid_of(bus: &Bus, bus_name: &str) -> Option<u32> {
    let to = (DBUS, "/org/freedesktop/DBus", DBUS, "GetConnectionUnixProcessID");
    bus.ask(to, &bus_name).await.ok()
}
