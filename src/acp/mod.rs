//! ACP over HTTP: agents as JSON-RPC servers that are addressed by a client-chosen id.
//!
//! Each server has one owner task ([`owner`]) that alone touches its agent process; the registry here maps ids to
//! handles. Everything that passes is in the log before a subscriber sees it: stream `acp/<instance>/out` is what
//! clients read as events, `…/in` what they sent. A server outlives its agent process and a restart of ours: the next
//! request starts a new process and tells it what its predecessor knew ([`restore`]).

mod agent;
mod envelope;
mod ids;
mod line;
mod messages;
mod owner;
mod readers;
pub mod remote;
mod restore;
mod server;
mod speak;
mod tap;
mod types;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use envelope::{Envelope, Kind, ParseError, raw_member, string_member};
pub use readers::{Reader, Readers};
use server::Handshake;
pub use server::Server;
pub use tap::{Asked, Decided, Fact, NoTaps, Outlived, Prompted, Tap, TapServer, TapSource, Transcript, Underway, Verdict};
pub use types::{AgentSource, BoxFuture, Error, Launch, LaunchError, Posted, Quirks, ServerInfo, Status};

use crate::config::{Bounds, as_usize};
use crate::processes::{Children, ProcessId};
use crate::rt::clock::now_ms;
use crate::rt::ids::new_id;
use crate::rt::spawn_owned;
use crate::store::{AcpServerRow, AcpSessionRow, RowChange, Store, Stream};
use agent::{About, Agent};
use owner::{Command, First, Owner};
use restore::Memory;

/// The room: makes, finds and deletes servers.
#[derive(Clone)]
pub struct Acp {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    children: Children,
    source: Arc<dyn AgentSource>,
    taps: Arc<dyn TapSource>,
    bounds: Bounds,
    servers: Mutex<Servers>,
    /// Deletions under way, by server id: their end is what a second caller, and the shutdown, wait for.
    deletions: Mutex<BTreeMap<String, watch::Receiver<()>>>,
    stop: CancellationToken,
    /// Told when agents that outlived the last server go on.
    taken: Mutex<Vec<oneshot::Receiver<()>>>,
}

type Made = Result<Arc<Server>, Error>;
type Servers = BTreeMap<String, Slot>;

/// A server, or one that is being made: concurrent first POSTs wait for the same one.
#[derive(Clone)]
struct Slot {
    agent: String,
    made: watch::Receiver<Option<Made>>,
}

impl Acp {
    /// Takes up the servers that an earlier run left; their agents start with the next request.
    ///
    /// # Errors
    /// [`Error::Store`] when the log can't be read.
    pub async fn start(
        store: Store,
        children: Children,
        source: Arc<dyn AgentSource>,
        taps: Arc<dyn TapSource>,
        bounds: Bounds,
    ) -> Result<Self, Error> {
        let inner = Inner {
            store,
            children,
            source,
            taps,
            bounds,
            servers: Mutex::default(),
            deletions: Mutex::default(),
            stop: CancellationToken::new(),
            taken: Mutex::default(),
        };
        let acp = Self { inner: Arc::new(inner) };
        let mut outlived = agent::outlived(&acp.inner.children);
        for (row, sessions) in acp.inner.store.acp_servers().await? {
            let (id, agent) = (row.server_id.clone(), row.agent.clone());
            // The youngest: its predecessor, which has ended, may not have been forgotten yet.
            let at = outlived.iter().rposition(|(_, about)| about.instance == row.instance);
            let server = acp.take_up(row, sessions, at.map(|at| outlived.remove(at))).await?;
            acp.inner.servers().insert(id, Slot { agent, made: watch::channel(Some(Ok(server))).1 });
        }
        Ok(acp)
    }

    /// Makes the server when it isn't there, which may take the time of an install. Dropping the future doesn't stop it.
    ///
    /// # Errors
    /// As [`Acp::check`], or why making it failed.
    pub async fn ensure(&self, server_id: &str, agent: &str) -> Result<(), Error> {
        self.find_or_make(server_id, Some(agent)).await.map(drop)
    }

