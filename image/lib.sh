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
    command -v apt-get >/dev/null || fail "${missing[*]}: not installed, and this is not Debian, where they could be"
    say "installing ${missing[*]}"
    as_root apt-get -o DPkg::Lock::Timeout=300 -qq update >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq install -y \
        --no-install-recommends "${missing[@]}" >/dev/null
}

# A name for what comes in.
key_of() { sha256sum | cut -c1-16; }

# The path of a fresh Debian 12 with what it takes to build, as a tar file. From the cache, if it is there.
debian_root() {
    local root
    root=$CACHE/debian/$(key_of < "$ROOT/image/compilers.lock").tar
    if [ ! -f "$root" ]; then
        need mmdebstrap
        say 'making a fresh Debian 12'
        mkdir -p "$(dirname "$root")"
        as_root mmdebstrap --quiet --variant=minbase --include=ca-certificates,gcc,libc6-dev,make bookworm \
            "$root.part.tar" >&2
        mv "$root.part.tar" "$root"
    fi
    echo "$root"
}

# The host's Rust, of the version in rust-toolchain.toml, laid out in FOLDER as rustup has it: rustup/ and cargo/.
copy_rust() { # FOLDER
    local sysroot name
    sysroot=$(cd "$ROOT" && rustc --print sysroot)
    name=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$ROOT/rust-toolchain.toml")-$(uname -m)-unknown-linux-gnu
    say "copying Rust $name"
    mkdir -p "$1/rustup/toolchains/$name" "$1/cargo/bin"
    tar -C "$sysroot" --exclude=./share --exclude=./lib/rustlib/src -c . | tar -C "$1/rustup/toolchains/$name" -x
    printf 'version = "12"\nprofile = "minimal"\ndefault_toolchain = "%s"\n' "$name" > "$1/rustup/settings.toml"
    cp -L "$(command -v rustup)" "$1/cargo/bin/rustup"
    for proxy in cargo rustc; do ln "$1/cargo/bin/rustup" "$1/cargo/bin/$proxy"; done
}
