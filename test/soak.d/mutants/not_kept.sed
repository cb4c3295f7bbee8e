# ending.c (b): the session that is to be kept ends, too
s/session_hash IS DISTINCT FROM \$3/($3::bytea IS NULL OR session_hash IS NOT NULL)/
