"""A writer: an application's process with some users, whose sessions it opens, uses and ends
in every way.  It alone ends them one by one; anybody may log everybody out."""

import hashlib
import json
import os
import random
import threading
import time
import traceback
import uuid

from database import Aborted, Database, Failed, Lost
from journal import Journal
from ledger import Ledger, Recent
from shared import APPLICATIONS, COMMITTED, EVERY_APPLICATION, FAILED, LOST, Count, now

USERS = 12
LIVE = 100          # sessions that it aims at
CHECK_EVERY = 8     # operations
CHECKED_AT_ONCE = 60
CHECKED_AFTER_CRASH = 600
# all on a connection that does not wait for its commits
ENDINGS = ('close', 'renew', 'invalidate_session', 'invalidate_user', 'invalidate_sessions', 'revoke', 'redeem',
           'product_logout', 'password', 'delete_by_hand', 'savepoint')
FAR = "clock_timestamp() + interval '30 days'"
MS = '(1000 * extract(epoch FROM clock_timestamp()))::bigint'


def sha256(sid):
    return hashlib.sha256(sid.encode()).digest()


class Writer:
    def __init__(self, shared, process, number, options):
        self.shared, self.number, self.options = shared, number, options
        self.name = f'w{number}'
        self.rng = random.Random(f'{options.seed} {self.name}')
        self.count = Count(shared, process)
        self.journal = Journal(os.path.join(options.journals, self.name))
        self.ledger = Ledger(shared)
        self.lock = threading.RLock()
        self.recent = Recent(self.rng)
        self.users = [f'{self.name}u{i}' for i in range(USERS)]
        self.tries = 0
        name = f'soak writer {number}'
        self.db = Database(name, shared)
        self.other = Database(name, shared)
        # what ends sessions is durable, whatever the application has set
        self.ending = Database(name, shared, ["SET synchronous_commit = off"])
        self.by_row = Database(name, shared, ["SET session_admin.use_shared_memory = off"])
        self.old = Database(name, shared, ["SET default_transaction_isolation = 'repeatable read'",
                                           "SET default_transaction_read_only = on"])
        # not in the middle of a transaction of ours
        self.looking = threading.local()
        self.old_until = 0
        self.losses = 0
        self.rotated = {}       # how far the clock had been set when a series was rotated
        self.operations = self.choose_operations()

    # the journal

    def write(self, *record):
        with self.lock:
            self.ledger.apply(self.journal.write(*record), None)

    def bad(self, kind, text):
        self.count.bad(kind)
        self.journal.write('bad', kind, text)

    def attempt(self, op, work, opens=(), ends=(), reason=None, goes_on=None):
        """Do something that opens and ends sessions: what it gives, or None if it came to nothing,
        or nobody knows.  A session that goes on under another id does so only if nobody has ended
        it meanwhile."""
        sure = self.sure([goes_on]) if goes_on else None
        with self.lock:
            self.tries += 1
            n = self.tries
        ends = [s.sid for s in ends]
        self.write('try', n, op, list(opens), ends, reason)
        try:
            result = work()
        except Aborted as error:
            self.write('no', n, str(error))
            self.count.add('lost')
            return None
        except Lost:
            self.write('lost', n)
            self.count.add('lost')
            self.resolve(op, [o[0] for o in opens], ends)
            return None
        except Failed as error:
            self.write('no', n, error.sqlstate)
            self.failed(op, error)
            return None
        except NotDone as error:
            self.write('no', n, 'not done')
            return error.result
        self.count.add(op)
        if goes_on and (sure is None or sure != self.last_event()):
            self.write('lost', n)
            self.resolve(op, [o[0] for o in opens], ends)
        else:
            self.write('ok', n)
        return result

    def failed(self, op, error, ours=True):
        if error.cancelled:
            self.count.add('cancelled')
        elif error.stuck:
            self.bad('stuck', f'{op}: {error}')
        elif error.sqlstate in ('40P01', '55P03') and not ours:
            self.count.add('refused')
        elif error.sqlstate == '40P01':
            self.bad('deadlock', f'{op}: {error}')
        else:
            self.bad('error', f'{op}: {error.sqlstate} {error}')

    def resolve(self, op, opens=(), ends=()):
        """Look what became of what was under way when the connection died."""
        with self.lock:
            maybe = [s for s in self.ledger.maybe.values()]
        gone = lambda s: any(self.ledger.events_of(s, float('inf')))    # with everybody, or perhaps
        before = {s.sid: gone(s) for s in maybe}
        self.look(maybe)
        # all of it, or nothing
        looked = {s.sid: s for s in maybe if len(s.pending) + len(s.reasons) <= 1}
        done = [(sid, looked[sid].state == 'live') for sid in opens if sid in looked]
        undone = [(sid, looked[sid].state != 'live') for sid in ends if sid in looked]
        if any(before[sid] or gone(looked[sid]) for sid, _ in done + undone):
            return
        if len({happened for _, happened in done + undone}) > 1:
            self.bad('half done', f'{op}: {done} {undone}')
        elif done or undone:
            self.count.add('judged_atomic')

    def look(self, sessions):
        """Note which of them are valid, of those of which that is unknown."""
        if not hasattr(self.looking, 'db'):
            self.looking.db = Database(f'soak writer {self.number} looks', self.shared)
        db = self.looking.db
        while sessions:
            tokens = [s for s in sessions if s.how == 'token']
            others = [s for s in sessions if s.how != 'token']
            valid, invalid = [], []
            try:
                for application in APPLICATIONS:
                    these = [s for s in others if s.application == application]
                    if these:
                        (refused,), = db.run('SELECT session_admin.touch_sessions(%s::text[], application => %s)',
                                                  ([s.sid for s in these], application))
                        refused = set(refused)
                        valid += [s.sid for s in these if s.sid not in refused]
                        invalid += [s.sid for s in these if s.sid in refused]
                for s in tokens:
                    there = s.tokens and db.run(
                        'SELECT FROM session_admin.remember_me_token t JOIN session_admin.application a'
                        ' ON a.name = t.application AND a.generation = t.generation'
                        ' WHERE series = %s AND application = %s', (s.sid, s.application))
                    (valid if there else invalid).append(s.sid)
                self.write('seen', valid, invalid)
                return
            except (Lost, Failed):
                continue

    # checks

    def check(self, sessions, db=None, counter=None):
        """Ask for them all, in one call an application, and judge each answer."""
        for application in APPLICATIONS:
            these = [s for s in sessions if s.application == application and s.how != 'token']
            if not these:
                continue
            start = now()
            try:
                (refused,), = (db or self.db).run('SELECT session_admin.touch_sessions(%s, application => %s)',
                                                  ([sha256(s.sid) for s in these], application))
            except Lost:
                self.count.add('lost')
                return
            except Failed as error:
                self.failed('touch_sessions', error)
                return
            self.judge_all(these, {bytes(r) for r in refused}, start, counter)
            self.count.add('touch', len(these))

    def judge_all(self, sessions, refused, start, counter=None):
        end = now()
        gone = []
        for session in sessions:
            valid = sha256(session.sid) not in refused
            verdict = self.ledger.judge(session, valid, start, end)
            if verdict is False:
                pass
            elif verdict is None:
                self.count.add(counter or ('judged_live' if valid else 'judged_ended'))
            else:
                self.bad('lost' if counter else verdict, self.describe(session, valid))
            if not valid and session.state == 'live' and not session.pending:
                gone.append(session.sid)
            elif valid and session.state == 'ended' and verdict:
                self.end_again(session)
        if gone:
            self.write('seen', [], gone)

    def end_again(self, session):
        """It should not be there; that is told once."""
        try:
            if session.how == 'shop':
                self.db.run('DELETE FROM shop.http_session WHERE sid = %s', (session.sid,))
            elif session.how == 'spring':
                self.db.run('DELETE FROM spring.spring_session WHERE session_id = %s', (session.sid,))
            self.db.run('SELECT session_admin.close_session(%s, %s)', (sha256(session.sid), session.application))
        except (Lost, Failed):
            pass

    def describe(self, session, valid):
        return (f'{session.how} session {session.sid} ({sha256(session.sid).hex()[:12]}) of {session.user} in '
                f'{session.application} is {"valid" if valid else "refused"}, but {session.state}: opened '
                f'{session.open_start} {session.open_end}, ended {session.end_end}, {session.reasons},'
                f' {self.ledger.tries} and events from {session.event}')

    def some_check(self):
        ledger = self.ledger
        sessions = (self.rng.sample(list(ledger.live.values()), min(len(ledger.live), CHECKED_AT_ONCE // 2))
                    + self.recent.pick(ledger.ended, CHECKED_AT_ONCE // 2))
        way = self.rng.random()
        if way < 0.6:
            self.check(sessions)
        elif way < 0.8:
            self.check(sessions, self.by_row)
        else:
            # in a transaction whose own snapshot is from before
            try:
                if self.old_until < now() or self.old.connection is None:
                    if self.old.connection is not None:
                        self.old.run('ROLLBACK')
                    self.old.run('BEGIN')
                    self.old.run('SELECT count(*) FROM session_admin.application')
                    self.old_until = now() + 500_000_000
                self.check(sessions, self.old)
                if self.old.connection is not None and self.old.connection.info.transaction_status == 3:
                    self.old.run('ROLLBACK')
                    self.old_until = 0
            except (Lost, Failed):
                self.old.close()

    def check_after_crash(self):
        ledger = self.ledger
        self.check(list(ledger.live.values()) + ledger.ended[-CHECKED_AFTER_CRASH:], counter='judged_after_crash')

    # what it does

    def sid(self):
        return str(uuid.UUID(int=self.rng.getrandbits(128)))

    def live(self, how=None, application=None, user=None):
        return [s for s in self.ledger.live.values()
                if s.how != 'token' and not s.pending and (how is None or s.how == how)
                and (application is None or s.application == application) and (user is None or s.user == user)]

    def series(self, application=None, user=None):
        return [s for s in self.ledger.live.values() if s.how == 'token' and not s.pending
                and (application is None or s.application == application) and (user is None or s.user == user)]

    def one(self, sessions):
        return self.rng.choice(sessions) if sessions else None

    def sure(self, sessions):
        """Are they live for sure?  Then since when nobody has logged everybody out, else None."""
        last = self.last_event()
        return last if last != float('inf') and all(self.ledger.certain(s) for s in sessions) else None

    def expect(self, sessions, sure, got, what):
        """Have as many sessions ended as were live for sure?"""
        if got is not None and sure is not None and sure == self.last_event():
            self.count.add('judged_count')
            if got != len(sessions):
                self.bad('count', f'{what}: {got} instead of {len(sessions)} have ended:'
                         f' {[self.describe(s, False) for s in sessions]}')

    def last_event(self):
        """When anybody was logged out last, or infinity if that is under way."""
        last = 0
        for i in range(max(0, self.shared.n_events.value - 20), self.shared.n_events.value):
            event = self.shared.events[i]
            last = max(last, event.end if event.outcome in (COMMITTED, FAILED) else float('inf'))
        return last

    def open(self):
        sid, user, application = self.sid(), self.rng.choice(self.users), self.rng.choice(APPLICATIONS)
        rows = self.attempt('open', lambda: self.db.run(
            'SELECT session_admin.open_session(%s::text, %s, client_address => %s, node => %s, application => %s)',
            (sid, user, f'10.0.{self.number}.{self.rng.randrange(1, 250)}', self.name, application)),
            opens=[(sid, application, user, 'api', None)])
        if rows and rows[0][0] != sha256(sid).hex()[:12]:
            self.bad('error', f'open_session gave {rows[0][0]} for {sid}')

    def renew(self):
        session = self.one(self.live('api'))
        if session is None:
            return
        sid = self.sid()

        def work():
            try:
                return self.ending.run('SELECT session_admin.renew_session(%s::text, %s::text, %s)',
                                       (session.sid, sid, session.application))
            except Failed as error:
                if error.sqlstate == 'PT404' and not self.ledger.certain(session):
                    raise NotDone() from None
                raise
        self.attempt('renew', work, opens=[(sid, session.application, session.user, 'api', None)],
                     ends=[session], reason='renewed')

    def close(self):
        session = self.one(self.live())
        if session is None:
            return
        sure = self.sure([session])
        rows = self.attempt('close', lambda: self.ending.run(
            'SELECT session_admin.close_session(%s, %s)', (sha256(session.sid), session.application)),
            ends=[session], reason='logout')
        if rows:
            self.expect([session], sure, int(rows[0][0]), 'close_session')

    def reauthenticate(self):
        session = self.one(self.live('api'))
        if session is None:
            return
        start = now()
        rows = self.attempt('reauthenticate', lambda: self.db.run(
            "SELECT session_admin.reauthenticate(%s::text, application => %s)", (session.sid, session.application)))
        if rows:
            self.judge_all([session], set() if rows[0][0] else {sha256(session.sid)}, start)

    def login_failed(self):
        self.attempt('login_failed', lambda: self.db.run(
            'SELECT session_admin.login_failed(%s, application => %s)',
            (self.rng.choice(self.users), self.rng.choice(APPLICATIONS))))

    def reason(self):
        return f'custom:{self.name}-{self.tries + 1}'

    def invalidate_session(self):
        session = self.one(self.live())
        if session is None:
            return
        reason = self.reason()

        def work():
            try:
                return self.ending.run('SELECT * FROM session_admin.invalidate_session(%s, %s, %s)',
                                       (sha256(session.sid).hex()[:20], reason, session.application))
            except Failed as error:
                if error.sqlstate == 'PT404' and not self.ledger.certain(session):
                    raise NotDone() from None
                raise
        rows = self.attempt('invalidate_session', work, ends=[session], reason=reason)
        self.maybe_wait(rows, [session])

    def invalidate_user(self):
        user, application, reason = self.rng.choice(self.users), self.rng.choice(APPLICATIONS), self.reason()
        sessions = self.live(application=application, user=user)
        series = self.series(application, user)
        keep = self.one(sessions) if self.rng.random() < 0.3 else None
        keep_tokens = self.rng.random() < 0.3
        ends = [s for s in sessions if s is not keep]
        sure, sure_series = self.sure(ends), self.sure(series)
        rows = self.attempt('invalidate_user', lambda: self.ending.run(
            'SELECT * FROM session_admin.invalidate_user(%s, %s::bytea, %s, %s, %s)',
            (user, sha256(keep.sid) if keep else None, keep_tokens, reason, application)),
            ends=ends + ([] if keep_tokens else series), reason=reason)
        if rows:
            self.expect(ends, sure, rows[0][1], 'invalidate_user')
            if not keep_tokens:
                self.expect(series, sure_series, rows[0][2], 'tokens of invalidate_user')
        self.maybe_wait(rows, ends)

    def invalidate_sessions(self):
        user, application, reason = self.rng.choice(self.users), self.rng.choice(APPLICATIONS), self.reason()
        by = self.rng.choice(('user', 'user', 'user', 'node', 'address'))
        if by == 'user':
            ends, argument, value = self.live(application=application, user=user), 'user_name', user
        else:
            ends = self.live('api', application)
            argument, value = (('node', self.name) if by == 'node' else ('address', f'10.0.{self.number}.0/24'))
        sure = self.sure(ends)
        rows = self.attempt('invalidate_sessions', lambda: self.ending.run(
            f'SELECT * FROM session_admin.invalidate_sessions({argument} => %s, reason => %s, application => %s)',
            (value, reason, application)), ends=ends, reason=reason)
        if rows:
            self.expect(ends, sure, rows[0][1], f'invalidate_sessions by {by}')
        self.maybe_wait(rows, ends)

    def everybody(self, application):
        """Log everybody out; all processes see that it is under way."""
        index = EVERY_APPLICATION if application is None else APPLICATIONS.index(application)
        op = 'invalidate_all' if application is None else 'invalidate_application'
        n = self.shared.event_start(index)
        reason = f'custom:everybody-{n}'
        self.journal.write('everybody', n, index, reason)
        try:
            if application is None:
                self.ending.run('SELECT * FROM session_admin.invalidate_all(%s)', (reason,))
            else:
                self.ending.run('SELECT * FROM session_admin.invalidate_application(%s, %s)', (reason, application))
            outcome = COMMITTED
            self.count.add(op)
        except Failed as error:
            outcome = FAILED
            self.failed(op, error)
        except Lost:
            outcome = LOST
            self.count.add('lost')
        while outcome == LOST:
            try:
                rows = self.db.run('SELECT FROM session_admin_internal.invalidation WHERE reason = %s', (reason,))
                outcome = COMMITTED if rows else FAILED
            except Failed:
                pass
            except Lost:
                if self.shared.stop.value >= 4:
                    raise
        self.shared.event_end(n, outcome)
        self.journal.write('event', n, outcome, self.shared.events[n].start, self.shared.events[n].end)

    def invalidate_application(self):
        self.everybody(self.rng.choice(APPLICATIONS))

    def invalidate_all(self):
        self.everybody(None)

    def maybe_wait(self, rows, ends):
        """Sometimes ask for the receipts of all nodes."""
        if not rows or rows[0][0] is None or not ends or self.rng.random() > 0.3:
            return
        try:
            states = self.other.run("SELECT * FROM session_admin.wait_for_nodes(%s, '3 seconds')", (rows[0][0],))
        except Lost:
            self.count.add('lost')
            return
        except Failed as error:
            self.failed('wait_for_nodes', error)
            return
        self.count.add('wait_for_nodes')
        self.journal.write('wait', rows[0][0], states, [s.sid for s in ends])

    # remembered devices

    def issue(self):
        user, application = self.rng.choice(self.users), self.rng.choice(('api', 'shop'))
        start = now()
        with self.lock:
            self.tries += 1
            n = self.tries
        try:
            # a token that never arrived is nobody's
            (token,), = self.db.run('SELECT session_admin.issue_remember_me(%s, application => %s)', (user, application))
        except Lost:
            self.count.add('lost')
            return
        except Failed as error:
            self.failed('issue', error)
            return
        series = token.split(':')[0]
        self.write('try', n, 'issue', [[series, application, user, 'token', start]], [], None)
        self.write('token', series, token)
        self.write('ok', n)
        self.count.add('issue')

    def show(self, series, token, op, risky=False):
        """Show a token, again if the answer was lost: (outcome, user, token), or None.  What was
        rotated may be theft if the clock was set by more than the grace since, and then the
        user's sessions end with it."""
        for _ in range(20):
            call = lambda: self.ending.run('SELECT * FROM session_admin.redeem_remember_me(%s, application => %s)',
                                           (token, series.application))[0]
            if risky:
                def work():
                    row = call()
                    if row[0] != 'theft':
                        raise NotDone(row)
                    return row
                row = self.attempt(op, work, ends=[series] + self.live(application=series.application, user=series.user),
                                   reason='token_theft')
                if row:
                    self.count.add(op)
                    return row
                if series.state != 'live':
                    return None
            else:
                try:
                    row = call()
                    self.count.add(op)
                    return row
                except Lost:
                    self.count.add('lost')
                    risky = True
                except Failed as error:
                    self.failed(op, error)
                    if not error.cancelled:
                        return None
        return None

    def redeem(self):
        series = self.one(self.series())
        if series is None:
            return
        again = len(series.tokens) > 1 and self.rng.random() < 0.3
        moved, clock = self.rotated.get(series.sid, 0), self.shared.clock_moved.value
        start = now()
        row = self.show(series, series.tokens[-2 if again else -1], 'redeem_parent' if again else 'redeem', again)
        if row is None:
            return
        if row[0] == 'theft':
            if moved == self.shared.clock_moved.value:
                self.bad('theft', f'theft: {self.describe(series, True)}')
            return
        verdict = self.ledger.judge(series, row[0] == 'accepted', start, now())
        if verdict is None:
            self.count.add('judged_token')
        elif verdict:
            self.bad('remember-me', f'{row[0]}: {self.describe(series, True)}')
        if row[0] != 'accepted':
            self.write('seen', [], [series.sid])
        elif again and row[2] != series.tokens[-1]:
            self.bad('remember-me', f'a second child of a token of series {series.sid}')
        elif not again:
            self.write('token', series.sid, row[2])
            self.rotated[series.sid] = clock
            if row[1] != series.user:
                self.bad('remember-me', f'series {series.sid} of {series.user} is {row[1]}\'s')

    def redeem_ancestor(self):
        series = self.one([s for s in self.series() if len(s.tokens) > 2])
        if series is None:
            return
        ends = self.live(application=series.application, user=series.user)

        def work():
            row, = self.ending.run('SELECT * FROM session_admin.redeem_remember_me(%s, application => %s)',
                                   (self.rng.choice(series.tokens[:-2]), series.application))
            if row[0] != 'theft':
                raise NotDone(row)
            return row
        certain = self.ledger.certain(series)
        row = self.attempt('redeem_ancestor', work, ends=[series] + ends, reason='token_theft')
        if row and row[0] != 'theft':
            if row[0] == 'accepted' or (certain and self.ledger.certain(series)):
                self.bad('theft', f'{row[0]} for an ancestor: {self.describe(series, True)}')
            else:
                self.write('seen', [], [series.sid])
        elif row:
            self.count.add('judged_token')

    def redeem_ended(self):
        ended = [s for s in self.ledger.ended[-3000:] if s.how == 'token' and s.tokens]
        if not ended:
            return
        series = self.rng.choice(ended)
        try:
            row = self.db.run('SELECT * FROM session_admin.redeem_remember_me(%s, application => %s)',
                              (self.rng.choice(series.tokens[-2:]), series.application))[0]
        except Lost:
            return self.count.add('lost')
        except Failed as error:
            return self.failed('redeem_ended', error)
        self.count.add('redeem_ended')
        self.count.add('judged_token')
        if row[0] == 'accepted':
            self.bad('remember-me', f'accepted: {self.describe(series, True)}')
        elif row[0] == 'theft':
            self.bad('theft', f'theft: {self.describe(series, True)}')

    def revoke(self):
        series = self.one(self.series())
        if series is None:
            return
        sure = self.sure([series])
        rows = self.attempt('revoke', lambda: self.ending.run(
            'SELECT session_admin.revoke_remember_me(%s, %s)', (series.sid, series.application)),
            ends=[series], reason='token_revoked')
        if rows:
            self.expect([series], sure, int(rows[0][0]), 'revoke_remember_me')

    # the products' own statements

    def product_login(self):
        sid, user = self.sid(), self.rng.choice(self.users)
        if self.rng.random() < 0.5:
            self.attempt('product_login', lambda: self.db.run(
                'INSERT INTO shop.http_session (sess, expire, sid)'
                f' SELECT %s, {FAR}, %s ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire',
                (json.dumps({'passport': {'user': user}}), sid)), opens=[(sid, 'shop', user, 'shop', None)])
        else:
            key = self.sid()
            self.attempt('product_login', lambda: self.spring_insert(key, sid, user),
                         opens=[(sid, 'spring', user, 'spring', key)])

    def spring_insert(self, key, sid, user):
        return self.db.run(f'INSERT INTO spring.spring_session VALUES (%s, %s, {MS}, {MS}, 2592000,'
                           f' {MS} + 2592000000, %s)', (key, sid, user))

    def product_visit(self):
        """A visitor, who then logs in with a new session id."""
        sid, key, user = self.sid(), self.sid(), self.rng.choice(self.users)
        if self.attempt('product_visit', lambda: self.spring_insert(key, sid, None),
                        opens=[(sid, 'spring', None, 'spring', key)]):
            self.new_id(self.ledger.sessions[sid], user)

    def new_id(self, session, user):
        sid = self.sid()

        def work():
            if self.db.run('UPDATE spring.spring_session SET session_id = %s, principal_name = %s'
                           ' WHERE primary_id = %s', (sid, user, session.key)) == 0:
                self.row_gone(session)
                raise NotDone()
        self.attempt('product_new_id', work, opens=[(sid, 'spring', user, 'spring', session.key)],
                     ends=[session], reason='renewed', goes_on=session)

    def row_gone(self, session):
        if self.ledger.certain(session):
            self.bad('product', f'no row of {self.describe(session, True)}')

    def product_new_id(self):
        session = self.one([s for s in self.live('spring') if s.user])
        if session is not None:
            self.new_id(session, session.user)

    def product_request(self):
        session = self.one(self.live('shop') + self.live('spring'))
        if session is None:
            return
        if session.how == 'shop':
            work = lambda: self.db.run(f'UPDATE shop.http_session SET expire = {FAR} WHERE sid = %s', (session.sid,))
        else:
            work = lambda: self.db.run(
                f'UPDATE spring.spring_session SET last_access_time = {MS}, expiry_time = {MS} + 2592000000'
                ' WHERE primary_id = %s', (session.key,))
        if self.attempt('product_request', work) == 0:
            self.row_gone(session)

    def product_logout(self):
        session = self.one(self.live('shop') + self.live('spring'))
        if session is None:
            return
        table, column, value = (('shop.http_session', 'sid', session.sid) if session.how == 'shop'
                                else ('spring.spring_session', 'primary_id', session.key))
        self.attempt('product_logout', lambda: self.ending.run(
            f'DELETE FROM {table} WHERE {column} = %s', (value,)), ends=[session], reason='logout')

    def product_expire(self):
        session = self.one(self.live('shop'))
        if session is not None:
            self.attempt('product_expire', lambda: self.db.run(
                "UPDATE shop.http_session SET expire = '2020-01-01' WHERE sid = %s", (session.sid,)),
                ends=[session], reason='logout')

    def product_swap(self):
        """While somebody logs a user out, the row of the session becomes another user's."""
        session = self.one([s for s in self.live('spring') if s.user])
        if session is None:
            return
        sid, user = self.sid(), self.rng.choice([u for u in self.users if u != session.user])
        reason = self.reason()
        ends = self.live(application='spring', user=session.user)
        series = self.series('spring', session.user)

        def invalidate():
            self.attempt('invalidate_user', lambda: self.other.run(
                'SELECT * FROM session_admin.invalidate_user(%s, reason => %s, application => %s)',
                (session.user, reason, 'spring')), ends=ends + series, reason=reason)
        thread = threading.Thread(target=invalidate)

        def swap():
            if self.db.run('UPDATE spring.spring_session SET session_id = %s, principal_name = %s'
                           ' WHERE primary_id = %s', (sid, user, session.key)) == 0:
                self.row_gone(session)
                raise NotDone()
            thread.start()
            time.sleep(self.rng.random() * 0.05)

        def work():
            try:
                return self.db.transaction([swap])
            except NotDone:
                self.db.run('ROLLBACK')
                raise
        self.attempt('product_swap', work, opens=[(sid, 'spring', user, 'spring', session.key)],
                     ends=[session], reason=None, goes_on=session)
        if thread.ident is not None:
            thread.join()

    def user_change(self, op, shop, spring, reason, back=None):
        user, application = self.rng.choice(self.users), self.rng.choice(('shop', 'spring'))
        ends = self.live(application=application, user=user)
        series = self.series(application, user)
        keep = self.one(ends) if op == 'password' and self.rng.random() < 0.3 else None
        statements = [((shop if application == 'shop' else spring), {'user': user})]
        if keep:
            statements.insert(0, ('SELECT set_config(%s, %s, true)',
                                  ('session_admin.current_session', sha256(keep.sid).hex())))
        done = self.attempt(op, lambda: self.ending.transaction(statements),
                            ends=[s for s in ends if s is not keep] + series, reason=reason)
        if done and done[-1] != 1:
            self.bad('users', f'{op}: {done[-1]} rows of {user} in {application} instead of 1')
        if back:
            sql = back[0] if application == 'shop' else back[1]
            while True:
                try:
                    self.db.run(sql, {'user': user, 'id': self.number * 100 + self.users.index(user)})
                    break
                except (Lost, Failed) as error:
                    if isinstance(error, Failed) and not error.cancelled:
                        if error.sqlstate != '23505':
                            self.failed(op + ' undone', error)
                        break
                    if self.shared.stop.value >= 4:
                        raise Lost('the end') from None

    def password(self):
        self.user_change('password', "UPDATE shop.users SET password_hash = gen_random_uuid() WHERE email = %(user)s",
                         "UPDATE spring.users SET password = gen_random_uuid() WHERE username = %(user)s",
                         'password_changed')

    def block(self):
        self.user_change('block', 'UPDATE shop.users SET blocked_at = now() WHERE email = %(user)s',
                         'UPDATE spring.users SET enabled = false WHERE username = %(user)s', 'user_deactivated',
                         ('UPDATE shop.users SET blocked_at = NULL WHERE email = %(user)s',
                          'UPDATE spring.users SET enabled = true WHERE username = %(user)s'))

    def delete_user(self):
        self.user_change('delete_user', 'DELETE FROM shop.users WHERE email = %(user)s',
                         'DELETE FROM spring.users WHERE username = %(user)s', 'user_deleted',
                         ("INSERT INTO shop.users VALUES (%(id)s, %(user)s, 'x')",
                          "INSERT INTO spring.users VALUES (%(user)s, 'x', true)"))

    def bring_back(self):
        """A request that was running when its session ended saves it, as stores do."""
        # an end that may have been, before the product's own, was none perhaps
        ended = [s for s in self.ledger.ended[-1000:] if s.how == 'shop' and not s.pending
                 and len(s.reasons) == 1 and s.reasons[0] not in (None, 'logout', 'idle_timeout')]
        if not ended:
            return
        session = self.rng.choice(ended)
        start = now()
        if self.rng.random() < 0.3:
            try:
                self.db.run('SELECT session_admin.open_session(%s::text, %s, application => %s)',
                            (session.sid, session.user, 'shop'))
                self.count.add('bring_back')
            except Lost:
                return self.count.add('lost')
            except Failed as error:
                if error.sqlstate != 'PT410':
                    return self.failed('bring_back', error)
                return self.count.add('bring_back')
        else:
            try:
                self.db.run('INSERT INTO shop.http_session (sess, expire, sid)'
                            f' SELECT %s, {FAR}, %s ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess,'
                            ' expire = excluded.expire', (json.dumps({'passport': {'user': session.user}}), session.sid))
                self.count.add('bring_back')
            except Lost:
                return self.count.add('lost')
            except Failed as error:
                return self.failed('bring_back', error)
        try:
            valid = self.db.run('SELECT session_admin.touch_session(%s, %s)', (sha256(session.sid), 'shop'))[0][0]
            there = self.db.run('SELECT FROM shop.http_session WHERE sid = %s', (session.sid,))
        except (Lost, Failed):
            return self.count.add('lost')
        if valid or there:
            self.bad('comes back', f'after {(now() - start) / 1e9} s: {self.describe(session, valid)}')
            self.end_again(session)
        else:
            self.count.add('judged_ended')

    # by hand, and in transactions

    def delete_by_hand(self):
        session = self.one(self.live())
        if session is None:
            return

        def work():
            try:
                return self.ending.run('DELETE FROM session_admin.session WHERE session_hash = %s AND application = %s',
                                       (sha256(session.sid), session.application))
            except Failed as error:
                if error.sqlstate == '40P01':   # has our rows before the product's
                    raise NotDone() from None
                raise
        self.attempt('delete_by_hand', work, ends=[session], reason='admin')

    def endings(self, n):
        """Statements that end something, which comes to nothing."""
        statements = []
        for _ in range(n):
            session, user = self.one(self.live()), self.rng.choice(self.users)
            choice = self.rng.randrange(6)
            if session is not None and choice < 2:
                statements.append(('SELECT session_admin.close_session(%s, %s)', (sha256(session.sid), session.application)))
            elif session is not None and choice == 2 and session.how == 'shop':
                statements.append(('DELETE FROM shop.http_session WHERE sid = %s', (session.sid,)))
            elif choice == 3:
                statements.append(('UPDATE shop.users SET password_hash = gen_random_uuid() WHERE email = %s', (user,)))
            else:
                statements.append(('SELECT * FROM session_admin.invalidate_user(%s, application => %s)',
                                   (user, self.rng.choice(APPLICATIONS))))
        return statements

    def roll_back(self):
        self.attempt('roll_back', lambda: self.db.transaction(self.endings(self.rng.randrange(1, 4)), end='ROLLBACK'))

    def savepoint(self):
        session = self.one(self.live())
        if session is None:
            return
        self.attempt('savepoint', lambda: self.ending.transaction(
            [('SAVEPOINT a', ()), *self.endings(1), ('ROLLBACK TO a', ()), ('SAVEPOINT b', ()),
             ('SELECT session_admin.close_session(%s, %s)', (sha256(session.sid), session.application)),
             ('RELEASE b', ())]), ends=[session], reason='logout')

    def together(self):
        """One session opens and another ends, or neither."""
        session, sid, user = self.one(self.live('api')), self.sid(), self.rng.choice(self.users)
        if session is None:
            return
        self.attempt('together', lambda: self.db.transaction(
            [('SELECT session_admin.open_session(%s::text, %s, client_address => %s, node => %s, application => %s)',
              (sid, user, f'10.0.{self.number}.1', self.name, 'api')),
             ('SELECT session_admin.close_session(%s, %s)', (sha256(session.sid), session.application))]),
            opens=[(sid, 'api', user, 'api', None)], ends=[session], reason='logout')

    def maintain(self):
        self.attempt('maintain', lambda: self.other.run('SELECT count(*) FROM session_admin.maintain()'))

    def reconcile(self):
        if self.options.reconcile:
            self.attempt('reconcile', lambda: self.other.run(self.options.reconcile))

    def choose_operations(self):
        weights = {
            'open': 12, 'renew': 3, 'close': 4, 'reauthenticate': 2, 'login_failed': 1,
            'invalidate_session': 3, 'invalidate_user': 3, 'invalidate_sessions': 2, 'invalidate_application': 0.2,
            'invalidate_all': 0.03, 'issue': 3, 'redeem': 6, 'redeem_ancestor': 0.5, 'redeem_ended': 1, 'revoke': 0.5,
            'product_login': 14, 'product_visit': 3, 'product_request': 8, 'product_new_id': 2, 'product_logout': 4,
            'product_expire': 1, 'product_swap': 1, 'password': 2, 'block': 0.5, 'delete_user': 0.5, 'bring_back': 2,
            'delete_by_hand': 1, 'roll_back': 2, 'savepoint': 1, 'together': 2, 'maintain': 0.05, 'reconcile': 0.05,
        }
        for name in self.options.without:
            weights.pop(name, None)
        if self.options.only:
            weights = {name: w for name, w in weights.items() if name in self.options.only}
        self.opening = [n for n in ('open', 'product_login') if n in weights]
        return list(weights), list(weights.values())

    def run(self):
        names, weights = self.operations
        n = 0
        while self.shared.stop.value < 2:
            n += 1
            name = self.rng.choices(names, weights)[0]
            if self.opening and len(self.ledger.live) < LIVE / 2 and self.rng.random() < 0.5:
                name = self.rng.choice(self.opening)
            elif len(self.ledger.live) > LIVE * 1.5 and name in self.opening:
                name = 'invalidate_user'
            if self.shared.hush.value:
                name = self.rng.choice([n for n in ENDINGS if n in names] or names)
            getattr(self, name)()
            self.count.alive()
            if n % CHECK_EVERY == 0 and not self.shared.hush.value:
                self.some_check()
            losses = sum(db.losses for db in (self.db, self.other, self.ending, self.by_row))
            if losses != self.losses:
                self.losses = losses
                self.check_after_crash()
        self.look(list(self.ledger.maybe.values()))
        for db in (self.db, self.other, self.ending, self.by_row, self.old):
            db.close()

    def main(self):
        try:
            self.run()
        except Lost:
            pass
        except Exception:
            self.bad('error', traceback.format_exc())
            raise


class NotDone(Exception):
    """What was tried came to nothing, and that is right."""

    def __init__(self, result=None):
        super().__init__()
        self.result = result
