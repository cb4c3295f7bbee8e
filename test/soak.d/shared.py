"""What all processes see: counters, the moments at which everybody was logged out, and
what chaos is doing.  Made before the processes are forked.

All times are nanoseconds of the clock that nobody sets, which all processes share."""

import ctypes
import multiprocessing
import time

APPLICATIONS = ('api', 'shop', 'spring')
NODE_LEASE = 2.0

# what ended everybody: not answered yet, committed, rolled back, or the connection died
PENDING, COMMITTED, FAILED, LOST = range(4)
EVENTS = 100000
EVERY_APPLICATION = -1

# what is counted: operations, judgements, chaos and violations
COUNTERS = (
    'open', 'renew', 'close', 'reauthenticate', 'login_failed', 'touch',
    'invalidate_session', 'invalidate_user', 'invalidate_sessions', 'invalidate_application',
    'invalidate_all', 'issue', 'redeem', 'redeem_parent', 'redeem_ancestor', 'redeem_ended', 'revoke',
    'product_login', 'product_visit', 'product_request', 'product_new_id', 'product_logout', 'product_expire',
    'product_swap', 'password', 'block', 'delete_user', 'delete_by_hand', 'bring_back', 'roll_back',
    'savepoint', 'together', 'maintain', 'reconcile', 'wait_for_nodes',
    'sync', 'cached', 'filled',
    'judged_ended', 'judged_live', 'judged_after_crash', 'judged_count', 'judged_receipt', 'judged_clock',
    'judged_feed', 'judged_cache', 'judged_history', 'judged_table', 'judged_product', 'judged_logins',
    'judged_token', 'judged_atomic',
    'cancelled', 'refused', 'lost',
    'cancel', 'kill_backend', 'kill_postmaster', 'stop_immediate', 'stop_fast', 'clock_step',
)
CHECKED = [c for c in COUNTERS[:COUNTERS.index('judged_ended')] if c not in ('cached', 'touch')]
JUDGED = [c for c in COUNTERS if c.startswith('judged_')]
# what is judged in the end, from the journals, is no operation
AFTERWARDS = ('judged_feed', 'judged_cache', 'judged_history', 'judged_table', 'judged_product', 'judged_logins')
CRASHES = ('kill_backend', 'kill_postmaster', 'stop_immediate')

# the kinds of violation, by the letters of the table in test/tools/soak
KINDS = {
    'final': 'a', 'comes back': 'a', 'refused': 'b', 'count': 'b',
    'feed': 'c', 'receipt': 'c', 'cache': 'c', 'resync': 'c',
    'remember-me': 'd', 'theft': 'd',
    'history': 'e', 'table': 'e', 'product': 'e', 'logins': 'e', 'users': 'e',
    'lost': 'f', 'half done': 'f',
    'clock': 'g', 'housekeeping': 'g',
    'deadlock': 'h', 'stuck': 'h', 'error': 'h', 'server': 'h',
}


class Event(ctypes.Structure):
    _fields_ = [('application', ctypes.c_int64), ('start', ctypes.c_int64),
                ('end', ctypes.c_int64), ('outcome', ctypes.c_int64)]


def now():
    return time.monotonic_ns()


class Shared:
    def __init__(self, processes):
        self.processes = processes
        self.lock = multiprocessing.Lock()
        self.events = multiprocessing.RawArray(Event, EVENTS)
        self.n_events = multiprocessing.RawValue('q', 0)
        self.counts = multiprocessing.RawArray('q', processes * len(COUNTERS))
        self.bad = multiprocessing.RawArray('q', processes * len(KINDS))
        self.alive_at = multiprocessing.RawArray('q', processes)
        self.stop = multiprocessing.RawValue('q', 0)        # 1: no more chaos; 2: writers; 3: nodes; 4: all
        self.hush = multiprocessing.RawValue('q', 0)        # nobody but those who end something is to write
        self.started_at = multiprocessing.RawValue('q', 0)  # the server, last
        self.restarts = multiprocessing.RawValue('q', 0)    # odd while it is down
        self.clock_steps = multiprocessing.RawValue('q', 0)  # odd during a step
        self.clock_moved = multiprocessing.RawValue('q', 0)  # seconds, all steps added, both ways
        self.asked_at = multiprocessing.RawArray('q', 8)    # by node: start of its last sync, answered or not,
        self.synced_at = multiprocessing.RawArray('q', 8)    # start and return of the last one that was answered
        self.returned_at = multiprocessing.RawArray('q', 8)

    def total(self, name):
        i = COUNTERS.index(name)
        return sum(self.counts[p * len(COUNTERS) + i] for p in range(self.processes))

    def operations(self):
        return sum(self.total(name) for name in CHECKED + JUDGED if name not in AFTERWARDS)

    def crashes(self):
        return sum(self.total(name) for name in CRASHES)

    def violations(self, kind=None):
        kinds = list(KINDS)
        return sum(self.bad[p * len(KINDS) + i] for p in range(self.processes)
                   for i in range(len(KINDS)) if kind is None or kinds[i] == kind)

    def event_start(self, application):
        with self.lock:
            n = self.n_events.value
            self.events[n].application = application
            self.events[n].start = now()
            self.n_events.value = n + 1
            return n

    def event_end(self, n, outcome):
        self.events[n].end = now()
        self.events[n].outcome = outcome


class Count:
    """The counters of one process, which alone writes them."""

    def __init__(self, shared, process):
        self.shared, self.process = shared, process
        self.base = process * len(COUNTERS)
        self.index = {name: self.base + i for i, name in enumerate(COUNTERS)}

    def add(self, name, n=1):
        self.shared.counts[self.index[name]] += n
        self.shared.alive_at[self.process] = now()

    def alive(self):
        self.shared.alive_at[self.process] = now()

    def bad(self, kind):
        self.shared.bad[self.process * len(KINDS) + list(KINDS).index(kind)] += 1
