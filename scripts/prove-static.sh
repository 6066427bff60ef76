#!/usr/bin/env bash
# Starts the static binary in an empty root, as an ordinary user's process would, and asks it for its health and one
# turn of the mock agent. Needs root (chroot).
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:-target/x86_64-unknown-linux-musl/release/sandboxd}
root=$(mktemp -d)
trap 'kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; umount "$root/proc" 2>/dev/null; rm -rf "$root"' EXIT
pid=
cp "$binary" "$root/sandboxd"
mkdir "$root/proc" "$root/home" "$root/dev"
mount -t proc proc "$root/proc"
env -i HOME=/home "$(PATH=$PATH:/usr/sbin:/sbin command -v chroot)" "$root" /sandboxd server --no-token --port 0 >"$root/ready" 2>"$root/log" &
pid=$!
for _ in $(seq 100); do [ -s "$root/ready" ] && break; sleep 0.05; done
url=$(sed -n 's/.*"url":"\([^"]*\)".*/\1/p' "$root/ready")
[ -n "$url" ] || { echo "it did not start:"; cat "$root/log"; exit 1; }
health=$(curl -fsS "$url/v1/health")
turn=$(curl -fsS "$url/v1/acp/demo?agent=mock" -H 'content-type: application/json' \
  -d '{"jsonrpc":"2.0","id":1,"method":"session/prompt","params":{"sessionId":"demo","prompt":[{"type":"text","text":"hello"}]}}')
[ "$health" = '{"status":"ok"}' ] && [[ $turn == *'"stopReason":"end_turn"'* ]] || { echo "unexpected: $health $turn"; exit 1; }
echo "the static binary works in an empty root: 1 passed, 0 failed"
