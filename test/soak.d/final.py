"""What must be true in the end, from the journals alone."""

import os
import time

from database import Database, Failed
from journal import Journal, Tail
from ledger import Ledger
from shared import APPLICATIONS, COMMITTED, FAILED, NODE_LEASE, Count, now
from writer import sha256

BATCH = 1000


class Final:
    def __init__(self, shared, process, options):
        self.shared, self.options = shared, options
        self.count = Count(shared, process)
        self.journal = Journal(os.path.join(options.journals, 'final'))
        self.db = Database('soak final', shared, until=5)
        self.ledger = Ledger(shared)
        self.ledger.keeps = ('wait', 'everybody')
        for w in range(options.writers):
            for record in Tail(os.path.join(options.journals, f'w{w}')).read():
                self.ledger.apply(record, f'w{w}')
        self.events = [shared.events[i] for i in range(shared.n_events.value)]
        self.reasons = {n: reason for _, (_, _, n, _, reason) in self.ledger.records.get('everybody', ())}
        # what is archived after the clock was set back seems to have ended before it did
        self.set_back, offset = [], 0
        for at, kind, *rest in Tail(os.path.join(options.journals, 'chaos')).read():
            if kind == 'clock':
                if rest[0] < offset:
                    self.set_back.append(at)
                offset = rest[0]
        self.end_with_everybody()

    def bad(self, kind, text):
        self.count.bad(kind)
        self.journal.write('bad', kind, f'in the end: {text}')

    def rows(self, sql, args=()):
        return self.db.run(sql, args)

    def end_with_everybody(self):
        """Sessions at which nobody has looked since everybody was logged out"""
        for session in list(self.ledger.live.values()):
            must, may = self.ledger.events_of(session, now())
            if must:
                self.ledger.set_state(session, 'ended', now())
            elif may:
                self.ledger.set_state(session, 'maybe', now())

    def concerning(self, session):
        """The events that may have ended it."""
        index = APPLICATIONS.index(session.application)
        last = session.end_end if session.state == 'ended' else float('inf')
        return [n for n, e in enumerate(self.events)
                if e.application in (-1, index) and e.outcome != FAILED
                and e.end > session.open_start and e.start < last]

    def all_sessions(self):
        """Each session that there ever was is asked for once more."""
        for application in APPLICATIONS:
            sessions = [s for s in self.ledger.sessions.values() if s.application == application and s.how != 'token']
            for i in range(0, len(sessions), BATCH):
                part = sessions[i:i + BATCH]
                start = now()
                (refused,), = self.rows('SELECT session_admin.touch_sessions(%s, application => %s)',
                                        ([sha256(s.sid) for s in part], application))
                refused, valid = {bytes(r) for r in refused}, []
                for session in part:
                    there = sha256(session.sid) not in refused
                    verdict = self.ledger.judge(session, there, start, now())
                    if verdict is None:
                        self.count.add('judged_live' if there else 'judged_ended')
                    elif verdict:
                        self.bad(verdict, f'{session.how} session {session.sid} of {session.user} in {application} is'
                                 f' {"valid" if there else "refused"}, but {session.state}, {session.reasons}')
                    elif session.state == 'maybe':
                        valid.append((session, there))
                for session, there in valid:
                    self.ledger.set_state(session, 'live' if there else 'ended', now())

    def history(self):
        """Each session that has ended is there once, with its reason; none that has not."""
        rows = {}
        for session_hash, application, reason in self.rows(
                "SELECT session_hash, application::text, end_reason FROM session_admin_internal.ended_session"):
            rows.setdefault((bytes(session_hash), application), []).append(reason)
        for session in self.ledger.sessions.values():
            if session.how == 'token':
                continue
            reasons = rows.get((sha256(session.sid), session.application), [])
            what = f'{session.how} session {session.sid} of {session.user} in {session.application}, {session.state}'
            if session.state == 'live' and reasons:
                self.bad('history', f'{what}, is in the history: {reasons}')
            elif session.state == 'ended' and len(reasons) != 1 and session.open_end is not None:
                self.bad('history', f'{what}, is in the history {len(reasons)} times: {reasons}, not {session.reasons}')
            elif session.state == 'ended' and reasons and None not in session.reasons:
                allowed = set(session.reasons) | {self.reasons.get(n) for n in self.concerning(session)}
                # which of two ends was first is told by the clock that people set
                doubtful = any(at > session.open_start for at in self.set_back)
                if reasons[0] not in allowed and not doubtful:
                    self.bad('history', f'{what}, has ended by {reasons[0]}, not {allowed}')
            self.count.add('judged_history')

    def tables(self):
        """The table has the sessions that are live, and so have the products'."""
        def compare(what, kind, counter, live, there):
            for sid in live.keys() - there.keys():
                self.bad(kind, f'{what} does not have {sid} of {live[sid]}')
            for sid in there.keys() - live.keys():
                session = self.ledger.sessions.get(sid)
                self.bad(kind, f'{what} has {sid} of {there[sid]}: {session and (session.state, session.reasons)}')
            for sid in live.keys() & there.keys():
                if live[sid] != there[sid]:
                    self.bad(kind, f'{what} has {sid} of {there[sid]} instead of {live[sid]}')
                self.count.add(counter)
        live = {sha256(s.sid).hex(): (s.application, s.user) for s in self.ledger.live.values() if s.how != 'token'}
        there = {h: (a, u) for h, a, u in self.rows(
            "SELECT encode(session_hash, 'hex'), application::text, user_name::text FROM session_admin_internal.session_state"
            " WHERE ended_at IS NULL AND application = ANY (%s)", (list(APPLICATIONS),))}
        compare('session', 'table', 'judged_table', live, there)
        compare('shop.http_session', 'product', 'judged_product',
                {s.sid: s.user for s in self.ledger.live.values() if s.how == 'shop'},
                dict(self.rows("SELECT sid, sess #>> '{passport,user}' FROM shop.http_session"
                               " WHERE expire > '2021-01-01'")))
        compare('spring_session', 'product', 'judged_product',
                {s.sid: s.user for s in self.ledger.live.values() if s.how == 'spring'},
                dict(self.rows("SELECT trim(session_id), principal_name FROM spring.spring_session")))
        compare('remember_me_token', 'remember-me', 'judged_token',
                {s.sid: s.user for s in self.ledger.live.values() if s.how == 'token'},
                {s: u for s, u in self.rows(
                    "SELECT series::text, user_name::text FROM session_admin.remember_me_token t"
                    " JOIN session_admin.application a ON a.name = t.application AND a.generation = t.generation")
                 if s in self.ledger.sessions and self.ledger.sessions[s].state != 'maybe'})

    def users(self):
        """No user was deleted but by the product."""
        for table in ('shop.users', 'spring.users'):
            n = self.rows(f'SELECT count(*) FROM {table}')[0][0]
            expected = self.options.writers * self.options.users
            if n > expected or n < expected:
                self.bad('users', f'{table} has {n} users instead of {expected}')

    def logins(self):
        """As many are counted as the journals have."""
        sure, unsure = {}, {}
        for session in self.ledger.sessions.values():
            if session.how == 'token' or session.user is None or session.state == 'new':
                continue
            if self.renewed(session):
                continue
            key = (session.application, session.user)
            if session.open_end is not None:
                sure[key] = sure.get(key, 0) + 1
            elif session.opening in self.unknown:
                unsure[key] = unsure.get(key, 0) + 1
        for application, user, n in self.rows(
                "SELECT application::text, user_name::text, login_count FROM session_admin_internal.account"
                " WHERE application = ANY (%s)", (list(APPLICATIONS),)):
            key = (application, user)
            least = sure.get(key, 0) + 1    # the first one, by which the user is known
            most = least + unsure.get(key, 0)
            if not least <= n <= most:
                self.bad('logins', f'{n} logins of {user} in {application} are counted, not {least} to {most}')
            self.count.add('judged_logins')

    def renewed(self, session):
        """Was it opened by a new id of a session that had the same user?"""
        return session.opening in self.renewals

    def load_openings(self):
        self.renewals, self.unknown = set(), set()
        for w in range(self.options.writers):
            writer = f'w{w}'
            for _, kind, *rest in Tail(os.path.join(self.options.journals, writer)).read():
                if kind == 'try':
                    n, op, opens, ends, _ = rest
                    if op == 'renew' or (op == 'product_new_id' and self.ledger.sessions[ends[0]].user is not None):
                        self.renewals.add((writer, n))
                elif kind == 'lost':
                    self.unknown.add((writer, rest[0]))

    # nodes

    def nodes(self):
        committed = dict(self.rows('SELECT id, application::text FROM session_admin_internal.invalidation WHERE id > %s',
                                   (self.options.first_invalidation,)))
        dead = self.dead()
        for number in range(self.options.nodes):
            self.node(f'n{number}', committed, dead)

    def dead(self):
        """From when on no node may answer that a session is valid: the lease after its end."""
        dead = {}
        for session in self.ledger.sessions.values():
            times = [session.end_end] if session.state == 'ended' else []
            if session.open_end is not None:
                times += [self.events[n].end for n in self.concerning(session)
                          if self.events[n].outcome == COMMITTED and self.events[n].start > session.open_end]
            if times:
                dead[session.sid] = min(times) + int(NODE_LEASE * 1e9)
        return dead

    def node(self, name, committed, dead):
        got, twice, presented, cached, caught_up, resync = {}, set(), {}, {}, False, False
        pending = []
        for at, kind, *rest in Tail(os.path.join(self.options.journals, name)).read():
            if kind == 'feed':
                # 0 is a resync, of which each crash may cause one
                if rest[0] in got and rest[0] not in twice and rest[0] != 0:
                    twice.add(rest[0])
                    self.bad('feed', f'node {name} got {rest} twice')
                got[rest[0]] = at
                resync = resync or rest[5] == 'resync'
                pending.append(rest[0])
            elif kind == 'sync':
                for n in pending:
                    presented[n] = at
                pending = []
            elif kind == 'cached':
                for sid in rest[1]:
                    cached.setdefault(sid, []).append(rest[0])
            elif kind == 'caught up':
                caught_up = True
        if not caught_up:
            self.bad('feed', f'node {name} did not come to the end of the feed')
        if not resync:
            # the doctor's own may have ended by time since
            missing = {n for n, a in committed.items() if a is None or a in APPLICATIONS} - got.keys()
            if missing:
                self.bad('feed', f'node {name} did not get {len(missing)} invalidations: {sorted(missing)[:10]}')
            if got.keys() - committed.keys():
                self.bad('feed', f'node {name} got what is not committed: {sorted(got.keys() - committed.keys())[:10]}')
        self.count.add('judged_feed', len(committed))
        # nothing is answered from the cache after the node, or its lease, was said to be done with it
        told = dict(dead)
        for writer, (at, _, n, states, sids) in self.ledger.records.get('wait', ()):
            state = dict(states).get(name)
            if state == 'applied':
                if n not in presented or presented[n] > at:
                    self.bad('receipt', f'node {name} is said to have applied {n}, but has not said so')
                self.count.add('judged_receipt')
            if state in ('applied', 'lease expired'):
                for sid in sids:
                    told[sid] = min(told.get(sid, at), at)
        for sid, times in cached.items():
            until = told.get(sid)
            late = [at for at in times if until is not None and at > until]
            if late:
                session = self.ledger.sessions[sid]
                self.bad('cache', f'node {name} answered that {session.how} session {sid} of {session.user} in'
                         f' {session.application} is valid {(late[0] - until) / 1e9} s after it might')
            self.count.add('judged_cache', len(times))

    def wait_for_housekeeping(self):
        """The worker archives what has ended, whatever the clock says."""
        deadline = now() + int(self.options.patience * 1e9)
        while self.rows('SELECT FROM session_admin_internal.session_state WHERE ended_at IS NOT NULL'
                        " AND application <> 'brief' LIMIT 1"):
            if now() > deadline:
                return self.bad('housekeeping', f'the worker has not archived what has ended for {self.options.patience} s')
            time.sleep(1)
        self.count.add('judged_clock')

    def archive(self):
        for _ in range(100):
            self.rows('SELECT count(*) FROM session_admin.maintain()')
            if not self.rows('SELECT FROM session_admin_internal.session_state WHERE ended_at IS NOT NULL LIMIT 1'):
                return
        self.bad('housekeeping', 'maintain() does not archive what has ended')

    def main(self):
        self.load_openings()
        self.all_sessions()
        if self.options.patience:
            self.wait_for_housekeeping()
        self.archive()
        self.all_sessions()
        for check in (self.history, self.tables, self.users, self.logins, self.nodes):
            try:
                check()
            except Failed as error:
                self.bad('error', f'{check.__name__}: {error}')
