#!/usr/bin/env bash
# Waits until the server answers, then says what to do next.
port=${1:?port}
url=http://127.0.0.1:$port
for _ in $(seq 200); do
  curl -fs "$url/v1/health" >/dev/null 2>&1 && break
  sleep 0.05
done
cat <<TEXT

sandboxd listens on $url   (its API: $url/docs)

Send the first prompt, to the built-in mock agent, from another terminal:

  curl -s '$url/v1/acp/demo?agent=mock' -H 'content-type: application/json' -d '{"jsonrpc":"2.0","id":1,"method":"session/prompt","params":{"sessionId":"demo","prompt":[{"type":"text","text":"hello"}]}}'

Follow what the agent says:       curl -N $url/v1/acp/demo
Add a real agent:                 target/release/sandboxd install-agent claude   (then ?agent=claude; it needs ANTHROPIC_API_KEY in this terminal)
All agents there are:             curl -s $url/v1/agents

TEXT
