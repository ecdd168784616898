import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Any } from '../../proto/gen/google/protobuf/any.ts';
import { Execs } from './execs.ts';
import type { Exit } from './exit.ts';
import { TaskNews, readNews } from './news.ts';
import {
  DELETE_TOPIC,
  EXEC_STARTED_TOPIC,
  EXIT_TOPIC,
  START_TOPIC,
  deleteNotice,
  execStartedNotice,
  exitNotice,
  startNotice,
} from './notices.ts';

const END: Exit = { pid: 7, status: 3, exitedAt: { seconds: 5n, nanos: 1 } };

/** A task of the pid 7, and whether an event of its shim's is passed on. */
const berth = () => {
  const told: string[] = [];
  const execs = new Execs();
  const news = new TaskNews('a', execs, (topic) => void told.push(topic));
  const exited = () => {};
  const task = {
    pid: 7,
    exitPublished: false,
    news,
    exited,
    execExited: (id: string, exit: Exit) => execs.exited(id, exit),
  };
  const hear = (topic: string, event: Any): boolean => {
    const found = readNews({ namespace: 'ns', topic, event, timestamp: undefined }, (id) =>
      id === 'a' ? task : undefined,
    );
    if (found?.repeated === true) return false;
    found?.noted();
    return true;
  };
  return { told, execs, news, hear };
};

test('starts that a shim has answered and not told are told in its place, once', async () => {
  const { told, execs, news, hear } = berth();
  execs.added('x');
  news.started('', 7);
  news.started('x', 8);
  assert.equal(news.complete, false);
  await news.tellStarts();
  await news.tellStarts();
  assert.deepEqual(told, [START_TOPIC, EXEC_STARTED_TOPIC]);
  assert.equal(hear(START_TOPIC, startNotice('a', 7)), false, 'last words');
  assert.equal(hear(EXEC_STARTED_TOPIC, execStartedNotice('a', 'x', 8)), false, 'last words');
});

test('a start is not told again that the shim has told, before its answer was heard or after', async () => {
  const { told, execs, news, hear } = berth();
  for (const id of ['early', 'late']) execs.added(id);
  assert.equal(hear(START_TOPIC, startNotice('a', 7)), true);
  news.started('', 7);
  assert.equal(hear(EXEC_STARTED_TOPIC, execStartedNotice('a', 'early', 8)), true);
  for (const [id, pid] of [
    ['early', 8],
    ['late', 9],
    ['of a daemon before', 10],
  ] as const)
    news.started(id, pid);
  assert.equal(hear(EXEC_STARTED_TOPIC, execStartedNotice('a', 'late', 9)), true);
  await news.tellStarts();
  assert.deepEqual(told, []);
});

test('an exec of a name that was used before is told of', async () => {
  const { told, execs, news, hear } = berth();
  execs.added('x');
  news.started('x', 8);
  assert.equal(hear(EXEC_STARTED_TOPIC, execStartedNotice('a', 'x', 8)), true);
  // Its deletion and the next addition were cut off.
  assert.equal(hear(EXEC_STARTED_TOPIC, execStartedNotice('a', 'x', 9)), true);
  execs.added('x');
  news.started('x', 10);
  await news.tellStarts();
  assert.deepEqual(told, [EXEC_STARTED_TOPIC]);
});

test('an exec that is deleted is forgotten, once its start has been told', async () => {
  const { told, execs, news, hear } = berth();
  for (const id of ['owed', 'told', 'silent']) execs.added(id);
  for (const id of ['owed', 'told', 'silent']) news.started(id, 8);
  hear(EXEC_STARTED_TOPIC, execStartedNotice('a', 'told', 8));
  for (const id of ['owed', 'told', 'silent']) execs.deleted(id);
  assert.deepEqual(execs.owedStarts(), [
    ['owed', 8],
    ['silent', 8],
  ]);
  assert.equal(execs.endOf('owed', END), undefined);
  assert.equal(hear(EXEC_STARTED_TOPIC, execStartedNotice('a', 'owed', 8)), true);
  await news.tellStarts();
  assert.deepEqual(told, [EXEC_STARTED_TOPIC]);
  assert.deepEqual(execs.owedStarts(), []);
  assert.equal(news.complete, true);
});

test('the deletion is told by the shim or in its place, and is not taken for that of another task', async () => {
  const { told, news, hear } = berth();
  assert.equal(hear(DELETE_TOPIC, deleteNotice('a', { ...END, pid: 6 })), true, 'one before of its name');
  await news.tellDeletion(END);
  await news.tellDeletion(END);
  assert.deepEqual(told, [DELETE_TOPIC]);
  assert.equal(hear(DELETE_TOPIC, deleteNotice('a', END)), false);
  const other = berth();
  assert.equal(other.hear(DELETE_TOPIC, deleteNotice('a', END)), true);
  await other.news.tellDeletion(END);
  assert.deepEqual(other.told, []);
});

test('an exec with an end that was not told leaves the news incomplete', () => {
  const { execs, news, hear } = berth();
  execs.added('x');
  assert.equal(news.complete, true, 'it was never started');
  news.started('x', 8);
  hear(EXEC_STARTED_TOPIC, execStartedNotice('a', 'x', 8));
  assert.equal(news.complete, false);
  assert.equal(hear(EXIT_TOPIC, exitNotice('a', 'x', { ...END, pid: 8 })), true);
  assert.equal(news.complete, true);
});
