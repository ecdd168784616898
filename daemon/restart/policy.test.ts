import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BackOff, FIRST_DELAY_MS, HEALTHY_AFTER_MS, MAX_DELAY_MS } from './back-off.ts';
import { COUNT, EXPLICITLY_STOPPED, PENDING, POLICY, STATUS, decide, logOf, parsePolicy } from './policy.ts';

const absent = { kind: 'absent' } as const;
const alive = { kind: 'alive' } as const;
const ended = (exitStatus: number) => ({ kind: 'stopped', pid: 7, exitStatus }) as const;

const running = (more: Record<string, string> = {}) => ({ [STATUS]: 'running', ...more });
const withPolicy = (policy: string, more: Record<string, string> = {}) =>
  running({ [POLICY]: policy, ...more });

describe('what the labels ask for', () => {
  it('running: what has ended or has no task is started, and nothing else is touched', () => {
    assert.equal(decide(running(), ended(0)), 'start');
    assert.equal(decide(running(), absent), 'start');
    assert.equal(decide(running(), alive), 'leave');
    assert.equal(decide(running(), { kind: 'created' }), 'leave');
    assert.equal(decide(running(), { kind: 'unknown' }), 'leave');
    assert.equal(decide({}, absent), 'leave');
    assert.equal(decide({ [STATUS]: 'dancing' }, absent), 'leave');
  });

  it('stopped: what runs is stopped', () => {
    assert.equal(decide({ [STATUS]: 'stopped' }, alive), 'stop');
    assert.equal(decide({ [STATUS]: 'stopped' }, ended(1)), 'leave');
    assert.equal(decide({ [STATUS]: 'stopped' }, absent), 'leave');
  });

  it('on-failure: failures only, as often as it says', () => {
    assert.equal(decide(withPolicy('on-failure'), ended(0)), 'leave');
    assert.equal(decide(withPolicy('on-failure'), absent), 'leave');
    assert.equal(decide(withPolicy('on-failure'), ended(1)), 'start');
    assert.equal(decide(withPolicy('on-failure:2', { [COUNT]: '1' }), ended(1)), 'start');
    assert.equal(decide(withPolicy('on-failure:2', { [COUNT]: '2' }), ended(1)), 'leave');
  });

  it('on-failure: a start that was cut off is carried through, one that failed counts', () => {
    const begun = { [COUNT]: '2', [PENDING]: '7' };
    assert.equal(decide(withPolicy('on-failure:2', begun), absent), 'start');
    assert.equal(decide(withPolicy('on-failure:2', begun), { kind: 'created' }), 'start');
    assert.equal(decide(withPolicy('on-failure:2', begun), ended(1)), 'start');
    const next = { kind: 'stopped', pid: 8, exitStatus: 1 } as const;
    assert.equal(
      decide(withPolicy('on-failure:2', begun), next),
      'leave',
      'it has been started, and has ended',
    );
    assert.equal(decide(withPolicy('on-failure:2', { [COUNT]: '2', [PENDING]: 'failed' }), absent), 'leave');
    assert.equal(decide(withPolicy('on-failure:3', { [COUNT]: '2', [PENDING]: 'failed' }), absent), 'start');
  });

  it('unless-stopped, no, and what is no policy', () => {
    assert.equal(decide(withPolicy('unless-stopped'), ended(0)), 'start');
    assert.equal(decide(withPolicy('unless-stopped', { [EXPLICITLY_STOPPED]: 'true' }), ended(0)), 'leave');
    assert.equal(decide(withPolicy('always', { [EXPLICITLY_STOPPED]: 'true' }), ended(0)), 'start');
    assert.equal(decide(withPolicy('no'), ended(1)), 'leave');
    assert.equal(decide(withPolicy('sometimes'), ended(1)), 'leave');
    assert.deepEqual(parsePolicy('on-failure:7'), { kind: 'on-failure', maximum: 7 });
    assert.equal(parsePolicy('on-failure:x'), undefined);
  });

  it('logs to a URI, or to a path as older clients say it', () => {
    assert.equal(logOf({}), '');
    assert.equal(logOf({ 'containerd.io/restart.logpath': '/var/log/a b' }), 'file:///var/log/a%20b');
    const both = {
      'containerd.io/restart.logpath': '/a',
      'containerd.io/restart.loguri': 'binary:///b?c=d',
    };
    assert.equal(logOf(both), 'binary:///b?c=d');
  });
});

describe('the wait before a start', () => {
  it('doubles to a maximum while a container keeps ending, and begins anew after a healthy time', () => {
    const backOff = new BackOff();
    assert.equal(backOff.next(0), FIRST_DELAY_MS);
    backOff.started(100);
    assert.equal(backOff.next(200), 2 * FIRST_DELAY_MS);
    backOff.started(500);
    assert.equal(backOff.next(600), 4 * FIRST_DELAY_MS);
    for (let round = 0; round < 20; round += 1) assert.ok(backOff.failed() <= MAX_DELAY_MS);
    assert.equal(backOff.delay, MAX_DELAY_MS);
    backOff.started(1000);
    assert.equal(backOff.next(1000 + HEALTHY_AFTER_MS), FIRST_DELAY_MS);
  });
});
