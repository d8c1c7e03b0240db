#!/bin/sh
# Installs, updates and goes back on a station computer; deploy/install.md says when to use which.
#
#   release.sh install FOLDER   install the release in FOLDER (made by tools/wheelhouse.py) and change to it
#   release.sh use VERSION      change to a release that is installed
#   release.sh back             change to the release that was in use before
#   release.sh list             what is installed; * is in use, - was before
#
# A release is a virtual environment of its own, LINESIDE_HOME/releases/VERSION, and LINESIDE_HOME/current points to the one
# in use. Before a change the new release checks the station's config, recipe and self-test; when it does not start, the old
# one is put back. Nothing is fetched from a network.
set -eu
home=${LINESIDE_HOME:-/opt/lineside}
config=${LINESIDE_CONFIG:-/etc/lineside/station.toml}
service=${LINESIDE_SERVICE-lineside.service} # empty = start nothing
python=${LINESIDE_PYTHON:-python3}

fail() {
    echo "$1" >&2
    exit 1
}

# The link is replaced in one step: a power cut leaves the old one or the new one.
point() {
    ln -s "$2" "$home/$1.new"
    mv -T "$home/$1.new" "$home/$1"
}

target() { readlink "$home/$1" 2>/dev/null || true; }

restart() {
    [ -z "$service" ] || systemctl restart "$service" # Type=notify: returns when the station is Ready, or has failed
}

change_to() {
    new=releases/$1
    old=$(target current)
    [ -e "$home/$new/installed" ] || fail "release $1 is not installed; see: release.sh list"
    [ "$new" != "$old" ] || fail "release $1 is in use already"
    if [ -e "$config" ]; then
        "$home/$new/bin/lineside" check "$config" || fail "release $1 does not take $config; nothing was changed"
    fi
    rm -f "$home/current.new" "$home/previous.new"
    point current "$new"
    if ! restart; then
        [ -n "$old" ] || fail "release $1 did not start; see: journalctl -u $service"
        point current "$old"
        restart || fail "neither release $1 nor ${old#releases/} starts; see: journalctl -u $service"
        fail "release $1 did not start, ${old#releases/} is in use again; see: journalctl -u $service"
    fi
    [ -z "$old" ] || point previous "$old"
    echo "in use: $1"
}

install_from() {
    [ -e "$1/SHA256SUMS" ] || fail "$1 holds no release (SHA256SUMS is missing)"
    (cd "$1" && sha256sum --quiet --strict --check SHA256SUMS) || fail "$1 is damaged or was changed; copy it again"
    version=$(sed -n 's/^lineside.*==\([^ ]*\) .*/\1/p' "$1/requirements.txt")
    [ -n "$version" ] || fail "$1/requirements.txt names no lineside"
    [ ! -e "$home/releases/$version/installed" ] || fail "release $version is installed already; to change to it: release.sh use $version"
    mkdir -p "$home/releases"
    rm -rf "$home/releases/$version" # remains of an installation that was cut off
    # A venv names its own folder in its scripts, so it is made where it stays; "installed" says that it is whole.
    trap 'rm -rf "$home/releases/$version"' EXIT
    trap 'exit 1' HUP INT TERM
    "$python" -m venv "$home/releases/$version"
    "$home/releases/$version/bin/python" -m pip --quiet --disable-pip-version-check install \
        --no-index --find-links "$1" --require-hashes --only-binary :all: -r "$1/requirements.txt"
    "$home/releases/$version/bin/python" -m pip --quiet uninstall --yes setuptools pip # a release is never changed
    sync -f "$home/releases/$version"
    touch "$home/releases/$version/installed"
    trap - EXIT HUP INT TERM
    change_to "$version"
}

case "${1-}" in
install) [ $# -eq 2 ] || fail "usage: release.sh install FOLDER"; install_from "$2" ;;
use) [ $# -eq 2 ] || fail "usage: release.sh use VERSION"; change_to "$2" ;;
back)
    before=$(target previous)
    [ -n "$before" ] || fail "there is no earlier release to go back to"
    change_to "${before#releases/}"
    ;;
list)
    for whole in "$home"/releases/*/installed; do
        [ -e "$whole" ] || continue
        name=releases/$(basename "$(dirname "$whole")")
        mark=" "
        [ "$name" != "$(target previous)" ] || mark="-"
        [ "$name" != "$(target current)" ] || mark="*"
        echo "$mark ${name#releases/}"
    done
    ;;
*) fail "usage: release.sh install FOLDER | use VERSION | back | list" ;;
esac
