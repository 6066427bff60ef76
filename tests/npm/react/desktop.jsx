// The published component, unchanged, on the desktop of the server that the address names.

import { DesktopViewer } from '@sandbox-agent/react';
import { createRoot } from 'react-dom/client';
import { SandboxAgent } from 'sandbox-agent';

const address = new URLSearchParams(window.location.search);
const client = await SandboxAgent.connect({ baseUrl: address.get('server'), token: address.get('token') ?? undefined });
await client.getHealth();

createRoot(document.getElementById('root')).render(<DesktopViewer client={client} height={600} />);
