#!/usr/bin/env bash
# End-to-end tests with the published npm packages and real coding agents, against the binary in SANDBOXD_BIN
# (default: target/debug/sandboxd of this repository). Extra arguments go to `node --test`; without test files among
# them, all run. With AGAINST=reference, the tests of the process API, of directories and of the desktop run against the server whose contract we keep:
# what passes there is the contract, what is skipped there we do better. With LONG=1, the turn behind a proxy that cuts takes
# more than 5 minutes, as in life. CHAOS_KILLS (25) says how often keeper_chaos kills its server, CHAOS_SEED repeats its dice, HARM_SEED those of
# desktop_stream_harm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ -n "${SANDBOXD_BIN:-}" && "$SANDBOXD_BIN" != /* ]]; then
  SANDBOXD_BIN="$OLDPWD/$SANDBOXD_BIN"
fi
export SANDBOXD_BIN="${SANDBOXD_BIN:-$PWD/../../target/debug/sandboxd}"
if [[ "${AGAINST:-}" != reference && ! -x "$SANDBOXD_BIN" ]]; then
  echo "run.sh: $SANDBOXD_BIN is not there; run: cargo build" >&2
  exit 1
fi

stamp=node_modules/.lock-hash
hash="$(sha256sum package-lock.json)"
if [[ ! -f "$stamp" || "$(<"$stamp")" != "$hash" ]]; then
  npm ci --no-audit --no-fund
  printf '%s\n' "$hash" > "$stamp"
fi

# The chaos test of the keeper comes last and alone: what it does to the machine, the patience of others isn't made for.
mapfile -t files < <(printf '%s\n' *.test.mjs | grep -v '^keeper_chaos')
last=(keeper_chaos.test.mjs)
if [[ "${AGAINST:-}" == reference ]]; then
  files=(process*.test.mjs terminals.test.mjs react.test.mjs directory_config.test.mjs files.test.mjs desktop*.test.mjs)
  last=()
fi
for argument in "$@"; do
  if [[ "$argument" == *.test.mjs ]]; then files=() last=(); fi
done
node --test --test-concurrency=2 --test-reporter=spec "$@" "${files[@]}"
if [[ ${#last[@]} -gt 0 ]]; then node --test --test-reporter=spec "$@" "${last[@]}"; fi
