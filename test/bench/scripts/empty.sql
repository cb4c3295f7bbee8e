\set id random(1000000000000000001, 1000000000000000000 + :sessions)
SELECT bench.empty(:id::text);
