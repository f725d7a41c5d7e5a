# Shared by the scripts beside it, which source it. What they build for the image comes from Debian 12 ("bookworm").

ROOT=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")
# Slow builds are kept here; git ignores it, and `make clean` leaves it.
CACHE=${STRONGROOM_CACHE:-$ROOT/.cache}

say() { printf '== %s\n' "$*" >&2; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs the Debian packages that are missing.
need() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    as_root apt-get -o DPkg::Lock::Timeout=300 -qq update >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq install -y \
        --no-install-recommends "${missing[@]}" >/dev/null
}

# A name for what comes in.
key_of() { sha256sum | cut -c1-16; }
