# An image of PostgreSQL with session_admin in it.
#
#	docker build -t session_admin .
#	docker build -t session_admin --build-arg FROM=postgres:18-trixie .
#
# FROM is an image that has Debian's or PGDG's packages of PostgreSQL and PG_MAJOR, as the
# official ones do.
ARG FROM=postgres:17-bookworm

FROM ${FROM} AS build
RUN apt-get update && \
	apt-get install -y --no-install-recommends gcc libc6-dev make "postgresql-server-dev-$PG_MAJOR"
COPY . /session_admin
RUN make -C /session_admin PG_CONFIG="/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" && \
	make -C /session_admin install DESTDIR=/installed PG_CONFIG="/usr/lib/postgresql/$PG_MAJOR/bin/pg_config"

FROM ${FROM}
COPY --from=build /installed /
CMD ["postgres", "-c", "shared_preload_libraries=session_admin"]
