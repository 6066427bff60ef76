// Waiting for a condition, and hang guards. No test asserts how long something takes.

import { setTimeout as sleep } from 'node:timers/promises';

export async function until(condition, what, milliseconds = 30_000) {
  const deadline = Date.now() + milliseconds;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited in vain for: ${what}`);
    await sleep(15);
  }
}

/** `promise`, or an error naming `what` when it hangs. */
export async function guard(promise, what, milliseconds) {
  promise.catch(() => {});
  const abort = new AbortController();
  const hang = sleep(milliseconds, undefined, { signal: abort.signal }).then(() => {
    throw new Error(`still waiting after ${milliseconds} ms: ${what}`);
  });
  hang.catch(() => {});
  try {
    return await Promise.race([promise, hang]);
  } finally {
    abort.abort();
  }
}
