"""The doctor: what must hold whatever the clock says.  It has sessions of its own in an
application with a short idle timeout, and one that never ends; it looks at the leases."""

import os
import random
import time
import traceback

from database import Database, Failed, Lost
from journal import Journal
from shared import NODE_LEASE, Count, now

IDLE_TIMEOUT = 3.0      # seconds; as in schema.sql
FLUSHED_WITHIN = 12.0   # seconds; session_admin.flush_interval is one


class Doctor:
    def __init__(self, shared, process, options):
        self.shared, self.options = shared, options
        self.rng = random.Random(f'{options.seed} doctor')
        self.count = Count(shared, process)
        self.journal = Journal(os.path.join(options.journals, 'doctor'))
        self.db = Database('soak doctor', shared, ['SET synchronous_commit = off'])
        self.n = 0
        self.keeper = None
        self.written = None
        self.written_at = now()
        self.last_access = None

    def bad(self, kind, text):
        self.count.bad(kind)
        self.journal.write('bad', kind, f'doctor: {text}')

    def quiet(self):
        """No restart is under way, and no step of the clock: the numbers of both."""
        return self.shared.restarts.value, self.shared.clock_steps.value

    def wait(self, seconds):
        """Sleep, and look at the leases as soon as the clock was set."""
        until = now() + int(seconds * 1e9)
        steps = self.shared.clock_steps.value
        while now() < until:
            time.sleep(0.01)
            if self.shared.clock_steps.value not in (steps, steps + 1):
                steps = self.shared.clock_steps.value
                self.leases()

    def leases(self):
        """A lease is over on the node before it is on the server."""
        shared, before, start = self.shared, self.quiet(), now()
        synced = [(shared.synced_at[n], shared.returned_at[n]) for n in range(self.options.nodes)]
        rows = dict(self.db.run('SELECT node, state FROM session_admin.nodes'))
        end = now()
        if before != self.quiet() or before[0] % 2 or before[1] % 2:
            return
        lease = int(NODE_LEASE * 1e9)
        for n in range(self.options.nodes):
            state = rows.get(f'n{n}')
            since, returned = synced[n]
            if state is None or not since:
                continue
            if end < since + lease and state == 'lease expired':
                self.bad('clock', f'{state} of node n{n}, which synced {(end - since) / 1e9} s ago')
            elif (start > shared.returned_at[n] + lease + 10**9 and start > shared.started_at.value + lease + 10**9
                  and shared.asked_at[n] == since and state == 'behind'):
                self.bad('clock', f'{state} of node n{n}, which was cut off {(start - returned) / 1e9} s ago')
            else:
                self.count.add('judged_clock')

    def housekeeping(self):
        """Touches reach the row, and last access only moves on."""
        if self.keeper is None:
            self.n += 1
            # its own login is not durable
            self.events = self.shared.n_events.value, self.shared.restarts.value
            self.keeper = f'keeper {self.n}'
            self.db.run("SELECT session_admin.open_session(%s::text, 'keeper', application => 'keeper')", (self.keeper,))
            self.written, self.last_access = None, None
        valid, = self.db.run("SELECT session_admin.touch_session(%s::text, 'keeper')", (self.keeper,))[0]
        rows = self.db.run("SELECT requests, last_access_at FROM session_admin.session"
                           " WHERE session_hash = sha256(%s::bytea) AND application = 'keeper'",
                           (self.keeper.encode(),))
        if not rows or not valid:
            if self.events == (self.shared.n_events.value, self.shared.restarts.value):
                self.bad('refused', f'{self.keeper} is refused, and nobody has ended it')
            self.keeper = None
            return
        requests, last_access = rows[0]
        if self.last_access is not None and last_access < self.last_access:
            self.bad('clock', f'last access went from {self.last_access} to {last_access}')
        else:
            self.count.add('judged_clock')
        self.last_access = last_access
        if self.written is not None and requests != self.written:
            self.written_at = now()
        self.written = requests
        since = max(self.written_at, self.shared.started_at.value)
        if now() - since > FLUSHED_WITHIN * 1e9:
            self.bad('housekeeping', f'no touch was written to its row for {(now() - since) / 1e9} s')
            self.written_at = now()

    def brief(self):
        """One that is used stays; one that is not ends.  What the clock does in between counts
        neither way."""
        # what was under way when the clock was set may take the old time for the new
        steps = self.shared.clock_steps.value
        self.wait(1)
        if steps != self.shared.clock_steps.value:
            return
        self.n += 1
        sid = f'brief {self.n}'
        before = self.quiet()
        events = self.shared.n_events.value
        self.db.run("SELECT session_admin.open_session(%s::text, 'brief', application => 'brief')", (sid,))
        last = now()
        until = last + int(self.rng.uniform(0.5, 3) * IDLE_TIMEOUT * 1e9)
        same = lambda: before == self.quiet() and before[0] % 2 == before[1] % 2 == 0 \
            and events == self.shared.n_events.value
        while now() < until:
            self.wait(self.rng.random() * 0.5)
            self.leases()
            self.housekeeping()
            called = now()
            valid, = self.db.run("SELECT session_admin.touch_session(%s::text, 'brief')", (sid,))[0]
            if not same():
                return
            if not valid and now() < last + (IDLE_TIMEOUT - 0.2) * 1e9:
                return self.bad('clock', f'{sid} is refused after {(now() - last) / 1e9} s')
            if not valid:
                return
            self.count.add('judged_clock')
            last = called
        last = now()
        while now() < last + int((IDLE_TIMEOUT + 0.3) * 1e9):
            self.wait(0.3)
            self.leases()
            self.housekeeping()
        valid, = self.db.run("SELECT session_admin.touch_session(%s::text, 'brief')", (sid,))[0]
        if same():
            if valid:
                self.bad('clock', f'{sid} is valid after {(now() - last) / 1e9} s')
            else:
                self.count.add('judged_clock')

    def main(self):
        try:
            while self.shared.stop.value < 2:
                try:
                    self.brief()
                except Lost:
                    self.keeper = None
                except Failed as error:
                    if not error.cancelled:
                        self.bad('stuck' if error.stuck else 'error', f'{error.sqlstate} {error}')
                    self.keeper = None
                self.count.alive()
        except Exception:
            self.bad('error', traceback.format_exc())
            raise
