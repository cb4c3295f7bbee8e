"""Connections that may die at any time."""

import time

import psycopg2
import psycopg2.extensions

STATEMENT_TIMEOUT = 30  # seconds; nothing here may take that long


class Lost(Exception):
    """The connection died: nobody knows whether the statement was committed."""


class Failed(Exception):
    """The statement failed, and left nothing."""

    def __init__(self, error, seconds):
        super().__init__(str(error).strip())
        self.sqlstate = error.pgcode
        # a clock that is set forward lets PostgreSQL's own timeouts come early
        self.stuck = self.sqlstate == '57014' and seconds > 0.9 * STATEMENT_TIMEOUT
        self.cancelled = self.sqlstate == '57014' and not self.stuck


class Database:
    def __init__(self, name, shared, settings=(), until=4):
        self.name, self.shared, self.settings = name, shared, settings
        self.until = until      # what "stop" says when it is not worth waiting any more
        self.connection = None
        self.losses = 0

    def connect(self):
        """Wait until the server is up; the caller's loop ends if all is to stop."""
        while self.shared.stop.value < self.until:
            try:
                self.connection = psycopg2.connect(application_name=self.name, dbname='postgres', connect_timeout=10)
                self.connection.autocommit = True
                cursor = self.connection.cursor()
                cursor.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT}s'")
                for setting in self.settings:
                    cursor.execute(setting)
                return
            except psycopg2.Error:
                self.close()
                time.sleep(0.02)
        raise Lost('the end')

    def close(self):
        if self.connection is not None:
            try:
                self.connection.close()
            except psycopg2.Error:
                pass
        self.connection = None

    def run(self, sql, args=()):
        """The rows of a statement (or how many it changed)."""
        if self.connection is None:
            self.connect()
        cursor = self.connection.cursor()
        start = time.monotonic()
        try:
            cursor.execute(sql, args)
            return cursor.fetchall() if cursor.description else cursor.rowcount
        except psycopg2.Error as error:
            if (self.connection.closed or error.pgcode is None or error.pgcode[:3] == '57P'
                    or error.pgcode[:2] == '08'):
                self.close()
                self.losses += 1
                raise Lost(str(error).strip()) from None
            raise Failed(error, time.monotonic() - start) from None

    def transaction(self, statements, end='COMMIT'):
        """Run them as one; what fails is rolled back.  A statement may be a function."""
        results = []
        self.run('BEGIN')
        committing = False
        try:
            for statement in statements:
                results.append(statement() if callable(statement) else self.run(*statement))
            committing = end == 'COMMIT'
            self.run(end)
        except Failed:
            try:
                self.run('ROLLBACK')
            except Lost:
                pass
            raise
        except Lost:
            if committing:
                raise
            raise Aborted() from None
        return results


class Aborted(Lost):
    """The connection died before COMMIT was sent: nothing was committed."""
