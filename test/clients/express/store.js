'use strict';

// The store of connect-pg-simple behind a cache that is right: an entry stays until the feed
// says that its session has ended, and is used only while the lease runs.
//
// What is written to a session drops the entry of the node that writes, and no other's: what a page
// counts may be old on another node, whose session it is may not.  If that matters, keep the user in
// the cache, and read the rest.

const { createHash } = require('node:crypto');
const { callbackify, promisify } = require('node:util');
const PgStore = require('connect-pg-simple')(require('express-session'));
const Feed = require('./feed');

const REPORT_INTERVAL = 10000;
const TIME_LIMIT = '1 day';

const sha256 = (sid) => createHash('sha256').update(sid).digest('hex');

class CachedStore extends PgStore {
  constructor({ pool, node, application }) {
    // the time limit of a session moves by report(), not with each request
    super({ pool, disableTouch: true });
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
      entry.used = true;
      return JSON.parse(entry.json);
    }

    // The cache rule: the answer is kept only if nothing was applied while we asked.
    const { applied } = this;
    const session = await promisify(super.get).call(this, sid);
    this.asked += 1;
    if (session && this.applied === applied) {
      this.entries.set(sha256(sid),
        { sid, user: session.passport?.user, json: JSON.stringify(session), used: true });
    }
    return session;
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

  // One statement for all sessions that were used, however often
  async report() {
    const used = [...this.entries.values()].filter((entry) => entry.used);

    used.forEach((entry) => { entry.used = false; });
    await this.pool.query('UPDATE session SET expire = now() + $2::interval WHERE sid = ANY ($1)',
      [used.map((entry) => entry.sid), TIME_LIMIT]);
  }

  set(sid, session, callback) {
    this.applied += 1;
    this.entries.delete(sha256(sid));
    super.set(sid, session, callback);
  }

  destroy(sid, callback) {
    this.applied += 1;
    this.entries.delete(sha256(sid));
    super.destroy(sid, callback);
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
