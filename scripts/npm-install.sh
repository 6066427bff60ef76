#!/usr/bin/env bash
# npm ci for a folder, when its lock file has changed since the last time.
set -euo pipefail
cd "$(dirname "$0")/../${1:?folder}"
[ -d "$OLDPWD/.tools/node_modules/.bin" ] && PATH="$OLDPWD/.tools/node_modules/.bin:$PATH"
stamp=node_modules/.stamp
hash=$(sha256sum package-lock.json | cut -d' ' -f1)
[ "$(cat "$stamp" 2>/dev/null)" = "$hash" ] && exit 0
npm ci --no-audit --no-fund --ignore-scripts
echo "$hash" >"$stamp"
