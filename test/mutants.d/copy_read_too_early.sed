# src/policy/application.c: what was read while a change was under way is kept as if it was over
s/return \*version == finished;/return finished <= *version;/