    /// Waits until all agents that outlived the last server go on, so that nobody sees their sessions before. Cancel safe.
    pub async fn until_taken_over(&self) {
        let all = std::mem::take(&mut *self.inner.taken());
        futures_util::future::join_all(all).await; // an error is its owner's end
    }

    /// True once every server ends because ours does.
    pub fn is_stopping(&self) -> bool {
        self.inner.stop.is_cancelled()
    }

    /// True when this agent is known.
    pub fn knows(&self, agent: &str) -> bool {
        self.inner.source.knows(agent)
    }

    /// Checks what [`Acp::post`] would refuse at once, without effect.
    ///
    /// # Errors
    /// [`Error::Launch`] for an unknown agent, [`Error::MissingAgent`], [`Error::AgentMismatch`].
    pub fn check(&self, server_id: &str, agent: Option<&str>) -> Result<(), Error> {
        let has = self.inner.servers().get(server_id).map(|slot| slot.agent.clone());
        match (has, agent) {
            (Some(_), None) => Ok(()),
            (Some(has), Some(agent)) if has == agent => Ok(()),
            (_, Some(agent)) if !self.inner.source.knows(agent) => {
                Err(LaunchError::Unsupported { agent: agent.to_owned() }.into())
            }
            (Some(has), Some(agent)) => Err(Error::AgentMismatch { id: server_id.to_owned(), has, wants: agent.to_owned() }),
            (None, Some(_)) => Ok(()),
            (None, None) => Err(Error::MissingAgent { id: server_id.to_owned() }),
        }
    }

    /// The server's handle, waiting while it is being made.
    ///
    /// # Errors
    /// [`Error::UnknownServer`], or why making it failed.
    pub async fn get(&self, server_id: &str) -> Result<Arc<Server>, Error> {
        let slot = self.inner.servers().get(server_id).cloned();
        wait_made(slot.ok_or_else(|| Error::UnknownServer { id: server_id.to_owned() })?).await
    }

    /// All servers, by id.
    pub fn list(&self) -> Vec<ServerInfo> {
        let servers = self.inner.servers();
        let made = servers.iter().filter_map(|(id, slot)| match &*slot.made.borrow() {
            Some(Ok(server)) => Some((id.clone(), Arc::clone(server))),
            _ => None,
        });
        made.map(|(server_id, server)| ServerInfo {
            server_id,
            agent: server.agent.clone(),
            created_at_ms: server.created_at_ms,
            status: *server.status.borrow(),
        })
        .collect()
    }

    /// Deletes a server: it is gone from the list at once; resolves when no process of it is left. An unknown id is
    /// already so. Dropping the future changes nothing.
    pub async fn delete(&self, server_id: &str) {
        let removed = self.inner.servers().remove(server_id);
        let made = removed.and_then(|slot| slot.made.borrow().clone()).and_then(Result::ok);
        let Some(server) = made else {
            // Nothing of it runs: whoever is just making it will find that it is no longer wanted. Or another call
            // deletes it already, and both are answered at its end.
            let under_way = self.inner.deletions().get(server_id).cloned();
            if let Some(mut under_way) = under_way {
                let _ = under_way.changed().await; // an error is its end
            }
            return;
        };
        let (guard, end) = watch::channel(());
        self.inner.deletions().insert(server_id.to_owned(), end);
        let (acp, server_id) = (self.clone(), server_id.to_owned());
        let task = spawn_owned("acp-delete", async move {
            acp.end_server(&server_id, &server).await;
            acp.inner.deletions().remove(&server_id);
            drop(guard);
        });
        let _ = task.await; // a panic in it is logged
    }

    async fn end_server(&self, server_id: &str, server: &Server) {
        let (reply, done) = oneshot::channel();
        if server.mailbox.send(Command::Delete { reply }).await.is_ok() {
            let _ = done.await; // the owner ended on its own: the same outcome
        }
        let keep_streams = self.inner.bounds.log_deleted_streams_max;
        let change =
            RowChange::DeleteAcpServer { server_id: server_id.to_owned(), instance: server.instance.clone(), keep_streams };
        if let Err(error) = self.inner.store.change(change).await {
            tracing::error!(%error, "a deleted ACP server is still in the database and will be listed after a restart");
        }
    }

