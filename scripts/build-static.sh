#!/usr/bin/env bash
# Builds the one static binary for x86_64-unknown-linux-musl: target/x86_64-unknown-linux-musl/release/sandboxd.
#
# Where rustup has the musl target, that is used. Elsewhere std is built from source: Debian packages the sources of a
# rustc together with that very rustc, and zig (from PyPI) brings musl, its start files and a C compiler. Both are
# unpacked below .musl-tools, nothing is installed into the system but Debian's python3-venv.
# Why not glibc: docs/decisions.md.
set -euo pipefail
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-musl
tools=${MUSL_TOOLS:-$PWD/.musl-tools}

say() { printf '>> %s\n' "$*" >&2; }

need() { # command, Debian package
  command -v "$1" >/dev/null && return
  say "installing $2"
  [ "$(id -u)" = 0 ] || { say "$1 is missing: run as root, or: apt-get install $2"; exit 1; }
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}

install_zig() {
  [ -x "$tools/venv/bin/cargo-zigbuild" ] && return
  need python3 python3
  python3 -m venv "$tools/venv" 2>/dev/null || { apt-get update -qq; apt-get install -y -qq python3-venv >/dev/null; python3 -m venv --clear "$tools/venv"; }
  say "fetching zig and cargo-zigbuild"
  "$tools/venv/bin/pip" install -q --disable-pip-version-check ziglang==0.15.2 cargo-zigbuild==0.24.0
}

install_rust_with_sources() {
  [ -x "$tools/rustc" ] && return
  say "fetching Debian's rustc with the sources of its std"
  apt-get update -qq
  local version series llvm
  version=$(apt-cache policy rustc-web | awk '/Candidate:/ {print $2}')
  series=$(cut -d. -f1,2 <<<"$version")
  [ "$(apt-cache policy rust-web-src | awk '/Candidate:/ {print $2}')" = "$version" ] \
    || { say "Debian has rustc-web and rust-web-src in different versions just now: try again later"; exit 1; }
  llvm=$(apt-cache depends "libstd-rust-web-$series" | awk '/Depends: libllvm/ {print $2}')
  rm -rf "$tools/debs" "$tools/rust" && mkdir -p "$tools/debs" "$tools/rust"
  chmod 755 "$tools/debs"
  (cd "$tools/debs" && apt-get download -qq "rustc-web=$version" "rust-web-src=$version" \
    "libstd-rust-web-dev=$version" "libstd-rust-web-$series=$version" "$llvm")
  for package in "$tools"/debs/*.deb; do dpkg -x "$package" "$tools/rust"; done
  rm -rf "$tools/debs"
  printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' \
    "$tools/rust/usr/lib/x86_64-linux-gnu" "$tools/rust/usr/bin/rustc" >"$tools/rustc.new"
  chmod +x "$tools/rustc.new" && mv "$tools/rustc.new" "$tools/rustc"
}

mkdir -p "$tools"
need gcc gcc
install_zig
export PATH="$tools/venv/bin:$PATH"
if rustup target list --installed 2>/dev/null | grep -qx "$target"; then
  cargo-zigbuild zigbuild --release --locked --target "$target" --bin sandboxd "$@"
else
  install_rust_with_sources
  # zig supplies what rustc would link by itself
  export RUSTC="$tools/rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="-C link-self-contained=no"
  cargo-zigbuild zigbuild --release --locked -Zbuild-std=std,panic_unwind --target "$target" --bin sandboxd "$@"
fi

binary=target/$target/release/sandboxd
file_type=$(readelf -lW "$binary" | grep -c INTERP || true)
[ "$file_type" = 0 ] || { say "$binary asks for a dynamic loader: it is not static"; exit 1; }
say "$binary: $(stat -c %s "$binary") bytes, static"
