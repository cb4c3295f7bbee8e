'use strict';

// An application with login and logout:  node app.js NODE PORT
// The database is where the environment says (PGHOST, PGDATABASE, ...).  There, the table of
// connect-pg-simple is watched:  SELECT * FROM session_admin.attach_application('connect_pg_simple');

const { setTimeout: delay } = require('node:timers/promises');
const { promisify } = require('node:util');
const express = require('express');
const session = require('express-session');
const { Pool } = require('pg');
const CachedStore = require('./store');

const [node, port] = process.argv.slice(2);
const application = 'express';
const passwords = { alice: 'wonderland', bruno: 'process' };

const pool = new Pool({
  connectionTimeoutMillis: 5000,
  query_timeout: 5000,
  options: `-c session_admin.application=${application}`,
});
pool.on('error', (error) => console.error(`pool: ${error.message}`));
const store = new CachedStore({ pool, node, application });

const app = express();
app.use(express.urlencoded());
app.use(session({ store, secret: process.env.SESSION_SECRET, resave: false, saveUninitialized: false }));

app.get('/', (req, res) => {
  if (req.session.passport) {
    res.json({ user: req.session.passport.user });
  } else {
    res.sendStatus(401);
  }
});

// A page that takes its time, and writes to the session: the store saves it when the page is done,
// be the session ended meanwhile or not.
app.get('/page', async (req, res) => {
  if (!req.session.passport) {
    res.sendStatus(401);
    return;
  }
  req.session.views = (req.session.views ?? 0) + 1;
  await delay(30);
  res.json({ user: req.session.passport.user });
});

app.post('/login', async (req, res) => {
  const { user, password } = req.body;
  const client = [user, req.socket.remoteAddress, req.get('x-forwarded-for'), req.get('user-agent')];

  if (!Object.hasOwn(passwords, user) || password !== passwords[user]) {
    // all else the table of sessions tells
    await pool.query('SELECT session_admin.login_failed($1, $2, $3, $4)', client);
    res.sendStatus(401);
    return;
  }
  await promisify(req.session.regenerate).call(req.session);
  req.session.passport = { user }; // where Passport keeps it
  await promisify(req.session.save).call(req.session);
  res.sendStatus(204);
});

app.post('/logout', async (req, res) => {
  await promisify(req.session.destroy).call(req.session);
  res.sendStatus(204);
});

app.get('/cache', (req, res) => {
  res.json({ entries: store.entries.size, hits: store.hits, asked: store.asked });
});

// session_admin's SQLSTATEs PT409 and the like are HTTP's 409
app.use((error, req, res, next) => {
  const [, status] = /^PT(\d{3})$/.exec(error.code) ?? [];

  console.error(error.message);
  res.sendStatus(Number(status ?? 503));
});

const server = app.listen(port, '127.0.0.1');

process.on('SIGTERM', async () => {
  server.close();
  await store.close();
  await pool.end();
});