    /// Stops every agent, keeping the servers for the next run. Resolves when nothing of them is left.
    pub async fn shut_down(&self) {
        self.inner.stop.cancel();
        let slots: Vec<_> = self.inner.servers().values().cloned().collect();
        for slot in slots {
            let server = match &*slot.made.borrow() {
                Some(Ok(server)) => Arc::clone(server),
                _ => continue,
            };
            let task = server.task.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(task) = task {
                let _ = task.await; // a panic in it is logged
            }
        }
        let deletions: Vec<_> = self.inner.deletions().values().cloned().collect();
        for mut deletion in deletions {
            let _ = deletion.changed().await; // an error is its end
        }
    }

    async fn find_or_make(&self, server_id: &str, agent: Option<&str>) -> Made {
        self.check(server_id, agent)?;
        let slot = {
            let mut servers = self.inner.servers();
            match (servers.get(server_id), agent) {
                (Some(slot), _) => slot.clone(),
                (None, None) => return Err(Error::MissingAgent { id: server_id.to_owned() }),
                (None, Some(_)) if self.inner.stop.is_cancelled() => return Err(Error::Stopping),
                (None, Some(_)) if servers.len() as u64 >= self.inner.bounds.acp_servers_max => {
                    return Err(Error::TooMany { max: self.inner.bounds.acp_servers_max });
                }
                (None, Some(agent)) => {
                    let (publish, made) = watch::channel(None);
                    let slot = Slot { agent: agent.to_owned(), made };
                    servers.insert(server_id.to_owned(), slot.clone());
                    // Its own task: a client that leaves in the middle must not leave half a server behind.
                    spawn_owned("acp-make", make(self.clone(), server_id.to_owned(), agent.to_owned(), publish));
                    slot
                }
            }
        };
        if let Some(agent) = agent.filter(|agent| *agent != slot.agent) {
            return Err(Error::AgentMismatch { id: server_id.to_owned(), has: slot.agent, wants: agent.to_owned() });
        }
        wait_made(slot).await
    }

    /// `wanted` is asked at the end, under the lock: the server may have been deleted while it was being made.
    async fn new_server(&self, server_id: &str, agent: &str, wanted: &(dyn Fn(&Servers) -> bool + Sync)) -> Made {
        let row = AcpServerRow {
            server_id: server_id.to_owned(),
            agent: agent.to_owned(),
            instance: new_id("acp"),
            created_at_ms: now_ms(),
            initialize: None,
            authenticate: None,
            initialized: None,
        };
        let (launch, streams) = tokio::join!(self.inner.source.launch(agent), self.streams(&row.instance));
        let (outbound, inbound) = streams?;
        let launch = launch?;
        let servers = self.inner.servers();
        if !wanted(&servers) {
            return Err(Error::Deleted { id: row.server_id });
        }
        // Still under the lock: rows of one id are written in the order in which its servers come and go.
        let first = Agent::start(&self.inner.children, &launch, (&row.instance, agent), 0, &self.inner.bounds)?;
        let change = RowChange::PutAcpServer(row.clone());
        self.inner.store.append(&inbound, "acp.created", bytes::Bytes::from_static(b"{}"), Some(change));
        let memory = Memory::new(self.remembered());
        Ok(self.run(row, memory, outbound, inbound, (First::New(Box::new(first)), 0)))
    }

    async fn take_up(&self, row: AcpServerRow, sessions: Vec<AcpSessionRow>, agent: Option<(ProcessId, About)>) -> Made {
        let (outbound, inbound) = self.streams(&row.instance).await?;
        let memory = Memory::from_rows(&row, sessions, self.remembered());
        let read_to = self.inner.store.read_to(&format!("acp/{}/out", row.instance)).await?;
        let taken = agent.and_then(|(id, about)| {
            let taken = Agent::go_on(&self.inner.children, id, &about, read_to, &self.inner.bounds);
            if taken.is_none() {
                tracing::warn!(server = row.server_id, "the agent outlived the last server, but nobody can go on with it");
            }
            taken
        });
        let first = taken.map_or(First::None, |taken| {
            let (goes_on, told) = oneshot::channel();
            self.inner.taken().push(told);
            First::Taken(Box::new(taken), goes_on)
        });
        Ok(self.run(row, memory, outbound, inbound, (first, read_to)))
    }

