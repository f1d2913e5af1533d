# Makes `.venv` in the checkout. Sourced by infra/run and infra/test; bash 4 or later.
#
#   prepare_environment run     what the product needs
#   prepare_environment test    that, and what the tests need
#
# Each part has a stamp, written last, that names all it was made from. A part whose stamp is right costs nothing.
# Without any stamp the folder is a half-made one, and is made anew.
#
# FORGE_PYTHON   the interpreter to make it with (default: the first of python3.11, python3.12, python3 that runs)
# FORGE_VENV     where it lies (default: .venv in the checkout)

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=${FORGE_VENV:-$checkout/.venv}
pins=$checkout/infra/constraints.txt

# With it set, every process of a run would compile the same modules again.
unset PYTHONDONTWRITEBYTECODE
# Packages of another environment must not shadow the pinned ones.
unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '%s\n' "$*" >&2; }

fail() { # fail PROBLEM FIX
    say "error: $1"
    say "  fix:   $2"
    exit 2
}

# The interpreter's release ("3.11.7") if the command runs and is one that will do; nothing otherwise. A command
# that exists may still not run: pyenv leaves one for every release it has, selected or not.
usable_python() {
    local text
    text=$("$1" -V 2>/dev/null </dev/null) || return 1
    [[ $text =~ ^Python\ (3\.1[12]\.[0-9]+)$ ]] || return 1
    printf '%s' "${BASH_REMATCH[1]}"
}

find_python() {
    local candidate
    if [[ -n ${FORGE_PYTHON:-} ]]; then
        usable_python "$FORGE_PYTHON" >/dev/null ||
            fail "FORGE_PYTHON is $FORGE_PYTHON, which is not a Python 3.11 or 3.12 that runs" \
                "set FORGE_PYTHON to one, or unset it"
        printf '%s' "$FORGE_PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3 /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3; do
        if usable_python "$candidate" >/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or 3.12 was found" "install one (Debian: apt-get install python3.11), or set FORGE_PYTHON to it"
}

# What the environment is made from. A moved checkout counts as another: scripts name their interpreter by its path.
environment_identity() {
    local release
    release=$(usable_python "$venv/bin/python") || return 1
    if [[ -n ${FORGE_PYTHON:-} && $release != "$(usable_python "$FORGE_PYTHON")" ]]; then
        return 1
    fi
    printf 'python %s\nat %s\nfor %s\n' "$release" "$venv" "$checkout"
}

environment_stamp() {
    environment_identity || return 1
    sha256sum <"$checkout/pyproject.toml"
    sha256sum <"$pins"
}

# stamp_holds PART
stamp_holds() {
    local expected
    [[ -f $venv/forge-$1.stamp ]] || return 1
    expected=$(environment_stamp) || return 1
    [[ $(<"$venv/forge-$1.stamp") == "$expected" ]]
}

# Runs a step of the set-up: no input, its output on stderr, and only if it fails.
step() { # step DESCRIPTION COMMAND...
    local description=$1 started=$SECONDS log
    shift
    log=$(mktemp)
    say "set-up: $description"
    if ! "$@" >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
    say "set-up: $description: $((SECONDS - started)) s"
}

# An empty environment with pip. Debian ships Python without ensurepip, and then pip may come from outside.
create_venv() {
    local python release
    python=$(find_python) || exit 2
    release=$(usable_python "$python")
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    if "$python" -c 'import ensurepip, venv' 2>/dev/null </dev/null; then
        step "environment with Python $release in $venv" "$python" -m venv "$venv" && return
    fi
    if "$python" -c 'import venv, pip' 2>/dev/null </dev/null; then
        step "environment with Python $release in $venv" "$python" -m venv --without-pip "$venv" &&
            step "pip" "$python" -m pip --python "$venv/bin/python" install --quiet pip && return
    fi
    if command -v uv >/dev/null; then
        step "environment with Python $release in $venv, by uv" uv venv --quiet --seed --python "$python" "$venv" && return
    fi
    local package="python${release%.*}-venv"
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null && [[ -z ${installed_venv_package:-} ]]; then
        installed_venv_package=yes
        install_debian_packages "$package" && create_venv && return
    fi
    fail "$python can make no environment: it has neither ensurepip nor pip, and there is no uv" \
        "install $package (Debian: apt-get install $package), or set FORGE_PYTHON to another Python 3.11 or 3.12"
}

install_debian_packages() {
    export DEBIAN_FRONTEND=noninteractive
    step "Debian's list of packages" apt-get -q -o DPkg::Lock::Timeout=300 update &&
        step "Debian's $*" apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
}

install_part() { # install_part run|test
    local target=. torch
    [[ $1 == test ]] && target='.[test]'
    if [[ ! -f $venv/forge-run.stamp ]] || ! environment_identity >/dev/null ||
        [[ $(head -n 3 "$venv/forge-run.stamp") != "$(environment_identity)" ]]; then
        create_venv
    fi
    # From here on the environment is not whole until the stamps are back.
    rm -f "$venv"/forge-*.stamp
    step "uv" "$venv/bin/python" -m pip install --quiet --constraint "$pins" uv || return 1
    # By pip, which reads the machine's own configuration: where that offers a CPU build, uv would still take the
    # build for GPUs, which is some gigabytes larger.
    torch=$(grep -m 1 '^torch==' "$pins")
    step "$torch" "$venv/bin/python" -m pip install --quiet --no-compile --constraint "$pins" "$torch" || return 1
    cd -- "$checkout" || return 1
    step "the pinned dependencies ($1)" "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" \
        --constraint "$pins" --build-constraint "$pins" --editable "$target" || return 1
    cd -- "$OLDPWD" || return 1
    environment_stamp >"$venv/forge-$1.stamp.part" || return 1
    [[ $1 == test ]] && cp "$venv/forge-test.stamp.part" "$venv/forge-run.stamp"
    mv "$venv/forge-$1.stamp.part" "$venv/forge-$1.stamp"
}

prepare_environment() { # prepare_environment run|test
    stamp_holds "$1" && return
    local started=$SECONDS
    mkdir -p "$(dirname "$venv")"
    # One at a time. What is locked is the folder around, as the environment's own may be removed; the lock is let
    # go when this shell and what it started have ended.
    exec 9<"$(dirname "$venv")"
    if ! flock --nonblock 9; then
        say "set-up: waiting for another one that is making $venv"
        flock 9
    fi
    if ! stamp_holds "$1"; then
        install_part "$1" || fail "the set-up of $venv failed (see above)" \
            "if a package could not be fetched, check the network and pip's configuration, then run this again"
        say "set-up: done in $((SECONDS - started)) s"
    fi
    exec 9<&-
}
