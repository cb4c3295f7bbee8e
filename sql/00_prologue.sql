/* session_admin: sessions, remember-me tokens and their history */

-- complain if the script is sourced in psql rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION session_admin" to load this file. \quit

-- Plain CREATE: a schema that somebody else prepared is refused, not used.
CREATE SCHEMA session_admin;
CREATE SCHEMA session_admin_internal;
COMMENT ON SCHEMA session_admin IS
'sessions of the applications'' users: who is logged in, who was, and ending them on every node';
COMMENT ON SCHEMA session_admin_internal IS
'what session_admin is made of: nobody has USAGE, and names and columns may change with each version';
