/*
 * Late endings
 *
 * An invalidation waits for nobody's open transaction.  Where it cannot lock what it
 * ends, it says here that everything that was opened by then has ended.
 */

CREATE TABLE session_admin_internal.late_ending (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- null: of all applications, of all users, any session
    application     text COLLATE "C",
    user_name       text COLLATE "C",
    session_hash    bytea,
    -- a session that goes on
    keep_hash       bytea,
    -- and remember-me tokens
    tokens          boolean NOT NULL,
    -- what was opened by an earlier transaction has ended, committed or not
    before_xid      xid8 NOT NULL,
    at              timestamptz NOT NULL,
    reason          text NOT NULL,
    ended_by        text NOT NULL,
    actor           text
);
COMMENT ON TABLE session_admin_internal.late_ending IS
'what has ended although somebody had it locked, until housekeeping has archived it';

CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON session_admin_internal.late_ending
    FOR EACH STATEMENT EXECUTE FUNCTION session_admin_internal.policy_changed();
ALTER TABLE session_admin_internal.late_ending ENABLE ALWAYS TRIGGER policy_changed;

-- Without statistics it would be taken for some hundreds of rows, for each session.
ANALYZE session_admin_internal.late_ending;
