# shellcheck shell=bash
#
# What test/check and test/demo share: a PostgreSQL, the extension built and
# installed, and servers of their own.  Sourced, not run.
#
#	install_packages PURPOSE   what has to be there for it: PURPOSE is build, test,
#	                           coverage, valgrind, sqlsmith or soak
#	make_work                  sets work: given as WORK, or a temporary directory
#	private_postgresql         a copy of the PostgreSQL, in $work, for builds that are
#	                           not to be installed; leaves PG_CONFIG of it
#	prepare                    sets work, tree, user and bindir; builds and installs
#	as_user COMMAND            runs it as $user, in $tree
#	in_background COMMAND      the same, until cleanup
#	start_server NAME [CONF [PORT]]  leaves PGHOST, PGPORT and PGUSER to connect with;
#	                           CONF has the settings, test/session_admin.conf by default
#	cleanup                    for the caller's trap
#
# Nothing outside $work is written, except packages (apt, as root only) and what
# "make install" puts into the directories that pg_config names.  No server is
# used but those started here, and they listen in $work only.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
program=${program#"$top/"}
given_pg_config=${PG_CONFIG:-}

# nothing of the caller's may lead to a server of theirs
unset "${!PG@}" CDPATH
# a busy machine, or a server under valgrind, takes its time to start
export PGCTLTIMEOUT=600
[[ $given_pg_config != */* || $given_pg_config = /* ]] || given_pg_config=$PWD/$given_pg_config
PG_CONFIG=${given_pg_config:-pg_config}
# without one in the PATH, that of the newest server that Debian has installed
oldest_major=15
if ! command -v "$PG_CONFIG" >/dev/null && [[ -z $given_pg_config ]]; then
	for debian_major in $(find /usr/lib/postgresql -path '*/bin/postgres' 2>/dev/null | cut -d / -f 5 | sort -rn); do
		[[ ! $debian_major -ge $oldest_major ]] || PG_CONFIG=/usr/lib/postgresql/$debian_major/bin/pg_config
		break
	done
fi
export TZ=UTC PGCLIENTENCODING=UTF8 PSQLRC=/dev/null PSQL_PAGER=
# databases get their encoding from it, where a test does not give one
LC_ALL=$(locale -a 2>/dev/null | grep -iEm1 '^(C|en_US)[.]utf-?8$' || echo C)
export LC_ALL LANG=$LC_ALL

say() {
	printf '\n== %s\n' "$*"
}

die() {
	printf '%s: %s\n' "$program" "$1" >&2
	shift
	[[ $# -eq 0 ]] || printf '%s\n' "$@" >&2
	exit 1
}

have() {
	command -v "$1" >/dev/null
}

# Shows what a command prints only if it fails.
quietly() {
	local output

	output=$("$@" 2>&1) || die "could not run: $*" "$output"
}

# Prints the packages that are missing, one a line.
missing_packages() {
	local purpose=$1 major

	if [[ $purpose = clients ]]; then
		have node || echo nodejs
		have npm || echo npm
		/usr/bin/python3 -c 'import django' 2>/dev/null || echo python3-django
		/usr/bin/python3 -c 'import psycopg2' 2>/dev/null || echo python3-psycopg2
		have javac || echo default-jdk-headless
		[[ -e /usr/share/java/postgresql.jar ]] || echo libpostgresql-jdbc-java
		return
	fi

	have make || echo make
	have gcc || echo gcc
	[[ -e /usr/include/stdlib.h ]] || echo libc6-dev
	if [[ $purpose = soak ]]; then
		/usr/bin/python3 -c 'import psycopg2' 2>/dev/null || echo python3-psycopg2
	elif [[ $purpose != build ]]; then
		have clang || compgen -G '/usr/bin/clang-[0-9]*' >/dev/null || echo clang
		! have apt-get || compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/*/libclang_rt.fuzzer*' >/dev/null ||
			echo libclang-rt-dev
		have prove || echo perl
		have pg_prove || echo libtap-parser-sourcehandler-pgtap-perl
		perl -MIPC::Run -e 1 2>/dev/null || echo libipc-run-perl
		# a check of the format is skipped without; not every release has it
		[[ $EUID -ne 0 ]] || have pg_bsd_indent || ! apt-cache show pg-bsd-indent >/dev/null 2>&1 ||
			echo pg-bsd-indent
	fi
	case $purpose in
		coverage) have lcov || echo lcov ;;
		valgrind)
			have valgrind || echo valgrind
			[[ -e /usr/lib/debug/.build-id ]] || echo libc6-dbg
			;;
		sqlsmith) have sqlsmith || echo sqlsmith ;;
	esac

	# apt has nothing for a PostgreSQL elsewhere
	[[ -z $given_pg_config ]] || return 0
	major=$({ "$PG_CONFIG" --version || echo "${PG_CONFIG#/usr/lib/}"; apt-cache show postgresql; } 2>/dev/null |
		sed -nE 's/^(PostgreSQL |postgresql\/|Depends: postgresql-)([0-9]+).*/\2/p' | head -n 1) || true
	major=${major:-15}
	[[ -x $(pg_dir bindir)/postgres ]] || echo "postgresql-$major"
	# Debian has pgxs.mk in postgresql-client, without the headers that it needs
	[[ -e $(pg_dir includedir-server)/postgres.h && -e $(pg_dir pgxs) ]] ||
		echo "postgresql-server-dev-$major"
	if [[ $purpose != build && $purpose != soak ]]; then
		[[ -e $(pg_dir sharedir)/extension/pgtap.control ]] || echo "postgresql-$major-pgtap"
	fi
}

pg_dir() {
	"$PG_CONFIG" "--$1" 2>/dev/null || true
}

# Installs what is missing, or says how.
install_packages() {
	local purpose=$1 major
	local -a packages command

	major=$("$PG_CONFIG" --version 2>/dev/null | grep -oE '[0-9]+' | head -n 1) || true
	[[ -z $major || $major -ge $oldest_major ]] ||
		die "PostgreSQL $major is too old for session_admin: name one from $oldest_major on with PG_CONFIG=/path/to/pg_config"
	mapfile -t packages < <(missing_packages "$purpose")
	if [[ ${#packages[@]} -gt 0 ]]; then
		have apt-get || die "these are missing, under whatever name they have here: ${packages[*]}"
		command=(apt-get install -y --no-install-recommends "${packages[@]}")
		[[ $EUID -eq 0 ]] ||
			die "packages are missing; run this as root, then $program again:" \
				"    apt-get update && ${command[*]}"
		say "Installing ${packages[*]}"
		[[ ! " ${packages[*]}" =~ " postgresql-"([0-9]+)( |$) ]] || echo \
			"With it, Debian makes and starts a cluster \"${BASH_REMATCH[1]} main\", which is not used here." \
			"To remove it: pg_dropcluster --stop ${BASH_REMATCH[1]} main"
		# the lists first: the packages they name may be gone
		quietly apt-get update
		mapfile -t packages < <(missing_packages "$purpose")
		DEBIAN_FRONTEND=noninteractive \
			quietly apt-get install -y --no-install-recommends "${packages[@]}"
	fi
	[[ -x $(pg_dir bindir)/postgres ]] || die "there is no PostgreSQL server with \"$PG_CONFIG\""
	[[ -e $(pg_dir pgxs) ]] || die "there is no PGXS with \"$PG_CONFIG\""
	[[ -e $(pg_dir includedir-server)/postgres.h ]] ||
		die "there are no headers of the server with \"$PG_CONFIG\"" \
			"In Debian they are in the package postgresql-server-dev-$("$PG_CONFIG" --version | grep -oE '[0-9]+' | head -n 1)."
}

as_user() {
	local -a as=()

	[[ $EUID -ne 0 ]] || as=(setpriv --reuid="$(id -u "$user")" --regid="$(id -g "$user")" --init-groups)
	(cd "$tree" && "${as[@]}" env PATH="$bindir:$PATH" HOME="$work" TMPDIR="$work" "$@")
}

# As a process group, so that cleanup reaches the command behind the shells.
in_background() {
	set -m
	as_user "$@" &
	set +m
}

# Builds in a copy, so that the tree of the caller stays as it is, and installs.
build_and_install() {
	local file

	say "Building for $("$PG_CONFIG" --version)"
	mkdir "$tree"
	tar -C "$top" --exclude-vcs --exclude='*.o' --exclude='*.so' --exclude=pg_session_follow \
		--exclude='./session_admin--*.sql' --exclude=tmp_check --exclude='tmp_instance*' \
		-cf - . | tar -C "$tree" --no-same-owner -xf -
	[[ $EUID -ne 0 ]] || chown -R "$user": "$work"
	as_user make -s -j "$(nproc)" PG_CONFIG="$PG_CONFIG"

	if [[ -w $(pg_dir pkglibdir) && -w $(pg_dir sharedir)/extension && -w $bindir ]]; then
		make -s -C "$tree" install PG_CONFIG="$PG_CONFIG"
		return
	fi
	for file in "$(pg_dir pkglibdir)/session_admin.so" "$bindir/pg_session_follow" \
		"$(pg_dir sharedir)"/extension/session_admin{.control,--*.sql}; do
		cmp -s "$file" "$(find "$tree" -name "$(basename "$file")")" ||
			die "what is installed is not what was built here; run this as root, then $program again:" \
				"    make -C $top install PG_CONFIG=$PG_CONFIG"
	done
}

# Stops what runs in the background and the servers below $work, whoever started
# them there, and removes it, unless KEEP or WORK is set.
cleanup() {
	local pid pidfile pids try

	[[ -n ${work:-} ]] || return 0
	pids=$(jobs -p)
	for pid in $pids; do
		kill -- "-$pid" 2>/dev/null || true
	done
	wait
	# behind the shell, a node takes leave of its server
	for pid in $pids; do
		for ((try = 0; try < 100; try++)); do
			kill -0 -- "-$pid" 2>/dev/null || break
			sleep 0.1
		done
	done
	while IFS= read -r pidfile; do
		kill -QUIT "$(head -n 1 "$pidfile")" 2>/dev/null || true
	done < <(find "$work" -name postmaster.pid 2>/dev/null)
	cd /
	if [[ -n ${WORK:-} ]]; then
		:
	elif [[ -n ${KEEP:-} ]]; then
		printf '\n%s is kept\n' "$work"
	else
		rm -rf "$work"
	fi
}

make_work() {
	[[ -z ${work:-} ]] || return 0
	# short: the name of a socket has some 100 characters at most
	work=${WORK:-$(mktemp -d /tmp/session_admin.XXXXXX)}
	chmod a+rx "$work"
}

# PostgreSQL finds its files from where it lies itself.
private_postgresql() {
	local dir

	make_work
	mkdir "$work/pg"
	for dir in $(pg_dir bindir) $(pg_dir pkglibdir) $(pg_dir sharedir); do
		mkdir -p "$work/pg${dir%/*}"
		[[ -e $work/pg$dir ]] || cp -aL "$dir" "$work/pg$dir"
	done
	for dir in $(pg_dir pkgincludedir) $(pg_dir libdir); do
		mkdir -p "$work/pg${dir%/*}"
		ln -s "$dir" "$work/pg$dir"
	done
	PG_CONFIG=$work/pg$(pg_dir bindir)/pg_config
	export PG_CONFIG
}

prepare() {
	make_work
	bindir=$(pg_dir bindir)
	# the server refuses root
	user=$(id -un)
	if [[ $EUID -eq 0 ]]; then
		user=postgres
		id "$user" >/dev/null 2>&1 || user=nobody
	fi
	tree=$work/tree
	build_and_install
}

start_server() {
	local data=$work/$1 conf=${2:-$top/test/session_admin.conf}

	export PGHOST=$work PGPORT=${3:-5432} PGUSER=postgres
	as_user initdb -D "$data" -U postgres -A trust -E UTF8 --no-locale --no-sync >/dev/null || return
	cat "$conf" - >>"$data/postgresql.conf" <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$work'
		port = $PGPORT
	CONF
	as_user pg_ctl start -w -s -D "$data" -l "$data/server.log" || {
		cat "$data/server.log" >&2
		return 1
	}
}
