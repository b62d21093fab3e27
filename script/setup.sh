# Steps shared by script/up and script/test; sourced, never run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
UV_VERSION=0.13.9
SYSTEM_PYTHON=/usr/bin/python3
STARTED=$SECONDS
STEP=0
STEP_NAME=""

step() { # step TEXT: begin a numbered step
    STEP=$((STEP + 1))
    STEP_NAME=$1
    printf '\n[%d] %s (%ds)\n' "$STEP" "$1" "$((SECONDS - STARTED))"
}

note() { printf '    %s\n' "$*"; }

fail() { # fail WHAT [WHAT TO DO]
    printf '\n%s: %s\n' "$(basename "$0")" "$1" >&2
    [ $# -lt 2 ] || printf '  what to do: %s\n' "$2" >&2
    exit 1
}

told() { # the trap for an error nobody foresaw
    local code=$?
    printf '\n%s: step %d (%s) failed with code %d; the lines above say why.\n' \
        "$(basename "$0")" "$STEP" "$STEP_NAME" "$code" >&2
    printf '  what to do: mend that and run the same command again; it goes on where it stopped.\n' >&2
    exit "$code"
}
trap told ERR

need_debian_root() {
    [ "$(id -u)" = 0 ] || fail "this needs root: it installs packages and runs machines" "sudo $0"
    command -v apt-get >/dev/null ||
        fail "this machine has no apt-get" "use Debian 12 or newer; docs/support.md lists what was run"
}

# The api runs as a user without privileges and imports this checkout. In a closed directory
# (/root, a mktemp directory) it could not, so then all goes on from a copy.
settle_checkout() { # settle_checkout SCRIPT ARGS...
    local script=$1 path=$ROOT copy
    shift
    copy=/opt/bastide/$(basename "$script")
    while [ "$path" != / ]; do
        if [ $((0$(stat -c %a "$path") & 5)) -ne 5 ]; then
            note "$path is closed to other users: going on from a copy in $copy"
            mkdir -p "$copy"
            chmod 755 /opt/bastide "$copy"
            find "$copy" -mindepth 1 -maxdepth 1 ! -name '.venv*' ! -name node_modules \
                -exec rm -rf {} +
            (cd "$ROOT" && tar -c --exclude=./.venv --exclude=./.venv-uv --exclude=node_modules .) |
                tar -x --no-same-owner -C "$copy"
            chmod -R a+rX "$copy"
            exec "$copy/$script" "$@"
        fi
        path=$(dirname "$path")
    done
}

packages_of() { # packages_of SECTION...: the packages of script/packages
    awk -v wanted=" $* " '
        /^#/ || /^$/ { next }
        /^\[/ { section = substr($0, 2, length($0) - 2); next }
        index(wanted, " " section " ") { print }' "$ROOT/script/packages"
}

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

POLICY=${POLICY:-/usr/sbin/policy-rc.d}
POLICY_MARK="# made by Bastide while it installs packages"

# No daemon may start only because its package came in. A file of the host's own is left alone; one
# of ours can only be what a killed run left.
hold_daemons() {
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then
        release_daemons
        [ ! -e "$POLICY" ] && [ ! -L "$POLICY" ] || return 0
    fi
    trap release_daemons EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
    chmod 755 "$POLICY"
}

release_daemons() {
    if [ -f "$POLICY" ] && grep -qxF "$POLICY_MARK" "$POLICY"; then
        rm -f "$POLICY"
    fi
}

install_packages() { # install_packages SECTION...
    local missing=() name log had_haproxy=no had_sshd=no
    installed haproxy && had_haproxy=yes
    installed openssh-server && had_sshd=yes
    for name in $(packages_of "$@"); do
        # Another source of Node.js brings npm inside its own package.
        [ "$name" = npm ] && command -v npm >/dev/null && continue
        installed "$name" || missing+=("$name")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        note "all there"
        return
    fi
    note "installing: ${missing[*]}"
    hold_daemons
    log=$(mktemp --tmpdir bastide-apt.XXXXXXXXXX)
    export DEBIAN_FRONTEND=noninteractive
    local outcome=0
    if ! apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1 </dev/null; then
        # Perhaps only the lists are old or absent.
        { apt-get update -qq &&
            apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
            >>"$log" 2>&1 </dev/null || outcome=$?
    fi
    release_daemons
    trap - EXIT INT TERM
    if [ $outcome -ne 0 ]; then
        tail -n 20 "$log" >&2
        fail "Debian packages could not be installed: ${missing[*]}" \
            "check that apt-get works (network, /etc/apt/sources.list.d), then run this again; full log: $log"
    fi
    rm -f "$log"
    if [ $had_haproxy = no ] && [ -d /run/systemd/system ]; then
        # Bastide starts its own HAProxy; Debian's service must not take part at the next boot.
        systemctl disable --quiet --now haproxy.service || true
    fi
    if [ $had_sshd = no ] && [ -d /run/systemd/system ]; then
        # Its program goes into workspaces; the host gets no SSH server that it did not have.
        systemctl disable --quiet --now ssh.service ssh.socket || true
    fi
}

make_user() { # make_user NAME: a system user without home or shell
    getent passwd "$1" >/dev/null && return
    useradd --system --user-group --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin "$1"
    note "user $1 made"
}

make_users() {
    make_user bastide
    make_user bastide-edge
    make_user bastide-ssh
    make_user bastide-resolver
}

python_environment() { # python_environment [uv sync options]
    local uv=$ROOT/.venv-uv/bin/uv
    "$SYSTEM_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$SYSTEM_PYTHON is older than 3.11" "use Debian 12 or newer"
    if [ ! -x "$uv" ] || [ "$("$uv" --version | cut -d' ' -f2)" != "$UV_VERSION" ]; then
        note "fetching uv $UV_VERSION, which installs exactly what uv.lock says"
        "$SYSTEM_PYTHON" -m venv --clear "$ROOT/.venv-uv"
        "$ROOT/.venv-uv/bin/pip" install -qq --disable-pip-version-check "uv==$UV_VERSION" ||
            fail "uv could not be installed from the Python package index" \
                "check the network and pip's settings, then run this again"
    fi
    (
        cd "$ROOT"
        export UV_PYTHON=$SYSTEM_PYTHON UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=$ROOT/.venv
        unset VIRTUAL_ENV
        "$uv" sync --quiet --frozen "$@"
    ) || fail "the Python packages of uv.lock could not be installed" \
        "check the network, then run this again; removing $ROOT/.venv starts afresh"
    chmod -R a+rX "$ROOT/.venv" "$ROOT/src"
}
