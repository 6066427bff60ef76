// The desktop live on bad networks: ways that are barred, loss, and little room. Runs in a network of its own.

import { drop, heal, narrow } from './lib/own_network.mjs'; // first: what comes after it is in that network
import assert from 'node:assert/strict';

import { desktopScenario } from './lib/desktop_scenario.mjs';
import { browsing, clickAndType, openComponent, openOurs, showCard, untilCard, untilMoving, untilPath, viewers } from './lib/stream_scenario.mjs';
import { until } from './lib/wait.mjs';

const PORTS = '59050-59070';
const { options, ...looking } = await browsing();

function scenario(title, body) {
  desktopScenario(title, async (stage, t) => {
    await stage.client.startDesktopStream();
    try {
      await body(stage, t);
    } finally {
      heal();
    }
  }, { ...options, hangGuardMs: 180_000 });
}

/** What each kind of page shows is right and moves, and what is done there reaches programs. */
async function assertWatches(stage, paths, pages = { video: openComponent, '#stage': openOurs }) {
  let isFirst = true;
  for (const [selector, openPage] of Object.entries(pages)) {
    const { page, context, problems } = await openPage(stage, looking);
    const [viewer] = await untilPath(stage, paths);
    if (isFirst) await showCard(stage);
    isFirst = false;
    await untilCard(page);
    await untilMoving(stage, page);
    await clickAndType(stage, page, selector, `typed-${openPage.name}`);
    assert.deepEqual((await viewers(stage)).map((each) => each.path), paths, 'the path is another now');
    assert.deepEqual(problems, []);
    assert.equal(viewer.pathReason, undefined);
    await context.close();
    await until(async () => (await viewers(stage)).length === 0, 'the end of the viewer');
  }
}

scenario('without TCP the picture comes over UDP', async (stage) => {
  drop(`tcp dport ${PORTS}`);
  await assertWatches(stage, ['webrtc-udp']);
});

scenario('without UDP it comes over TCP', async (stage) => {
  drop(`udp dport ${PORTS}`);
  await assertWatches(stage, ['webrtc-tcp']);
});
