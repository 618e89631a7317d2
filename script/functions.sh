# What several scripts share. A script sets PROGRAM, which begins each of its lines, and sources this file.
# shellcheck shell=bash

say() { echo "$PROGRAM: $*" >&2; }

# fail CODE TEXT: say why, and end.
fail() {
    say "${@:2}"
    exit "$1"
}

# Print the comment that the script begins with, and end.
usage() {
    sed -n '2,/^[^#]/ { s/^# \{0,1\}//p }' "script/$PROGRAM"
    exit 0
}

# need OPTION [VALUE]: end unless an option has its value.
need() { [[ -n ${2-} ]] || fail 2 "$1 needs a value"; }

# Run a command and show what it printed only if it failed.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [[ $status -eq 0 ]] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

install_debian_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    command -v apt-get >/dev/null ||
        fail 2 "this is not Debian; install what these packages hold: ${missing[*]}"
    [[ $EUID -eq 0 ]] ||
        fail 5 "packages are missing, and only root can install them: sudo apt-get install ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    # Lists that are there are tried first, in silence: fetching new ones takes longer than most installations.
    apt_install "${missing[@]}" 2>/dev/null || { quietly apt-get update && apt_install "${missing[@]}"; } ||
        fail 1 "Debian's packages could not be installed"
}

missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            echo "$package"
    done
}

apt_install() {
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
}

# describe_suite SUITE FOLDER [ARCHITECTURE]: write the configuration of an apt that knows of nothing installed, for a
# suite of the archive that this machine uses. It is used with APT_CONFIG=FOLDER/apt.conf.
describe_suite() {
    local archive security arch=${3:-$(dpkg --print-architecture)}
    archive=$(archive_of '/debian/$') && [[ -n $archive ]] || return 1
    security=$(archive_of 'security/$') || true
    mkdir -p "$2"/{state/lists/partial,cache/archives/partial,none}
    touch "$2/status"
    {
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.pgp] $archive $1 main"
        [[ $1 == sid || -z $security ]] ||
            echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.pgp] $security $1-security main"
    } >"$2/sources.list"
    cat >"$2/apt.conf" <<CONFIGURATION
Dir::Etc::sourcelist "$2/sources.list";
Dir::Etc::sourceparts "$2/none";
Dir::Etc::preferences "$2/preferences";
Dir::Etc::preferencesparts "$2/none";
Dir::State "$2/state";
Dir::State::status "$2/status";
Dir::Cache "$2/cache";
APT::Architecture "$arch";
APT::Architectures "$arch";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONFIGURATION
}

# archive_of PATTERN: print the address of the first archive that this machine's apt uses and that matches.
archive_of() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep --max-count=1 "$1"; }

project_version() { sed -n 's/^__version__ = "\(.*\)"/\1/p' sgagent/__init__.py; }

# Print the version of what is here. Commits after a release have one between that release and the next: to a package
# manager, what has the same version is the same.
version_here() {
    local version commits
    version=$(project_version)
    commits=$(git rev-list --count "v$version..HEAD" 2>/dev/null) || commits=0
    [[ $commits -eq 0 ]] || version+=.post$commits+g$(git rev-parse HEAD | cut --characters=-8)
    echo "$version"
}

# check_version VERSION: end unless it is one that both package managers order as people do.
check_version() {
    [[ $1 =~ ^[0-9][0-9A-Za-z.+~]*$ ]] || fail 2 "'$1' is no version; expected one like 0.1.0"
}

# Set the time that every file of a build gets: that of the last commit.
use_time_of_commit() {
    git rev-parse --verify --quiet HEAD >/dev/null ||
        fail 2 "this is no checkout of git, which knows what belongs in the package"
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
}

# copy_files FOLDER VERSION: copy what git knows and still is there, of the time of the last commit.
copy_files() {
    mkdir -p "$1"
    git ls-files -z --cached --deduplicate |
        tar --create --null --files-from - --ignore-failed-read 2>/dev/null |
        tar --extract --directory "$1"
    sed -i "s/^__version__ = .*/__version__ = \"$2\"/" "$1/sgagent/__init__.py"
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# archive FOLDER FILE: pack a folder; the same files and time make the same archive.
archive() {
    tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
        --mode=u+rw,go+r-w --directory "$(dirname "$1")" "$(basename "$1")" | gzip --no-name --best >"$2"
}
