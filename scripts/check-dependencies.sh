#!/usr/bin/env bash
# cargo-deny: licences, bans, sources. The advisory database lives on a host that builds can't always reach, so
# advisories are a target of their own: cargo deny check advisories.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v cargo-deny >/dev/null; then
  echo ">> installing cargo-deny" >&2
  cargo install --locked --quiet cargo-deny --root .tools
  PATH="$PWD/.tools/bin:$PATH"
fi
cargo fetch --locked --quiet # those of other systems, too: cargo-deny looks at them all
cargo deny --offline check licenses bans sources
