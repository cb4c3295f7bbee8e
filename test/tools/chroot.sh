# shellcheck shell=bash
#
# What the tools share that try the project in a Debian of its own.  Sourced, not run.
#
#	begin_chroots              installs debootstrap, and sets chroots: $SESSION_ADMIN_CHROOTS,
#	                           or a temporary directory that is removed at the end
#	make_chroot RELEASE        makes $chroots/RELEASE, unless it is there, with nothing in it
#	                           but what apt needs
#	copy_chroot RELEASE NAME   makes $chroots/NAME anew, as a copy of that
#	copy_tree NAME             copies this tree to /session_admin in it
#	in_chroot NAME COMMAND…    runs it there as root; what it leaves running is ended
#
# Packages come from the mirror that apt is configured with, and each is fetched once for
# all chroots of a release.  Mounts are made in a namespace of their own.  Runs as root.

program=test/tools/$(basename "$0")
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

begin_chroots() {
	[[ $EUID -eq 0 ]] || { echo "$program: run it as root" >&2; exit 2; }
	if ! command -v debootstrap >/dev/null; then
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
	fi
	chroots=${SESSION_ADMIN_CHROOTS:-}
	if [[ -z $chroots ]]; then
		chroots=$(mktemp -d "${TMPDIR:-/tmp}/session_admin_chroots.XXXXXX")
		trap 'rm -rf --one-file-system "$chroots"' EXIT
	fi
	mkdir -p "$chroots"
}

make_chroot() {
	local release=$1 root=$chroots/$1 mirror script

	[[ ! -e $root/complete ]] || return 0
	rm -rf --one-file-system "$root"
	mirror=$(apt-get indextargets --format '$(SITE)' | grep -m 1 '/debian$')
	script=/usr/share/debootstrap/scripts/$release
	[[ -e $script ]] || script=/usr/share/debootstrap/scripts/sid
	debootstrap --variant=minbase --include=ca-certificates "$release" "$root" "$mirror" "$script" >"$root.log" 2>&1 ||
		{ tail "$root.log" >&2; return 1; }
	# a release in the making may lag behind its own dates
	echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/90valid-until"
	# it is thrown away: nothing has to reach the disk
	echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
	rm -f "$root"/var/cache/apt/archives/*.deb
	mkdir -p "$chroots/archives/$release/partial"
	echo "$release" >"$root/complete"
}

copy_chroot() {
	make_chroot "$1" || return
	rm -rf --one-file-system "${chroots:?}/$2"
	cp -a --reflink=auto "$chroots/$1" "$chroots/$2"
}

copy_tree() {
	local tree=$chroots/$1/session_admin

	rm -rf "$tree"
	mkdir "$tree"
	tar -C "$top" --exclude-vcs --exclude='*.o' --exclude='*.d' --exclude='*.so' --exclude=pg_session_follow \
		--exclude='./session_admin--*.sql' --exclude=tmp_check --exclude='tmp_instance*' \
		-cf - . | tar -C "$tree" --no-same-owner -xf -
}

# Of the caller's environment, only SESSION_ADMIN_… goes with it.
in_chroot() {
	local root=$chroots/$1
	shift

	unshare --mount --pid --fork --kill-child bash -eu -c '
		root=$1
		archives=$2
		shift 2
		mount -t proc proc "$root/proc"
		mount --rbind /dev "$root/dev"
		mkdir -p "$root/dev/shm"
		mount --bind "$archives" "$root/var/cache/apt/archives"
		[[ ! -e /etc/resolv.conf ]] || cp -L /etc/resolv.conf "$root/etc/resolv.conf"
		mapfile -t settings < <(env | grep "^SESSION_ADMIN_")
		exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
			DEBIAN_FRONTEND=noninteractive "${settings[@]}" "$@"
	' bash "$root" "$chroots/archives/$(<"$root/complete")" "$@"
}
