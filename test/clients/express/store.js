'use strict';

// The store of connect-pg-simple behind a cache that is right: an entry stays until the feed
// says that its session has ended, and is used only while the lease runs.
//
// This application writes to a session only when its user logs in.  If yours writes more often,
// another node's entry would be old: keep the user in the cache, and read the rest.

const { createHash } = require('node:crypto');
const { callbackify, promisify } = require('node:util');
const PgStore = require('connect-pg-simple')(require('express-session'));
const Feed = require('./feed');

const REPORT_INTERVAL = 10000;

const sha256 = (sid) => createHash('sha256').update(sid).digest('hex');

class CachedStore extends PgStore {
  constructor({ pool, node, application }) {
    // a session's time limits are those of session_admin, and cost no write per request
    super({ pool, createTableIfMissing: true, disableTouch: true });
    Object.assign(this, { pool, application, entries: new Map(), applied: 0, hits: 0, asked: 0 });
    this.feed = new Feed(node, application, (row) => this.forget(row));
    this.following = this.feed.run();
    this.reporting = setInterval(() => this.report().catch(console.error), REPORT_INTERVAL);
  }

  get(sid, callback) {
    callbackify(() => this.read(sid))(callback);
  }

  async read(sid) {
    const entry = this.feed.trusted() ? this.entries.get(sha256(sid)) : undefined;

    if (entry) {
      this.hits += 1;
      entry.requests += 1;
      return JSON.parse(entry.json);
    }

    // The cache rule: the answer is kept only if nothing was applied while we asked.
    const { applied } = this;
    const session = await this.ask(sid);
    if (session && this.applied === applied) {
      this.entries.set(sha256(sid),
        { sid, user: session.user, json: JSON.stringify(session), requests: 0 });
    }
    return session;
  }

  async ask(sid) {
    const { rows } = await this.pool.query('SELECT session_admin.touch_session($1) AS valid', [sid]);

    this.asked += 1;
    return rows[0].valid ? promisify(super.get).call(this, sid) : null;
  }

  // One row of the feed, which has those of all applications
  forget({ scope, application, user_name: user, session }) {
    this.applied += 1;
    if (scope !== 'all' && application !== this.application) {
      return;
    }
    if (scope === 'session') {
      this.entries.delete(session);
    } else if (scope === 'user') {
      // this session goes on, if one is named
      this.entries.forEach((entry, hash) => {
        if (entry.user === user && hash !== session) {
          this.entries.delete(hash);
        }
      });
    } else if (scope !== 'token') {
      this.entries.clear();
    }
  }

  // Requests that were answered from the cache count too, and keep a session from being idle.
  async report() {
    const used = [...this.entries.values()].filter((entry) => entry.requests > 0);
    const requests = used.map((entry) => entry.requests);

    used.forEach((entry) => { entry.requests = 0; });
    const { rows } = await this.pool.query('SELECT session_admin.touch_sessions($1::text[], $2) AS ended',
      [used.map((entry) => entry.sid), requests]);
    rows[0].ended.forEach((sid) => this.entries.delete(sha256(sid)));
  }

  set(sid, session, callback) {
    this.applied += 1;
    this.entries.delete(sha256(sid));
    super.set(sid, session, callback);
  }

  destroy(sid, callback) {
    this.entries.delete(sha256(sid));
    this.pool.query('SELECT session_admin.close_session($1)', [sid])
      .then(() => super.destroy(sid, callback), callback);
  }

  async close() {
    clearInterval(this.reporting);
    this.feed.stop();
    await this.following;
    await this.report();
    await super.close();
  }
}

module.exports = CachedStore;
