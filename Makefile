# session_admin

EXTENSION = session_admin
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" session_admin.control)
MODULE_big = session_admin
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c))
DATA_built = $(EXTENSION)--$(EXTVERSION).sql
SCRIPTS_built =
EXTRA_CLEAN = $(DATA_built)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(DATA_built): $(sort $(wildcard sql/[0-9][0-9]_*.sql))
	cat $^ > $@

src/%.o: $(wildcard src/*.h)
