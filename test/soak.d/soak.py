#!/usr/bin/python3
"""Runs the processes of test/tools/soak against a server that test/tools/soak has made, and tells what
they found.  See test/tools/soak for what is checked."""

import argparse
import glob
import multiprocessing
import os
import re
import subprocess
import sys
import time

import psycopg2

from chaos import Chaos
from doctor import Doctor
from final import Final
from journal import Tail
from node import Node
from shared import AFTERWARDS, CHECKED, CRASHES, JUDGED, KINDS, Shared, now
from witness import Witness
from writer import USERS, Writer

STUCK = 150     # seconds after which a process that does nothing is a violation
SHOWN = 10      # violations of a kind


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', default='1')
    parser.add_argument('--operations', type=int, default=1_000_000)
    parser.add_argument('--crashes', type=int, default=100)
    parser.add_argument('--minutes', type=float, default=0)
    parser.add_argument('--writers', type=int, default=8)
    parser.add_argument('--nodes', type=int, default=3)
    parser.add_argument('--witnesses', type=int, default=2)
    parser.add_argument('--patience', type=float, default=150)
    parser.add_argument('--clock-phases', type=int, default=5)
    parser.add_argument('--without', type=lambda s: s.split(','), default=[])
    parser.add_argument('--only', type=lambda s: s.split(','), default=[])
    parser.add_argument('--until', help='stop at the first violation of this kind')
    parser.add_argument('--clock', required=True, help='the library to preload, see clock.c')
    parser.add_argument('--data', required=True)
    parser.add_argument('--log', required=True)
    parser.add_argument('--work', required=True)
    options = parser.parse_args()
    options.users = USERS
    options.journals = os.path.join(options.work, 'journals')
    return options


def set_up(options):
    """Make the database; its clock is right."""
    here = os.path.dirname(os.path.abspath(__file__))
    subprocess.run(['psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'postgres', '-v', f'writers={options.writers}',
                    '-v', f'users={options.users}', '-v', f'products={os.path.dirname(here)}/products',
                    '-o', os.path.join(options.work, 'set_up.out'), '-f', os.path.join(here, 'schema.sql')], check=True,
                   env={**os.environ, 'PGOPTIONS': '-c client_min_messages=warning'})
    connection = psycopg2.connect(dbname='postgres')
    cursor = connection.cursor()
    cursor.execute("SELECT prokind = 'p' FROM pg_proc WHERE pronamespace = 'session_admin'::regnamespace"
                   " AND proname = 'reconcile_sessions'")
    rows = cursor.fetchall()
    options.reconcile = None if not rows else ('CALL session_admin.reconcile_sessions()' if rows[0][0]
                                               else 'SELECT count(*) FROM session_admin.reconcile_sessions()')
    cursor.execute('SELECT coalesce(max(id), 0) FROM session_admin_internal.invalidation')
    options.first_invalidation, = cursor.fetchone()
    connection.close()


