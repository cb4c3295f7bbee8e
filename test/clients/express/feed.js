'use strict';

// Follows the feed of session_admin as a node: what has ended is handed to apply(), row by row.

const { setTimeout: delay } = require('node:timers/promises');
const pg = require('pg');

const SYNC = `
  SELECT applied, id, scope, application, user_name, encode(session_hash, 'hex') AS session,
         extract(epoch FROM lease)::float8 * 1000 AS lease
  FROM session_admin.sync_node($1, $2::pg_snapshot)`;

class Feed {
  constructor(node, application, apply) {
    Object.assign(this, { node, application, apply, position: null, trustedUntil: 0, stopped: false });
    this.ring = () => {};
  }

  // The lease rule, by a clock that nobody sets: may the cache be used?
  trusted() {
    return !this.stopped && performance.now() < this.trustedUntil;
  }

  async run() {
    while (!this.stopped) {
      try {
        await this.follow();
      } catch (error) {
        console.error(`feed: ${error.message}`);
        await delay(500);
      }
    }
  }

  // Over a connection of its own: a pool would hand it, and its LISTEN, to others.
  async follow() {
    const client = new pg.Client({ connectionTimeoutMillis: 5000, query_timeout: 5000 });

    client.on('notification', () => this.ring());
    client.on('error', () => this.ring()); // the next query fails
    try {
      await client.connect();
      await client.query('LISTEN session_admin');
      // only once: with the position that it holds, a node that was cut off goes on where it was
      this.position ??= await this.join(client);
      while (!this.stopped) {
        await this.sync(client);
      }
      await client.query('SELECT session_admin.leave_node($1)', [this.node]);
    } finally {
      client.end().catch(() => {});
    }
  }

  async join(client) {
    const { rows } = await client.query('SELECT session_admin.join_node($1, $2) AS position',
      [this.node, this.application]);
    return rows[0].position;
  }

  async sync(client) {
    const rung = new Promise((resolve) => { this.ring = resolve; }); // also while we fetch
    const started = performance.now();
    const { rows } = await client.query(SYNC, [this.node, this.position]);
    const news = rows.filter((row) => row.id !== null);

    news.forEach((row) => this.apply(row));
    this.position = rows[0].applied;
    this.trustedUntil = started + rows[0].lease;

    // if something was applied, what to do next is to say so
    if (news.length === 0 && !this.stopped) {
      const timer = setTimeout(this.ring, rows[0].lease / 3);
      await rung;
      clearTimeout(timer);
    }
  }

  stop() {
    this.stopped = true;
    this.ring();
  }
}

module.exports = Feed;
