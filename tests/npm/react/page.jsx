// The published component, unchanged, on a process of the server that the address names.

import { ProcessTerminal } from '@sandbox-agent/react';
import { Terminal } from 'ghostty-web';
import { createRoot } from 'react-dom/client';
import { SandboxAgent } from 'sandbox-agent';

// The component keeps its terminal to itself; the test wants to read the screen.
const { open } = Terminal.prototype;
Terminal.prototype.open = function openAndShow(...args) {
  window.terminal = this;
  return open.apply(this, args);
};

window.screenText = () => {
  const { active } = window.terminal.buffer;
  const lines = Array.from({ length: active.length }, (_, index) => active.getLine(index)?.translateToString(true) ?? '');
  return lines.join('\n');
};

const address = new URLSearchParams(window.location.search);
const client = await SandboxAgent.connect({ baseUrl: address.get('server'), token: address.get('token') ?? undefined });
await client.getHealth();

createRoot(document.getElementById('root')).render(<ProcessTerminal client={client} processId={address.get('process')} />);
