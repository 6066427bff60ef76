// Sessions that last, with real agents.

import { sessionSuite } from './lib/session_suite.mjs';

sessionSuite('claude', { canSteer: false, otherModel: 'haiku' });
sessionSuite('codex', { canSteer: true, otherModel: 'gpt-5.5' });
sessionSuite('opencode', { canSteer: false, otherModel: 'anthropic/claude-haiku-4-5' });
