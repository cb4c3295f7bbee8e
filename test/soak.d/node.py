"""A node: it follows the feed, and answers from a cache by the rules of the README."""

import os
import random
import time
import traceback

from database import Database, Failed, Lost
from journal import Journal, Tail
from ledger import Ledger
from shared import NODE_LEASE, Count, now
from writer import sha256

LOOKUPS = 25        # between two looks at the feed
SYNC = ("SELECT applied::text, id, scope, application, user_name, session_hash, reason,"
        " extract(epoch FROM lease)::float8 FROM session_admin.sync_node(%s, %s::pg_snapshot)")


class Node:
    def __init__(self, shared, process, number, options):
        self.shared, self.number, self.options = shared, number, options
        self.name = f'n{number}'
        self.rng = random.Random(f'{options.seed} {self.name}')
        self.count = Count(shared, process)
        self.journal = Journal(os.path.join(options.journals, self.name))
        self.feed = Database(f'soak node {number}', shared, ['SET synchronous_commit = off'])
        self.fills = Database(f'soak node {number} fills', shared)
        self.tails = [(f'w{w}', Tail(os.path.join(options.journals, f'w{w}'))) for w in range(options.writers)]
        self.ledger = Ledger(shared)
        self.position = None
        self.trusted_until = 0
        self.applied = 0
        self.cache = {}     # sid: (application, user)
        self.by_hash = {}

    def bad(self, kind, text):
        self.count.bad(kind)
        self.journal.write('bad', kind, f'node {self.name}: {text}')

    def join(self):
        while self.position is None:
            self.handed_in = self.shared.restarts.value
            try:
                self.position, = self.feed.run('SELECT session_admin.join_node(%s, %s)::text', (self.name, 'api'))[0]
            except (Lost, Failed):
                continue
        self.journal.write('joined', self.position)

    def sync(self):
        """Is there nothing new?"""
        start = self.shared.asked_at[self.number] = now()
        restarts = self.shared.restarts.value
        self.journal.write('sync', self.applied)
        try:
            rows = self.feed.run(SYNC, (self.name, self.position))
        except Lost:
            return False
        except Failed as error:
            if not error.cancelled:
                self.bad('stuck' if error.stuck else 'error', f'sync_node: {error.sqlstate} {error}')
            return False
        news = [row for row in rows if row[1] is not None]
        for _, n, scope, application, user, session_hash, reason, _ in news:
            self.forget(scope, application, user, session_hash)
            self.journal.write('feed', n, scope, application, user,
                               bytes(session_hash).hex() if session_hash is not None else None, reason)
            # a crash may take the position, as its receipt does not wait for the disk
            if reason == 'resync' and self.handed_in == self.shared.restarts.value:
                self.bad('resync', f'position {self.position} is not known any more')
        self.position = rows[0][0]
        self.handed_in = restarts
        self.trusted_until = start + int(rows[0][7] * 1e9)
        self.shared.synced_at[self.number] = start
        self.shared.returned_at[self.number] = now()
        self.count.add('sync')
        return not news

    def forget(self, scope, application, user, session_hash):
        self.applied += 1
        session_hash = None if session_hash is None else bytes(session_hash)
        if scope == 'session':
            self.cache.pop(self.by_hash.get((application, session_hash)), None)
        elif scope == 'user':
            for sid in [s for s, (a, u) in self.cache.items()
                        if a == application and u == user and sha256(s) != session_hash]:
                del self.cache[sid]
        elif scope == 'application':
            for sid in [s for s, (a, u) in self.cache.items() if a == application]:
                del self.cache[sid]
        elif scope != 'token':
            self.cache.clear()

    def look_up(self):
        """Some requests."""
        for writer, tail in self.tails:
            for record in tail.read():
                self.ledger.apply(record, writer)
        live = self.ledger.live
        sids = [s for s in (self.rng.sample(list(live), min(LOOKUPS, len(live)))
                            + self.rng.sample(list(self.cache), min(LOOKUPS, len(self.cache))))]
        answered, at = [], now()
        for sid in sids:
            session = self.ledger.sessions[sid]
            if session.how == 'token':
                continue
            if sid in self.cache and now() < self.trusted_until:
                answered.append(sid)
                continue
            applied = self.applied
            try:
                valid, = self.fills.run('SELECT session_admin.touch_session(%s, %s)',
                                        (sha256(sid), session.application))[0]
            except (Lost, Failed):
                continue
            self.count.add('filled')
            # here the feed is read by the same thread: at times let it go on in between
            if self.rng.random() < 0.05:
                self.sync()
            if valid and self.applied == applied:
                self.cache[sid] = (session.application, session.user)
                self.by_hash[session.application, sha256(sid)] = sid
            elif not valid:
                self.cache.pop(sid, None)
        if answered:
            self.count.add('cached', len(answered))
            self.journal.write('cached', at, answered)

    def run(self):
        self.join()
        while self.shared.stop.value < 3:
            if self.sync():
                time.sleep(self.rng.random() * 0.05)
            self.look_up()
            if self.rng.random() < 0.002 and self.shared.stop.value < 2:   # cut off
                self.cut_off()
        # to the end of what the writers did
        self.journal.write('last')
        while not self.sync():
            if self.shared.stop.value >= 4:
                return
        self.journal.write('caught up')

    def cut_off(self):
        until = now() + int(NODE_LEASE * 2.5e9)
        while now() < until and self.shared.stop.value < 2:
            answered, at = [], now()
            for sid in list(self.cache):
                if now() < self.trusted_until:
                    answered.append(sid)
            if answered:
                self.journal.write('cached', at, answered[:LOOKUPS])
            self.count.alive()
            time.sleep(0.1)

    def main(self):
        try:
            self.run()
        except Lost:
            pass
        except Exception:
            self.bad('error', traceback.format_exc())
            raise
