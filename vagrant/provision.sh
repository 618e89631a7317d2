#!/usr/bin/env bash
# Make this machine one of the three of the example in examples/three-tier, and wait until it enforces its groups.
#
#   provision.sh web|app|database [FOLDER]
#
# FOLDER is the repository, with the package in dist/; without it, the one that this script is in. It may be run
# again: it then brings the newest package and the documents as they are now. Needs root and Debian 13.
set -euo pipefail

readonly ROLE=${1-} FOLDER=${2:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
readonly DEADLINE_SECONDS=30

main() {
    local port
    case $ROLE in
        web) port=80 ;;
        app) port=8080 ;;
        database) port=5432 ;;
        *) fail 2 "expected web, app or database, not '$ROLE'" ;;
    esac
    [[ $EUID -eq 0 ]] || fail 5 "only root can install packages"
    install_agent
    serve "$port"
    enforce
    wait_until_enforced
}

install_agent() {
    local package
    package=$(find "$FOLDER/dist" -name 'sgagent_*_all.deb' | sort --version-sort | tail -n 1)
    [[ -n $package ]] || fail 2 "there is no package in $FOLDER/dist; script/package builds one"
    say "installing ${package##*/}"
    # Lists that are there are tried first: fetching new ones takes longer than most installations.
    apt_install "$package" 2>/dev/null || { apt-get update -qq && apt_install "$package"; } ||
        fail 1 "the package could not be installed"
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet --reinstall --no-install-recommends "$@"
}

# Have something to reach at the port of this tier, and something that is not to be reached beside it.
serve() {
    cat >/etc/systemd/system/tier@.service <<'UNIT'
[Unit]
Description=What the three-tier example reaches at port %i
[Service]
ExecStart=/usr/bin/python3 -m http.server --directory /usr/share/doc/sgagent --bind :: %i
DynamicUser=yes
AmbientCapabilities=CAP_NET_BIND_SERVICE
Restart=always
[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable --quiet --now "tier@$1.service" tier@9999.service
}

# Documents are looked at before they are followed, and put in place whole, each by a rename.
enforce() {
    local document
    sgagent check --definitions "$FOLDER/examples/three-tier/groups.d"
    for document in "$FOLDER"/examples/three-tier/groups.d/*.yaml; do
        install -m 644 "$document" "/etc/sgagent/groups.d/.${document##*/}.new"
        mv "/etc/sgagent/groups.d/.${document##*/}.new" "/etc/sgagent/groups.d/${document##*/}"
    done
    systemctl enable --quiet sgagent.service
    systemctl start sgagent.service
    systemctl reload sgagent.service
    sgagent mode enforce
}

# An agent that is idle has found no link with the MAC and an address of this tier's network interface.
wait_until_enforced() {
    local deadline=$((SECONDS + DEADLINE_SECONDS))
    until sgagent status >/dev/null; do
        if ((SECONDS >= deadline)); then
            sgagent status >&2 || true
            fail 1 "not enforcing after $DEADLINE_SECONDS seconds"
        fi
        sleep 0.2
    done
    sgagent status
}

say() { echo "provision $ROLE: $*" >&2; }

fail() {
    say "${@:2}"
    exit "$1"
}

main
