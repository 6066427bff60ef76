#!/usr/bin/env bash
# Installs what a set of targets needs, from Debian's packages and the npm registry; quick when it is all there.
#   build   a C compiler (SQLite, ring, mimalloc), a C++ compiler and NASM (OpenH264), CMake (Opus)
#   node    Node.js 20 or newer with npm; below .tools/ where Debian's is older
#   test    small programs that tests start
#   browser Chromium, for tests of what people see; what makes networks bad
#   desktop an X server, a window manager and programs with windows; what the reference needs for its desktop
set -euo pipefail
cd "$(dirname "$0")/.."

install() {
  [ "$(id -u)" = 0 ] || { echo "missing: $*; run as root, or: apt-get install $*" >&2; exit 1; }
  echo ">> installing $*" >&2
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

need() { # package command...
  local package=$1 command
  shift
  for command; do command -v "$command" >/dev/null || { install "$package"; return; }; done
}

need_file() { # package file
  [ -e "$2" ] || install "$1"
}

case ${1:?build, node, test, browser or desktop} in
build)
  command -v cargo >/dev/null || { echo "cargo is missing: install a Rust toolchain (rustup) first" >&2; exit 1; }
  need gcc gcc
  need g++ g++
  need nasm nasm
  need cmake cmake
  [ -e /usr/include/stdlib.h ] || install libc6-dev
  for component in rustfmt clippy; do
    cargo "${component/rust/}" --version >/dev/null 2>&1 || { echo "the toolchain lacks $component: rustup component add $component" >&2; exit 1; }
  done
  ;;
node)
  need nodejs node
  need npm npm
  major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
  if [ "$major" -lt 20 ] && [ ! -x .tools/node_modules/.bin/node ]; then
    echo ">> Node.js $major is too old for the agents: installing 20 below .tools/" >&2
    mkdir -p .tools && npm install --silent --no-audit --no-fund --prefix .tools node@20
  fi
  ;;
test)
  need curl curl
  need util-linux setsid mount
  need procps ps
  need git git
  need ripgrep rg
  need bash bash
  need vim vim
  need less less
  need htop htop
  need tmux tmux
  need clangd clangd
  need python3-pip pip3
  ;;
browser)
  need chromium chromium
  need util-linux unshare
  need iproute2 ip tc
  need nftables nft
  ;;
desktop)
  need xvfb Xvfb
  need pulseaudio pulseaudio
  need pulseaudio-utils pacat
  need openbox openbox
  need xterm xterm
  need mousepad mousepad
  need mtpaint mtpaint
  need xclip xclip
  need dbus-daemon dbus-daemon
  need_file at-spi2-core /usr/libexec/at-spi-bus-launcher
  need_file fonts-dejavu-core /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
  need_file fonts-noto-cjk /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc
  need ffmpeg ffmpeg ffprobe
  need x11-xkb-utils setxkbmap
  need x11-xserver-utils xsetroot xrandr
  # The reference has its desktop done by these.
  need xdotool xdotool
  need imagemagick import convert
  ;;
esac
