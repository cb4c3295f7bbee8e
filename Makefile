# session_admin: builds with PGXS; PG_CONFIG=… names a PostgreSQL that is not in the PATH
#
#	make, make install          the library, the SQL script, pg_session_follow and doc/
#	make demo, make check       test/demo and test/check: these also install what is missing
#	make installcheck           the regression, isolation and TAP tests, on the installed extension
#	make debug                  builds anew for a debugger: -O0 -g3; then make install.  Assertions
#	                            are on where PostgreSQL was built with --enable-cassert, only there
#	make warnings               compiles all with gcc and clang: a warning is an error
#	make headers                compiles each header alone
#	make indent                 formats the C files as PostgreSQL's are; needs pg_bsd_indent
#	make format                 shows what make indent would change, and fails if that is anything
#	make compile_commands.json  how each file is compiled, for clangd and other tools
#	make help                   this list

ifneq (,$(filter demo check help,$(MAKECMDGOALS)))

# PGXS has a check of its own, which only says that there is none.
.PHONY: demo check help
demo check:
	test/$@
help:
	@sed -n 's/^#\t/  /p' Makefile

else

EXTENSION = session_admin
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" session_admin.control)
MODULE_big = session_admin
SOURCES := $(sort $(wildcard src/*.c) $(filter-out src/clients/%,$(wildcard src/*/*.c)))
# HEADERS would be installed by PGXS
HEADER_FILES := $(wildcard src/*.h src/*/*.h)
OBJS = $(SOURCES:.c=.o)
DATA_built = $(EXTENSION)--$(EXTVERSION).sql
DATA = $(filter-out sql/$(DATA_built),$(wildcard sql/$(EXTENSION)--*.sql))
DOCS := $(wildcard doc/*.md doc/*.svg)
EXTRA_CLEAN = $(DATA_built) results regression.out regression.diffs tmp_instance tmp_instance_iso \
	compile_commands.json $(wildcard src/*.d src/*/*.d test/points/*.d)

# PostgreSQL's headers are system headers: only our own code is to be free of warnings.
PG_CPPFLAGS = -Isrc -isystem $(includedir_server) -DSA_VERSION='"$(EXTVERSION)"'
# Paths are left out: the same source gives the same library wherever it is built.
# Each object depends on the headers that it was made from, by the .d file beside it.
PG_CFLAGS = -Wall -Wextra -ffile-prefix-map=$(CURDIR)=. -MMD -MP
# PGXS would name it after the file alone: two folders have a row.c.
override autodepend = no

# TEST_POINTS=1: a library in which tests can hold windows open (test/points)
ifdef TEST_POINTS
OBJS += test/points/test_point.o
PG_CPPFLAGS += -DSA_TEST_POINTS -DKEYS_MAX=100
endif

# The library with which PostgreSQL hashes, if it was built with that.
SHLIB_LINK += $(filter -lcrypto,$(LIBS))

# No LLVM bitcode: nothing here gains by being inlined into a query, and it
# would need the very clang that PostgreSQL was built with.
override with_llvm = no

# Tests are what lies in test/; the extension is made by the first, "setup".
# They start servers of their own, with the settings in TEMP_CONFIG.
REGRESS := $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/setup.sql))) \
	$(filter-out setup,$(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql))))
ISOLATION := $(sort $(patsubst test/specs/%.spec,%,$(wildcard test/specs/*.spec)))
PROVE_TESTS := $(sort $(wildcard test/t/*.pl))
TAP_TESTS := $(if $(PROVE_TESTS),1)
TEMP_CONFIG = $(CURDIR)/test/session_admin.conf
export TEMP_CONFIG

# The same wherever it runs: UTF-8, and no locale's order or words.
TEST_OPTS = --inputdir=test --outputdir=. --temp-config=$(TEMP_CONFIG) --encoding=UTF8 --no-locale
REGRESS_OPTS = $(TEST_OPTS) --temp-instance=./tmp_instance
ISOLATION_OPTS = $(TEST_OPTS) --temp-instance=./tmp_instance_iso --load-extension=$(EXTENSION)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# The documents have names that other extensions' have, too: they get a directory of their own.
docmoduledir = extension/$(EXTENSION)

# PGXS removes them by the paths that they have here, where they are not
.PHONY: uninstall-docs
uninstall: uninstall-docs
uninstall-docs:
	rm -f $(addprefix '$(DESTDIR)$(docdir)/$(docmoduledir)'/, $(notdir $(DOCS)))

ifneq (,$(filter 9.% 10 11 12 13 14,$(MAJORVERSION)))
$(error PostgreSQL $(MAJORVERSION) is too old for session_admin: name one from 15 on with PG_CONFIG=/path/to/pg_config)
endif

# Debian has PGXS in postgresql-client, without the headers.
ifeq (,$(wildcard $(includedir_server)/postgres.h))
$(error there is no $(includedir_server)/postgres.h: install the headers of the server (in Debian, postgresql-server-dev-$(firstword $(subst ., ,$(lastword $(VERSION))))))
endif

# SA_VERSION is in the control file.
$(OBJS): session_admin.control
-include $(OBJS:.o=.d)

$(DATA_built): $(sort $(wildcard sql/[0-9][0-9]_*.sql))
	cat $^ > $@

# pg_session_follow has a Makefile of its own
ifneq (,$(wildcard src/clients/follow/Makefile))
all install installdirs uninstall clean distclean maintainer-clean: %: %-follow
%-follow:
	$(MAKE) -C src/clients/follow $* PG_CONFIG='$(PG_CONFIG)'
install-follow: installdirs-follow
endif

# pg_regress takes sql/NAME.sql before test/sql/NAME.sql, and gives up on all
# tests if one has no expected output; a spec must not share that of another test.
.PHONY: check-tests
installcheck: check-tests
check-tests:
	$(foreach name,$(filter $(notdir $(basename $(wildcard sql/*.sql))), \
		$(notdir $(basename $(wildcard test/sql/*.sql)))), \
		$(error sql/$(name).sql would run instead of test/sql/$(name).sql: rename one))
	$(foreach name,$(REGRESS) $(ISOLATION),$(if $(wildcard expected/$(name).out),, \
		$(error test "$(name)" has no expected/$(name).out)))
	$(foreach name,$(filter-out concurrent_%,$(ISOLATION)), \
		$(error name test/specs/$(name).spec "concurrent_$(name)"))
	@:

# The flags of gcc that PostgreSQL was built with mean nothing to clang: these do to both.
WARNINGS = -Wall -Wextra -Wmissing-prototypes -Wpointer-arith -Wdeclaration-after-statement -Wvla
WARNINGS_gcc = gcc
# pg_attribute_printf is what PostgreSQL's configure found for gcc
WARNINGS_clang = $(firstword $(wildcard $(CLANG) /usr/bin/clang /usr/bin/clang-[0-9]*) clang) \
	-Wno-ignored-attributes

.PHONY: warnings warnings-gcc warnings-clang
warnings: warnings-gcc warnings-clang
warnings-gcc warnings-clang: warnings-%:
	@set -e; for file in $(SOURCES) $(wildcard src/clients/*/*.c); do \
		$(WARNINGS_$*) -O2 -std=gnu99 -fwrapv -fno-strict-aliasing $(WARNINGS) -Werror \
			$(CPPFLAGS) \
			-isystem $(includedir) -isystem $(includedir_internal) -c -o /dev/null $$file; \
	done; echo "$*: no warnings"

