//! What a viewer does with pointer, keyboard and clipboard.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Presence, Talk};
use crate::desktop::stream::input::{Hands, Input, WheelUnit};
use crate::desktop::stream::viewers::Viewer;
use crate::desktop::stream::{LEASE, Stream};
use crate::desktop::{Error, LeaseSpec, SetSelection};

impl Talk {
    pub(super) fn may_control(&self) -> Result<(), Error> {
        let may = self.presence.viewer.may_control();
        may.then_some(()).ok_or_else(|| Error::Conflict("this ticket is for watching only".to_owned()))
    }

    /// Carries out an input, for whom it is allowed.
    pub(super) async fn act(&mut self, input: Input) -> Result<(), Error> {
        self.may_control()?;
        let Presence { stream, viewer } = &self.presence;
        if input.is_meant() {
            stream.viewers.take_control(viewer);
            self.lease().await?;
        } else if *self.presence.stream.viewers.host().borrow() != Some(self.presence.viewer.number) {
            return Ok(()); // only passes over the picture
        }
        self.inputs.try_send(input).map_err(|_| Error::Input("too much at once".to_owned()))
    }

    /// People take over: while they do something, agents that ask for the lease don't get it.
    pub(super) async fn lease(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if now + LEASE / 2 < self.leased_until {
            return Ok(());
        }
        self.leased_until = now + LEASE;
        let ttl_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let spec = LeaseSpec { holder: self.presence.viewer.id(), ttl_ms, take_over: true };
        self.desktop.lease().take(spec).await.map(drop)
    }

    pub(super) async fn press(&mut self, input: Input) -> Result<(), Error> {
        self.act(input).await?;
        let up = match input {
            Input::Button { number, .. } => Input::Button { number, is_down: false },
            Input::Key { keysym, .. } => Input::Key { keysym, is_down: false },
            other => other,
        };
        self.act(up).await
    }

    pub(super) async fn chord(&mut self, key: char) -> Result<(), Error> {
        const CONTROL: u32 = 0xffe3;
        self.act(Input::Key { keysym: CONTROL, is_down: true }).await?;
        self.press(Input::Key { keysym: key.into(), is_down: true }).await?;
        self.act(Input::Key { keysym: CONTROL, is_down: false }).await
    }

    pub(super) async fn set_clipboard(&mut self, text: String) -> Result<(), Error> {
        self.may_control()?;
        self.lease().await?;
        self.desktop.set_clipboard(SetSelection { text, selection: None }).await
    }
}

/// Inputs of a viewer are carried out in their order, until it is gone; then all that it held is let go. Moves that wait behind each
/// other are one.
pub(super) async fn carry_out(
    stream: Arc<Stream>,
    viewer: Arc<Viewer>,
    mut inputs: mpsc::Receiver<Input>,
    units: watch::Receiver<WheelUnit>,
) {
    let mut hands = Hands::default();
    let mut hosts = stream.viewers.host();
    let mut next = None;
    loop {
        let input = match next.take() {
            Some(input) => input,
            None => tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => input,
                    None => break,
                },
                // somebody else took over
                Ok(()) = hosts.changed() => {
                    if *hosts.borrow_and_update() != Some(viewer.number) {
                        hands.let_go(&stream.session.link).await;
                    }
                    continue;
                }
            },
        };
        let mut input = input;
        while matches!(input, Input::Move { .. })
            && let Ok(other) = inputs.try_recv()
        {
            if !matches!(other, Input::Move { .. }) {
                next = Some(other);
                break;
            }
            input = other;
        }
        hands.unit = *units.borrow();
        let _alone = stream.session.alone().await;
        if let Err(error) = hands.carry_out(&stream.session.link, input).await {
            tracing::debug!(%error, viewer = viewer.id(), "an input of a viewer");
        }
    }
    hands.let_go(&stream.session.link).await;
}
