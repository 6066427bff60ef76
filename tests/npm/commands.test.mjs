// Commands that an agent runs live in sessions of their own (setsid), out of reach of signals to the agent's group.

import fs from 'node:fs';

import { EventStream, openSession, post, promptMessage } from './lib/event_stream.mjs';
import { scenario } from './lib/scenario.mjs';
import { until } from './lib/wait.mjs';

const COMMAND = 'sleep 86399';

/** Brings an agent into the middle of a command that does not end by itself. */
async function beginEndlessCommand(stage) {
  const { server } = stage;
  const sessionId = await openSession(server, 'busy', stage.agentName);
  const stream = stage.track(await EventStream.open(server, 'busy'));
  post(server, 'busy', promptMessage(1, sessionId, `RUN: touch started; ${COMMAND}`)).catch(() => {});
  const asked = () => stream.messages.find(({ method }) => method === 'session/request_permission');
  const { id, params } = await until(asked, 'the permission request');
  const { optionId } = params.options.find(({ kind }) => kind === 'allow_once');
  await post(server, 'busy', { id, result: { outcome: { outcome: 'selected', optionId } } });
  await until(() => fs.existsSync(stage.file('started')) && commands(stage).length > 0, 'the command');
}

const commands = (stage) => stage.server.processes().filter(({ command }) => command.includes(COMMAND));

for (const agent of ['claude', 'codex', 'opencode']) {
  scenario(agent, 'leaves no command after DELETE', async (stage) => {
    await beginEndlessCommand(stage);
    await fetch(`${stage.server.url}/v1/acp/busy`, { method: 'DELETE' });
    await stage.server.waitUntilNoProcessIsLeft();
  });

  scenario(agent, 'leaves no command when the agent was killed', async (stage) => {
    await beginEndlessCommand(stage);
    await stage.killAgent();
    await stage.server.waitUntilNoProcessIsLeft();
  });

  scenario(agent, 'leaves no command when the server stops', async (stage) => {
    await beginEndlessCommand(stage);
    await stage.server.stop('SIGTERM');
    await stage.server.waitUntilNoProcessIsLeft();
  });

  scenario(agent, 'leaves no command when the server was killed and comes back', async (stage) => {
    await beginEndlessCommand(stage);
    await stage.server.restart('SIGKILL');
    await stage.server.waitUntilNoProcessIsLeft();
  });
}