.PHONY: headers
headers:
	@status=0; for header in $(HEADER_FILES); do \
		printf '#include "postgres.h"\n#include "%s"\n' "$${header#src/}" | \
			$(WARNINGS_gcc) -std=gnu99 $(WARNINGS) -Werror $(CPPFLAGS) \
				-isystem $(includedir) -isystem $(includedir_internal) -fsyntax-only -x c - && \
			echo "$$header: compiles alone" || { echo "$$header: does not compile alone"; status=1; }; \
	done; exit $$status

# As PostgreSQL's pgindent does, with Debian's pg-bsd-indent and the types of all headers
INDENT_OPTS = -bad -bap -bbb -bc -bl -cli1 -cp33 -cdb -nce -d0 -di12 -nfc1 -i4 -l79 -lp -lpl \
	-nip -npro -sac -tpg -ts4

# $(1) is for a file that is as pg_bsd_indent makes it, $(2) for another.
define indent
	@set -e; types=$$(mktemp); new=$$(mktemp); trap 'rm -f $$types $$new' EXIT; status=0; \
	{ grep -rhoE '^(typedef .*|\})[^A-Za-z]*\w+;' $(includedir_server) src | grep -oE '\w+;$$' | tr -d ';'; \
	  printf '%s\n' FILE bool size_t ssize_t pid_t PGconn PGresult EVP_MD EVP_MD_CTX __m128i; } | sort -u >$$types; \
	for file in $(SOURCES) $(HEADER_FILES) $(wildcard src/clients/*/*.[ch]); do \
		pg_bsd_indent $(INDENT_OPTS) -U$$types $$file $$new; \
		sed -i -E -e 's/^(\w+)\s+\*$$/\1 */' -e 's/,\.(\w+ =)/, .\1/g' \
			-e '/\] =$$/ { N; s/\n$$//; }' $$new; \
		if cmp -s $$file $$new; then $(1); else $(2); fi; \
	done; exit $$status
endef

.PHONY: indent format
indent:
	$(call indent,:,echo "$$file"; cat $$new >$$file)
format:
	$(call indent,echo "$$file: formatted",diff -u --label $$file --label "$$file as make indent has it" $$file $$new || status=1)

# The objects are made anew, now and once more when debug is over.
.PHONY: debug
debug:
	$(MAKE) clean
	$(MAKE) all COPT='-O0 -g3'

# What make would run, as JSON
compile_commands.json: $(SOURCES) $(wildcard src/clients/*/*.c) Makefile
	@$(MAKE) -Bnw all | awk ' \
		function json(text) { gsub(/[\\"]/, "\\\\&", text); return "\"" text "\"" } \
		/Entering directory/ { at = $$0; sub(/[^\047]*\047/, "", at); sub(/\047.*/, "", at); where[++depth] = at } \
		/Leaving directory/ { depth-- } \
		/ -c / && match($$0, /[^ ]+\.c( |$$)/) { file = substr($$0, RSTART, RLENGTH); sub(/ $$/, "", file); \
			printf "%s\n{\"directory\": %s, \"file\": %s, \"command\": %s}", n++ ? "," : "[", json(where[depth]), json(file), json($$0) } \
		END { print "\n]" }' >$@

endif
