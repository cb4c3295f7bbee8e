"""A journal a process: one JSON array a line, [time, kind, ...].  A line is one write to a
file opened for appending, so that others read it while it grows, and it stays when the
process is killed."""

import json
import os
import threading

from shared import now


class Journal:
    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.lock = threading.RLock()

    def write(self, *record):
        line = [now(), *record]
        os.write(self.file, (json.dumps(line, separators=(',', ':')) + '\n').encode())
        return line


class Tail:
    """What was added since it was asked last."""

    def __init__(self, path):
        self.path, self.file, self.rest = path, None, b''

    def read(self):
        if self.file is None:
            try:
                self.file = open(self.path, 'rb', buffering=0)
            except FileNotFoundError:
                return
        while chunk := self.file.read(1 << 20):
            *lines, self.rest = (self.rest + chunk).split(b'\n')
            for line in lines:
                yield json.loads(line)
