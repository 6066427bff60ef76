//! What takes time on a desktop is a plan: its owner makes each step when it is due, and meanwhile does other things.

use std::time::Duration;

use crate::{Display, Result};

/// Steps to be made one after the other.
pub trait Plan: Send {
    /// Makes the next step and says how long to wait before the one after it; `None` at the end. A step blocks for a few
    /// round trips and never sleeps. Who waits less than what it says gets an earlier step, which is harmless but for the pace.
    ///
    /// # Errors
    /// As the plan says. What it held is let go then, and it is at its end.
    fn step(&mut self, display: &mut Display) -> Result<Option<Duration>>;

    /// Lets go of the keys and buttons that the plan holds: due when it isn't followed to its end. What was done stays done.
    fn abandon(&mut self, display: &mut Display);

    /// Makes all steps, sleeping in between. For programs that have nothing else to do.
    ///
    /// # Errors
    /// As [`Plan::step`].
    fn run(&mut self, display: &mut Display) -> Result<()>
    where
        Self: Sized,
    {
        while let Some(pause) = self.step(display)? {
            std::thread::sleep(pause);
        }
        Ok(())
    }
}
