"""What must be true, from what the journals say.

A session (or a remembered device, which counts as one) is

    new     its opening is under way
    maybe   the connection died while it was opened or ended: whoever looks next knows
    live    its opening has committed
    ended   its end has committed
    never   its opening has failed

What ends everybody of an application is not noted for each session, but in the events
that all processes share."""

from shared import APPLICATIONS, COMMITTED, EVERY_APPLICATION, FAILED


class Session:
    __slots__ = ('sid', 'application', 'user', 'how', 'state', 'open_start', 'open_end', 'end_start',
                 'end_end', 'reasons', 'pending', 'event', 'tokens', 'key', 'opening')

    def __init__(self, sid, application, user, how, key, at):
        self.sid, self.application, self.user, self.how, self.key = sid, application, user, how, key
        self.state = 'new'
        self.open_start, self.open_end, self.end_start, self.end_end = at, None, None, None
        self.reasons = []       # of the ends that were committed, or may have been
        self.pending = set()    # the ends that are under way
        self.event = 0          # the first event that may concern it
        self.tokens = []
        self.opening = None


class Try:
    __slots__ = ('op', 'opens', 'ends', 'reason', 'at')

    def __init__(self, op, opens, ends, reason, at):
        self.op, self.opens, self.ends, self.reason, self.at = op, opens, ends, reason, at


class Ledger:
    def __init__(self, shared):
        self.shared = shared
        self.sessions = {}
        self.live = {}
        self.maybe = {}
        self.ended = []         # in the order of their ends
        self.tries = {}
        self.records = {}       # of other kinds, by kind
        self.keeps = ()         # kinds that are kept

    def apply(self, record, writer=None):
        at, kind, *rest = record
        method = getattr(self, 'apply_' + kind, None)
        if method is not None:
            method(at, writer, *rest)
        elif kind in self.keeps:
            self.records.setdefault(kind, []).append((writer, record))

    def apply_try(self, at, writer, n, op, opens, ends, reason):
        self.tries[writer, n] = Try(op, [o[0] for o in opens], ends, reason, at)
        for sid, application, user, how, key in opens:
            # of a token it is known only afterwards
            session = Session(sid, application, user, how, key, key if how == 'token' else at)
            session.opening = (writer, n)
            self.sessions[sid] = session
        for sid in ends:
            session = self.sessions[sid]
            session.pending.add((writer, n))
            session.end_start = session.end_start or at

    def set_state(self, session, state, at):
        self.live.pop(session.sid, None)
        self.maybe.pop(session.sid, None)
        session.state = state
        if state == 'live':
            self.live[session.sid] = session
        elif state == 'maybe':
            self.maybe[session.sid] = session
        elif state == 'ended':
            session.end_end = at
            self.ended.append(session)
        else:
            session.end_end = at

    def apply_ok(self, at, writer, n):
        done = self.tries.pop((writer, n))
        for sid in done.opens:
            session = self.sessions[sid]
            session.open_end = at
            if session.state == 'new':
                self.set_state(session, 'live', at)
        for sid in done.ends:
            session = self.sessions[sid]
            session.pending.discard((writer, n))
            session.reasons.append(done.reason)
            if session.state != 'ended':
                self.set_state(session, 'ended', at)

    def apply_no(self, at, writer, n, why):
        done = self.tries.pop((writer, n))
        for sid in done.opens:
            self.set_state(self.sessions[sid], 'never', at)
        for sid in done.ends:
            self.sessions[sid].pending.discard((writer, n))

    def apply_lost(self, at, writer, n):
        done = self.tries.pop((writer, n))
        for sid in done.opens:
            self.set_state(self.sessions[sid], 'maybe', at)
        for sid in done.ends:
            session = self.sessions[sid]
            session.pending.discard((writer, n))
            session.reasons.append(done.reason)
            if session.state == 'live':
                self.set_state(session, 'maybe', at)

    def apply_seen(self, at, writer, valid, invalid):
        """Somebody looked: what was unknown is known from now on."""
        for sid in valid:
            session = self.sessions[sid]
            if session.state == 'maybe':
                session.open_end = session.open_end or at
                self.set_state(session, 'live', at)
        for sid in invalid:
            session = self.sessions[sid]
            if session.state in ('maybe', 'live'):
                opened = session.open_end is not None
                self.set_state(session, 'ended' if opened else 'never', at)

    def apply_token(self, at, writer, sid, token):
        self.sessions[sid].tokens.append(token)

    # what ended everybody

    def events_of(self, session, at):
        """Whether an event has ended it before that time, and whether one may have."""
        events, must, may = self.shared.events, False, False
        index = APPLICATIONS.index(session.application)
        opened = session.open_end if session.open_end is not None else float('inf')
        n = self.shared.n_events.value
        skipping = True
        for i in range(session.event, n):
            event = events[i]
            over = event.outcome in (COMMITTED, FAILED)
            concerns = event.application in (EVERY_APPLICATION, index)
            if not concerns or event.outcome == FAILED or (over and event.end < session.open_start):
                if skipping and over:
                    session.event = i + 1
                continue
            skipping = False
            if event.outcome == COMMITTED and event.end < at and event.start > opened:
                must = True
            else:
                may = True
        return must, may

    def survived(self, session, at):
        """It was valid at that time: what was over before has not ended it."""
        events = self.shared.events
        for i in range(session.event, self.shared.n_events.value):
            event = events[i]
            if event.outcome == FAILED or (event.outcome == COMMITTED and event.end < at):
                session.event = i + 1
            else:
                break

    def judge(self, session, valid, start, end):
        """What is wrong with an answer to a question that was asked from start to end: None if
        nothing is, False if nobody can tell."""
        if session.state in ('ended', 'never'):
            if session.end_end >= start:
                return False
            if not valid:
                return None
            return 'final' if session.state == 'ended' else 'half done'
        if session.state in ('new', 'maybe') or session.open_end >= start or session.pending:
            return False
        must, may = self.events_of(session, start)
        if valid:
            if must:
                return 'final'
            self.survived(session, start)
            return None if not may else False
        if not must and not may:
            return 'refused'
        return None if must else False

    def certain(self, session):
        """Is it live for sure, now?"""
        return (session.state == 'live' and not session.pending
                and self.events_of(session, float('inf')) == (False, False))


class Recent:
    """Sessions to ask for: the latest most often."""

    def __init__(self, rng):
        self.rng = rng

    def pick(self, items, n):
        size = len(items)
        if size <= n:
            return list(items)
        return [items[size - 1 - int(size * self.rng.random() ** 3)] for _ in range(n)]
