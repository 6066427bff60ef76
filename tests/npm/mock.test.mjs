import assert from 'node:assert/strict';

import { agentSuite } from './lib/agent_suite.mjs';
import { scenario, settle } from './lib/scenario.mjs';

agentSuite('mock');

scenario('mock', 'takes a prompt at any moment of its end', async (stage) => {
  const talk = await stage.createSession(await stage.connect());
  for (let round = 0; round < 40; round += 1) {
    await talk.say('alive', 'alive');
    await stage.killAgent();
    // The prompt may still reach the dying process, and then it ends with the news of that death and nothing else.
    const { error } = await settle(talk.say('at once', 'at once'));
    assert.ok(!error || error.data?.signal, `round ${round}: ${error?.message} ${JSON.stringify(error?.data)}`);
  }
});