    fn remembered(&self) -> restore::Max {
        let bounds = &self.inner.bounds;
        restore::Max { sessions: as_usize(bounds.acp_sessions_max), params_bytes: as_usize(bounds.session_params_max_bytes) }
    }

    async fn streams(&self, instance: &str) -> Result<(Arc<Stream>, Arc<Stream>), Error> {
        let names = [format!("acp/{instance}/out"), format!("acp/{instance}/in")];
        let [outbound, inbound] = self.inner.store.open_streams(names).await?;
        Ok((outbound, inbound))
    }

    fn run(
        &self,
        row: AcpServerRow,
        memory: Memory,
        outbound: Arc<Stream>,
        inbound: Arc<Stream>,
        (first, read_to): (First, u64),
    ) -> Arc<Server> {
        let (mailbox, commands) = mpsc::channel(as_usize(self.inner.bounds.acp_mailbox_max_messages));
        let since_ms = now_ms();
        let (publish, status) =
            watch::channel(if matches!(first, First::None) { Status::Stopped } else { Status::Running { since_ms } });
        let tapped = TapServer {
            server_id: row.server_id.clone(),
            agent: row.agent.clone(),
            instance: row.instance.clone(),
            events: Arc::clone(&outbound),
        };
        let handshake = Handshake { asked: row.initialize.map(Arc::from), answered: row.initialized.map(Arc::from) };
        let handshake = Arc::new(Mutex::new(handshake));
        let owner = Owner {
            server_id: row.server_id,
            instance: row.instance.clone(),
            agent_name: row.agent.clone(),
            inbound,
            outbound: Arc::clone(&outbound),
            store: self.inner.store.clone(),
            children: self.inner.children.clone(),
            source: Arc::clone(&self.inner.source),
            bounds: self.inner.bounds.clone(),
            mailbox: commands,
            status: publish,
            memory,
            tap: self.inner.taps.tap(tapped),
            handshake: Arc::clone(&handshake),
            stop: self.inner.stop.clone(),
            read_to,
        };
        let task = spawn_owned("acp-server", owner.run(first));
        Arc::new(Server {
            agent: row.agent,
            instance: row.instance,
            created_at_ms: row.created_at_ms,
            mailbox,
            outbound,
            readers: Readers::default(),
            status,
            handshake,
            task: Mutex::new(Some(task)),
        })
    }
}

/// Makes a server and tells those who wait; a failure frees the id.
async fn make(acp: Acp, server_id: String, agent: String, publish: watch::Sender<Option<Made>>) {
    let ours = publish.subscribe();
    let is_ours = |servers: &Servers| servers.get(&server_id).is_some_and(|slot| slot.made.same_channel(&ours));
    let made = acp.new_server(&server_id, &agent, &is_ours).await;
    if made.is_err() {
        let mut servers = acp.inner.servers();
        if is_ours(&servers) {
            servers.remove(&server_id);
        }
    }
    publish.send_replace(Some(made));
}

async fn wait_made(mut slot: Slot) -> Made {
    let made = slot.made.wait_for(Option::is_some).await.map_err(|_| Error::Stopping)?;
    made.clone().unwrap_or(Err(Error::Stopping))
}

impl Inner {
    fn taken(&self) -> MutexGuard<'_, Vec<oneshot::Receiver<()>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner) // as below
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner) // a map is whole after each change
    }

    fn deletions(&self) -> MutexGuard<'_, BTreeMap<String, watch::Receiver<()>>> {
        self.deletions.lock().unwrap_or_else(PoisonError::into_inner) // as above
    }
}
