"""Chaos: it kills backends and the postmaster, stops and starts the server, cancels statements
and sets the clock.  It alone starts the server, so that it knows when that was up."""

import os
import random
import signal
import struct
import subprocess
import time
import traceback

import psycopg2

from journal import Journal
from shared import Count, now

CANCELS = 20            # a second
CLOCK_LIMIT = 20 * 3600     # seconds from the right time, at most
QUIET = 0.5             # seconds between a start and the next crash, at least
HUSH = 0.08             # seconds before a crash
# at times nothing crashes, the clock is set back, left so for a while, and then set at random
STOPPED, SET_AT_RANDOM = 14, 6  # seconds
# of what crashes the server; "stop_fast" is an orderly restart, and no crash
WEIGHTS = {'kill_backend': 45, 'kill_postmaster': 20, 'stop_immediate': 25, 'stop_fast': 10}


class Chaos:
    def __init__(self, shared, process, options):
        self.shared, self.options = shared, options
        self.rng = random.Random(f'{options.seed} chaos')
        self.count = Count(shared, process)
        self.journal = Journal(os.path.join(options.journals, 'chaos'))
        self.clock_file = os.path.join(options.work, 'clock')   # as in clock.c
        self.clock = open(self.clock_file, 'wb', buffering=0)
        self.clock.write(struct.pack('=q', 0))
        self.faked = False
        self.offset = 0
        self.connection = None
        self.next_cancel = self.next_step = now()
        self.phases = 0         # of the clock, that were
        self.phase_until = 0

    def bad(self, kind, text):
        self.count.bad(kind)
        self.journal.write('bad', kind, text)

    # the server

    def pg_ctl(self, *args, faked=False, timeout=180):
        environment = dict(os.environ)
        if faked:
            environment.update(LD_PRELOAD=self.options.clock, SOAK_CLOCK=self.clock_file)
        return subprocess.run(['pg_ctl', '-s', '-w', '-t', str(timeout), '-D', self.options.data, *args],
                              env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def start(self, faked=None):
        """Processes of the server that was killed may still be there for a moment."""
        if faked is None:
            faked = self.rng.random() < 0.6
        if self.offset or self.faked != faked:
            self.step(0)
        self.faked = faked
        deadline = time.monotonic() + 180
        while True:
            result = self.pg_ctl('-l', self.options.log, 'start', faked=self.faked)
            if result.returncode == 0:
                break
            if time.monotonic() > deadline:
                self.bad('server', f'the server does not start: {result.stderr}')
                raise SystemExit('the server does not start')
            time.sleep(0.1)
        self.up()

    def down(self):
        if self.shared.restarts.value % 2 == 0:
            self.shared.restarts.value += 1

    def up(self):
        self.shared.started_at.value = now()
        if self.shared.restarts.value % 2 == 1:
            self.shared.restarts.value += 1

    def disconnect(self):
        try:
            if self.connection is not None:
                self.connection.close()
        except psycopg2.Error:
            pass
        self.connection = None

    def run_sql(self, sql):
        if self.connection is None:
            self.connection = psycopg2.connect(dbname='postgres', application_name='soak chaos')
            self.connection.autocommit = True
        cursor = self.connection.cursor()
        cursor.execute(sql)
        return cursor.fetchall()

    def postmaster(self):
        with open(os.path.join(self.options.data, 'postmaster.pid')) as file:
            return int(file.readline())

    def wait_until_up(self):
        """After a crash that the postmaster recovers from by itself"""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                self.run_sql('SELECT 1')
                return self.up()
            except psycopg2.Error:
                self.disconnect()
                time.sleep(0.02)
        self.bad('server', 'the server does not come back after a backend was killed')
        raise SystemExit('the server does not come back')

    # what it does

    def crash(self):
        kind = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        pid = self.postmaster()
        victim = None
        if kind == 'kill_backend':
            try:
                victims = self.run_sql("SELECT pid, backend_type FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                                       " AND (application_name LIKE 'soak%' OR backend_type LIKE 'session_admin%'"
                                       "   OR (backend_type = 'checkpointer' AND random() < 0.2))")
            except psycopg2.Error:
                return self.disconnect()
            victim = self.rng.choice(victims)
        self.disconnect()
        self.journal.write('chaos', kind, victim)
        # a commit that waits for the disk takes all before it there: let there be none but ours
        if self.rng.random() < 0.5:
            self.shared.hush.value = 1
            time.sleep(HUSH)
        self.down()
        if kind == 'kill_backend':
            try:
                os.kill(victim[0], signal.SIGKILL)
            except ProcessLookupError:
                self.shared.hush.value = 0
                return self.up()
            # connections end before the postmaster starts anew
            time.sleep(0.05)
            self.wait_until_up()
        elif kind == 'kill_postmaster':
            os.kill(pid, signal.SIGKILL)
            self.start()
        else:
            result = self.pg_ctl('-m', kind[len('stop_'):], 'stop')
            if result.returncode != 0:
                self.bad('stuck', f'{kind}: {result.stderr}')
                self.pg_ctl('-m', 'immediate', 'stop')
            self.start()
        self.shared.hush.value = 0
        self.count.add(kind)

    def cancel(self):
        try:
            self.run_sql("SELECT pg_cancel_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
                         " WHERE (application_name LIKE 'soak writer%' OR application_name LIKE 'soak node%')"
                         " AND state = 'active' ORDER BY random() LIMIT 1) a")
            self.count.add('cancel')
        except psycopg2.Error:
            self.disconnect()

    def step(self, offset):
        """Set the clock of a server that listens to us."""
        self.shared.clock_steps.value += 1
        self.clock.seek(0)
        self.clock.write(struct.pack('=q', offset))
        self.shared.clock_moved.value += abs(offset - self.offset)
        self.journal.write('clock', offset)
        self.offset = offset
        self.shared.clock_steps.value += 1

    def step_by_chance(self):
        way = self.rng.random()
        if way < 0.3:
            offset = self.offset + self.rng.randrange(-60, 61)
        elif way < 0.8:
            offset = self.rng.randrange(-CLOCK_LIMIT, CLOCK_LIMIT + 1)
        else:
            offset = 0
        self.step(max(-CLOCK_LIMIT, min(CLOCK_LIMIT, offset)))
        self.count.add('clock_step')

    def done(self):
        return min(1.0, self.shared.operations() / max(1, self.options.operations))

    def crash_due(self):
        """Crashes are spread over the operations, and go on if those are done."""
        return (self.shared.crashes() < self.options.crashes * self.done() and now() > self.phase_until
                and now() - self.shared.started_at.value > QUIET * 1e9)

    def clock_phase(self):
        self.phases += 1
        self.disconnect()
        self.journal.write('chaos', 'clock phase', None)
        self.down()
        result = self.pg_ctl('-m', 'fast', 'stop')
        if result.returncode != 0:
            self.bad('stuck', f'stop_fast: {result.stderr}')
            self.pg_ctl('-m', 'immediate', 'stop')
        self.start(faked=True)
        self.count.add('stop_fast')
        # the worker has to have run before
        time.sleep(3)
        self.phase_until = now() + int((STOPPED + SET_AT_RANDOM) * 1e9)
        self.next_step = now() + int(STOPPED * 1e9)
        self.step(-self.rng.randrange(3600, CLOCK_LIMIT))
        self.count.add('clock_step')

    def main(self):
        try:
            self.step(0)
            while self.shared.stop.value < 1:
                self.count.alive()
                phases = self.options.clock_phases
                if self.phases < phases and now() > self.phase_until \
                        and self.done() >= (self.phases + 1) / (phases + 1):
                    self.clock_phase()
                if self.crash_due():
                    self.crash()
                if now() >= self.next_cancel:
                    self.cancel()
                    self.next_cancel = max(self.next_cancel + 10**9 // CANCELS, now() - 10**9)
                if self.faked and now() >= self.next_step:
                    self.step_by_chance()
                    self.next_step = now() + int(self.rng.uniform(0.3, 3) * 1e9)
                time.sleep(0.01)
            # the clock stays wrong: housekeeping has to go on
            self.disconnect()
        except Exception:
            self.bad('error', traceback.format_exc())
            raise