class Run:
    def __init__(self, options):
        self.options = options
        count = options.writers + options.nodes + options.witnesses + 3
        self.shared = Shared(count)
        self.shared.started_at.value = now()
        self.processes = []     # (name, stops at, process)
        slots = iter(range(count))
        self.chaos = Chaos(self.shared, next(slots), options)
        self.final = next(slots)
        workers = [('doctor', Doctor(self.shared, next(slots), options))]
        workers += [(f'w{n}', Writer(self.shared, next(slots), n, options)) for n in range(options.writers)]
        workers += [(f'n{n}', Node(self.shared, next(slots), n, options)) for n in range(options.nodes)]
        workers += [(f'witness{n}', Witness(self.shared, next(slots), n, options)) for n in range(options.witnesses)]
        self.workers = workers
        self.names = {0: 'chaos', **{worker.count.process: name for name, worker in workers}}
        self.stuck = set()

    def fork(self, name, worker):
        def main():
            # what libpq says when a connection dies
            file = os.open(os.path.join(self.options.work, 'stderr'), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(file, 2)
            worker.main()
        process = multiprocessing.Process(target=main, name=name)
        process.start()
        self.processes.append(process)
        return process

    def go_on(self):
        options, shared = self.options, self.shared
        if self.over or (options.minutes and now() > self.started + options.minutes * 60e9):
            return False
        if options.until and any(shared.violations(k) for k, letter in KINDS.items()
                                 if options.until in (k, letter)):
            return False
        return shared.operations() < options.operations or shared.crashes() < options.crashes

    def watch(self):
        """Does each process still do something?"""
        for slot, name in self.names.items():
            at = self.shared.alive_at[slot]
            if at and now() > at + STUCK * 1e9 and name not in self.stuck:
                self.stuck.add(name)
                print(f'{name} has done nothing for {STUCK} seconds:', flush=True)
                subprocess.run(['psql', '-X', '-d', 'postgres', '-c', 'SELECT pid, application_name, state, wait_event,'
                                ' now() - xact_start AS transaction, pg_blocking_pids(pid), left(query, 100) AS query'
                                " FROM pg_stat_activity WHERE application_name LIKE 'soak%' ORDER BY 2"], timeout=60)
                self.over = True
        for process in self.processes:
            if process.exitcode:
                print(f'{process.name} has ended with {process.exitcode}', flush=True)
                self.over = True

    def line(self):
        shared = self.shared
        print(f'{(now() - self.started) / 1e9:6.0f} s: {shared.operations()} operations checked, {shared.crashes()} crashes,'
              f' {shared.violations()} violations', flush=True)

    def main(self):
        self.started, self.over = now(), False
        set_up(self.options)
        for slot in self.names:
            self.shared.alive_at[slot] = now()
        # nodes come first, so that they are told of all
        for name, worker in sorted(self.workers, key=lambda w: not isinstance(w[1], Node)):
            if not isinstance(worker, Node):
                while not all(self.shared.synced_at[n] for n in range(self.options.nodes)):
                    time.sleep(0.01)
            self.fork(name, worker)
        chaos = self.fork('chaos', self.chaos)
        told = now()
        while self.go_on():
            time.sleep(0.2)
            self.watch()
            if now() > told + 10e9:
                told = now()
                self.line()
        # the server stays up; writers come to their end, then nodes
        self.shared.stop.value = 1
        chaos.join(400)
        self.shared.stop.value = 2
        deadline = now() + 120e9
        nodes = [p for p in self.processes if p.name.startswith('n')]
        for process in [p for p in self.processes if p not in nodes] + nodes:
            if process in nodes:
                self.shared.stop.value = 3
            process.join(max(0.1, (deadline - now()) / 1e9))
        unfinished = [p for p in self.processes if p.is_alive()]
        self.shared.stop.value = 4
        for process in unfinished:
            process.terminate()
            process.join()
        final = Final(self.shared, self.final, self.options)
        for process in unfinished:
            final.bad('stuck', f'{process.name} does not come to its end')
        for name in self.stuck:
            final.bad('stuck', f'{name} did nothing for {STUCK} seconds')
        final.main()
        self.read_log(final)
        return self.report()

    def read_log(self, final):
        """What nobody was told but the log"""
        pattern = re.compile(r'PANIC:|TRAP:|terminated by signal (?!9:|3:)|XX\d\d\d')
        with open(self.options.log, errors='replace') as file:
            for line in file:
                if pattern.search(line):
                    final.bad('server', line.strip())

    def violations(self):
        found = {}
        for path in sorted(glob.glob(os.path.join(self.options.journals, '*'))):
            for _, kind, *rest in Tail(path).read():
                if kind == 'bad':
                    found.setdefault(rest[0], []).append(rest[1])
        return found

    def report(self):
        shared, options = self.shared, self.options
        found = self.violations()
        for kind in found:
            print(f'\n-- {kind} ({KINDS[kind]}): {len(found[kind])}')
            for text in found[kind][:SHOWN]:
                print(f'   {text}')
        print(f'\nIn {(now() - self.started) / 1e9:.0f} seconds, with seed {options.seed}:\n')

        def table(title, names):
            print(title)
            for name in names:
                if shared.total(name):
                    print(f'  {name.removeprefix("judged_").replace("_", " "):24} {shared.total(name):10}')
        table('operations', CHECKED)
        table('answers judged', [name for name in JUDGED if name not in AFTERWARDS])
        table('judged afterwards, from the journals', AFTERWARDS)
        table('chaos', (*CRASHES, 'stop_fast', 'cancel', 'clock_step'))
        table('which failed, came to nothing or got lost', ('cancelled', 'refused', 'lost'))
        print('violations, by kind')
        letters = sorted(set(KINDS.values()))
        for letter in letters:
            kinds = [k for k in KINDS if KINDS[k] == letter]
            print(f'  ({letter}) {", ".join(kinds):60} {sum(shared.violations(k) for k in kinds):6}')
        print(f'\n{shared.operations()} operations checked, {shared.crashes()} crashes,'
              f' {shared.violations()} violations, seed {options.seed}')
        return 1 if shared.violations() else 0


if __name__ == '__main__':
    multiprocessing.set_start_method('fork')
    sys.exit(Run(arguments()).main())
