"""A witness: another process, with other connections, that reads the journals of all writers,
asks for what they opened and ended, and judges the answers."""

import os
import random
import time
import traceback

from database import Database, Failed, Lost
from journal import Journal, Tail
from ledger import Ledger, Recent
from shared import APPLICATIONS, Count, now
from writer import sha256

AT_ONCE = 100


class Witness:
    def __init__(self, shared, process, number, options):
        self.shared, self.number, self.options = shared, number, options
        self.rng = random.Random(f'{options.seed} witness {number}')
        self.recent = Recent(self.rng)
        self.count = Count(shared, process)
        self.journal = Journal(os.path.join(options.journals, f'witness{number}'))
        self.databases = [Database(f'soak witness {number}', shared),
                          Database(f'soak witness {number}', shared, ['SET session_admin.use_shared_memory = off'])]
        self.tails = [(f'w{w}', Tail(os.path.join(options.journals, f'w{w}'))) for w in range(options.writers)]
        self.ledger = Ledger(shared)
        self.told = set()

    def read(self):
        for writer, tail in self.tails:
            for record in tail.read():
                self.ledger.apply(record, writer)

    def ask(self, db):
        application = self.rng.choice(APPLICATIONS)
        live = [s for s in self.ledger.live.values() if s.application == application and s.how != 'token']
        ended = [s for s in self.recent.pick(self.ledger.ended, AT_ONCE)
                 if s.application == application and s.how != 'token']
        sessions = self.rng.sample(live, min(len(live), AT_ONCE)) + ended
        start = now()
        (refused,), = db.run('SELECT session_admin.touch_sessions(%s, application => %s)',
                             ([sha256(s.sid) for s in sessions], application))
        end = now()
        refused = {bytes(r) for r in refused}
        self.count.add('touch', len(sessions))
        # what was under way meanwhile is in the journals now
        self.read()
        for session in sessions:
            valid = sha256(session.sid) not in refused
            verdict = self.ledger.judge(session, valid, start, end)
            if verdict is None:
                self.count.add('judged_live' if valid else 'judged_ended')
            elif verdict and session.sid not in self.told:
                self.told.add(session.sid)
                self.count.bad(verdict)
                self.journal.write('bad', verdict, f'witness: {session.how} session {session.sid} of {session.user} in'
                                   f' {session.application} is {"valid" if valid else "refused"}, but {session.state}'
                                   f' since {session.open_end}, {session.end_end}, {session.reasons}')

    def main(self):
        try:
            while self.shared.stop.value < 2:
                self.read()
                try:
                    self.ask(self.rng.choice(self.databases))
                except Lost:
                    pass
                except Failed as error:
                    if not error.cancelled:
                        self.count.bad('error')
                        self.journal.write('bad', 'error', f'witness: {error.sqlstate} {error}')
                self.count.alive()
                time.sleep(0.05)
        except Exception:
            self.count.bad('error')
            self.journal.write('bad', 'error', traceback.format_exc())
            raise
