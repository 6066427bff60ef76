//! Errands: children that are run to their end for their output.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::{ChildSpec, Children, Started, StderrTail};
use crate::processes::{Error, Exit};

/// After the exit, how long the output is still read when something in the background keeps the pipes open.
const DRAIN: Duration = Duration::from_millis(500);

impl Children {
    /// Runs an errand to its end and gives its exit and the tail of its output, both streams together. What it leaves in
    /// the background is stopped.
    ///
    /// On timeout the whole tree is stopped and `None` is the exit. Dropping the future leaves the child running to
    /// its own end.
    ///
    /// # Errors
    /// As [`Children::spawn`].
    pub async fn errand(
        &self,
        spec: &ChildSpec,
        timeout: Duration,
        output_max_bytes: usize,
        mut on_line: impl FnMut(&str) + Send,
    ) -> Result<(Option<Exit>, String), Error> {
        let Started { stdin, stdout, stderr, process } = self.spawn(spec)?;
        drop(stdin);
        let mut tail = StderrTail::new(usize::MAX, output_max_bytes);
        let limit = output_max_bytes as u64;
        let (mut out, mut err) = (BufReader::new(stdout), BufReader::new(stderr));
        let deadline = tokio::time::sleep(timeout);
        let drained = async {
            process.exited().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::pin!(deadline, drained);
        let (mut out_open, mut err_open) = (true, true);
        let (mut out_line, mut err_line) = (Vec::new(), Vec::new());
        let mut note = |line: &mut Vec<u8>, read: std::io::Result<usize>| {
            if !line.is_empty() {
                tail.push(line);
                on_line(String::from_utf8_lossy(line).trim_end());
                line.clear();
            }
            matches!(read, Ok(count) if count > 0)
        };
        let timed_out = loop {
            let mut out_limited = (&mut out).take(limit);
            let mut err_limited = (&mut err).take(limit);
            tokio::select! {
                read = out_limited.read_until(b'\n', &mut out_line), if out_open => out_open = note(&mut out_line, read),
                read = err_limited.read_until(b'\n', &mut err_line), if err_open => err_open = note(&mut err_line, read),
                () = &mut deadline => break true,
                () = &mut drained => break false,
                _ = process.exited(), if !out_open && !err_open => break false,
            }
        };
        note(&mut out_line, Ok(0)); // a line that was not finished
        note(&mut err_line, Ok(0));
        if timed_out {
            process.stop(Duration::from_secs(1)).await;
            return Ok((None, tail.text()));
        }
        let outcome = process.exited().await;
        process.stop(Duration::ZERO).await; // what it left in the background
        Ok((Some(outcome), tail.text()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::Env;
    use crate::processes::Owner;

    #[tokio::test]
    async fn what_an_errand_leaves_in_the_background_is_not_waited_for() {
        let _alone = crate::processes::TEST_CHILDREN.lock().await;
        let processes = Children::start("errand-test", Env::from_pairs([("PATH", "/usr/bin:/bin")]), 8).await;
        let args = ["-c", "sleep 60 & echo $!; printf unfinished >&2"].map(Into::into).to_vec();
        let spec = ChildSpec { program: "/bin/sh".into(), args, cwd: None, env: Vec::new(), owner: Owner::System };
        let started = Instant::now();
        let run = processes.errand(&spec, Duration::from_secs(30), 1024, |_| {}).await;
        let (exit, output) = run.expect("it runs");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert_eq!(exit, Some(Exit::Code(0)));
        let sleeper = output.lines().find_map(|line| line.parse().ok()).expect("its number");
        assert!(output.contains("unfinished"), "{output}");
        assert_eq!(crate::processes::started_at_ticks(sleeper), None, "it was stopped");
        assert_eq!(processes.end_all().await, 0);
        assert!(processes.spawn(&spec).is_err(), "nothing is started after the end");
    }
}
