import { agentSuite } from './lib/agent_suite.mjs';

agentSuite('mock');
