// A plain BullMQ application: `worker` runs jobs, and finishes the one in hand on SIGTERM; `send QUEUE` sends the tasks of a plan (JSON on standard
// input: a list of {task, at, seconds, mib, delay}; `at` in seconds from now, `delay` in seconds until it is due). Every sending, start and end of a task is written to the ledger.
"use strict";
const { randomUUID } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { hostname } = require("node:os");
const { Queue, Worker } = require("bullmq");
const Redis = require("ioredis");

const ledger = new Redis(process.env.LEDGER_URL);
const connection = new Redis(process.env.BROKER_URL, { maxRetriesPerRequest: null });
const prefix = process.env.KEY_PREFIX || "bull";
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

function put(event, task, run = "") {
  return ledger.rpush(process.env.LEDGER_KEY, JSON.stringify({ event, task, run, host: hostname(), at: Date.now() / 1000 }));
}

async function work({ data: { task, seconds, mib } }) {
  const run = randomUUID();
  await put("start", task, run);
  const block = Buffer.alloc((mib || 0) << 20, 1);
  await sleep(seconds);
  await put("done", task, run);
  return block.length;
}

async function send(name) {
  const plan = JSON.parse(readFileSync(0, "utf8")).sort((a, b) => a.at - b.at);
  const queue = new Queue(name, { connection, prefix });
  const begin = Date.now() / 1000;
  for (const item of plan) {
    await sleep(Math.max(0, begin + item.at - Date.now() / 1000));
    await put("sent", item.task);
    await queue.add("work", item, { removeOnComplete: true, delay: (item.delay || 0) * 1000 });
  }
  await queue.close();
  process.exit(0);
}

if (process.argv[2] === "send") {
  send(process.argv[3]);
} else {
  const worker = new Worker(process.env.QUEUE, work, { connection, prefix, concurrency: Number(process.env.CONCURRENCY || 1) });
  process.on("SIGTERM", async () => {
    await worker.close();
    process.exit(0);
  });
}
