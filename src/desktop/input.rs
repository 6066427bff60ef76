//! Actions are done: one after the other, whoever asks for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use x_desktop::{Display, Plan, Rect};

use super::action::Step;
use super::displays::part;
use super::link::Link;
use super::session::Session;
use super::space::View;
use super::types::PointerPosition;
use super::{Action, Desktop, Error, Space};
use crate::rt::spawn_owned;

impl Desktop {
    /// Where the pointer is.
    ///
    /// # Errors
    /// There is no desktop.
    pub async fn pointer(&self) -> Result<PointerPosition, Error> {
        let session = self.session()?;
        pointer(&session).await
    }

    /// Does one thing; gives where the pointer is then. Dropping the future ends it where it is, and releases what it held.
    ///
    /// # Errors
    /// What is wrong with it, before anything is done; or why it could not be done.
    pub async fn act(&self, action: Action, space: Space) -> Result<PointerPosition, Error> {
        action.steps(View::default())?; // what is wrong is said even where there is no desktop
        let session = self.session()?;
        let _alone = session.alone().await;
        self.carry_out(&session, &action, &space).await?;
        pointer(&session).await
    }

    /// Does one thing, for whoever is [`alone`](Session::alone).
    pub(super) async fn carry_out(&self, session: &Session, action: &Action, space: &Space) -> Result<(), Error> {
        for step in action.steps(session.view(space).await?)? {
            match step {
                Step::Move(x, y) => {
                    session.link.call("a move of the pointer", Error::Input, move |display| display.move_pointer(x, y)).await?;
                }
                Step::Button(button, is_down) => {
                    session.link.call("a button", Error::Input, move |display| display.button(button, is_down)).await?;
                }
                Step::Follow(plan) => session.follow(plan).await?,
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Still { quiet, timeout } => _ = session.until_still(None, quiet, timeout).await?,
                Step::Node(spec) => _ = self.act_on_node(&spec).await?,
            }
        }
        Ok(())
    }
}

pub(super) async fn pointer(session: &Session) -> Result<PointerPosition, Error> {
    let at = session.link.call("the pointer's place", Error::Input, |display| display.pointer_position()).await?;
    let screen = i32::try_from(at.screen).unwrap_or(0);
    Ok(PointerPosition { x: at.x, y: at.y, screen, window: at.window.to_string() })
}

impl Session {
    /// Nobody else uses pointer or keyboard while this is held.
    pub(super) async fn alone(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.input).lock_owned().await
    }

    /// What coordinates mean now.
    async fn view(&self, space: &Space) -> Result<View, Error> {
        if !space.is_scaled() && space.display.is_none() {
            return Ok(View::default());
        }
        let name = space.display.clone();
        let look = move |display: &mut Display| match name {
            Some(name) => part(display, &name),
            None => Ok(Rect::of_size(display.size())),
        };
        let area = self.link.call("the display", Error::Invalid, look).await?;
        Ok(View { factor: space.factor(area.width, area.height), part: space.display.as_ref().map(|_| area) })
    }

    /// Makes all steps of a plan. Dropping the future has it abandoned.
    async fn follow(&self, plan: Box<dyn Plan>) -> Result<(), Error> {
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let link = self.link.clone();
        let followed = spawn_owned("desktop-input", async move { follow(&link, plan, &stop).await });
        followed.await.map_err(|_| Error::Input("it ended in the middle".to_owned()))?
    }
}

/// Follows a plan of a viewer's: it is short, and nobody stops it.
pub(super) async fn follow_to_end(link: &Link, plan: Box<dyn Plan>) -> Result<(), Error> {
    follow(link, plan, &CancellationToken::new()).await
}

/// Follows a plan until its end, or until `stop`.
async fn follow(link: &Link, plan: Box<dyn Plan>, stop: &CancellationToken) -> Result<(), Error> {
    let mut plan = plan;
    loop {
        let step = link.call("input", Error::Input, move |display| {
            let mut plan = plan;
            let stepped = plan.step(display);
            Ok((plan, stepped))
        });
        let (again, stepped) = match step.await {
            Ok(made) => made,
            Err(error) => {
                // The plan went with the call: what it held is released whenever the server answers again.
                let _ = link.call("the release of keys", Error::Input, |display| display.release_all()).await;
                return Err(error);
            }
        };
        plan = again;
        let Some(pause) = stepped.map_err(|error| Error::of_x(error, Error::Input))? else { return Ok(()) };
        tokio::select! {
            () = stop.cancelled() => {
                let abandon = move |display: &mut Display| {
                    plan.abandon(display);
                    Ok(())
                };
                return link.call("the release of keys", Error::Input, abandon).await;
            }
            () = pause_for(pause) => {}
        }
    }
}

/// The timer of the runtime has milliseconds: what is shorter only lets others go first.
async fn pause_for(pause: Duration) {
    if pause < Duration::from_millis(1) { tokio::task::yield_now().await } else { tokio::time::sleep(pause).await }
}
