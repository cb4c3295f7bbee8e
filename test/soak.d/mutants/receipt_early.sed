# wait.c (c): what was handed to a node is taken for applied
s/pg_visible_in_snapshot(\$1, applied)/pg_visible_in_snapshot($1, handed)/
