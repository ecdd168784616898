/**
 * The long storm; or, without kills, many containers. `--log FILE` keeps what the daemon has said.
 *
 *   npm run soak -- --seed 7 --kills daemon=100 shim=50 template=30 runtime=20 client=20 --clients 4 --porters 2 --pause 30
 *   npm run soak -- --containers 200
 *   npm run soak -- --cycles 1000
 *   npm run soak -- --execs 1000
 */
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { type Target, TARGETS } from './killer.ts';
import { type Load, manyAtOnce, manyCycles, manyExecs } from './load.ts';
import { type Report, storm } from './storm.ts';

const { values, positionals } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    kills: { type: 'string', multiple: true, default: ['daemon=20'] },
    clients: { type: 'string', default: '4' },
    porters: { type: 'string', default: '0' },
    pause: { type: 'string', default: '30' },
    log: { type: 'string' },
    containers: { type: 'string' },
    cycles: { type: 'string' },
    execs: { type: 'string' },
  },
  allowPositionals: true,
});
const { containers, cycles, execs } = values;
if (containers !== undefined) printLoad(await manyAtOnce(Number(containers)));
if (cycles !== undefined) printLoad(await manyCycles(Number(cycles)));
if (execs !== undefined) printLoad(await manyExecs(Number(execs)));
if (containers === undefined && cycles === undefined && execs === undefined) {
  printStorm(
    await storm({
      seed: Number(values.seed),
      kills: killsOf([...values.kills, ...positionals]),
      clients: Number(values.clients),
      porters: Number(values.porters),
      pause: Number(values.pause),
      log: values.log,
      progress: (what) => process.stderr.write(`${what}\n`),
    }),
  );
}

/** @param entries `daemon=100` */
function killsOf(entries: readonly string[]): Partial<Record<Target, number>> {
  const kills: Partial<Record<Target, number>> = {};
  for (const entry of entries) {
    const [target = '', count] = entry.split('=');
    const known = TARGETS.find((one) => one === target);
    if (known === undefined) throw new Error(`nothing to kill: ${entry}`);
    kills[known] = Number(count);
  }
  return kills;
}

function printStorm({
  done,
  returns,
  processes,
  events,
  images,
  repeated,
  harmed,
  ...findings
}: Report): void {
  const median = returns.toSorted((one, other) => one - other)[Math.floor(returns.length / 2)];
  const table = new Table({ head: ['', ''] });
  table.push(
    ['killed', TARGETS.map((target) => `${target} ${done[target]}`).join(', ')],
    ['processes', processes],
    ['events', events],
    ['images carried, commands repeated', `${images}, ${repeated}`],
    ['refused for want of what was killed', harmed],
    ['back to service, median', median === undefined ? '' : `${Math.round(median)} ms`],
    ...Object.entries(findings).map(([what, found]) => [what, found.length] as [string, number]),
  );
  process.stdout.write(`${table.toString()}\n`);
  for (const [what, found] of Object.entries(findings))
    for (const one of found) process.stdout.write(`${what}: ${one}\n`);
}

function printLoad({ took, weights }: Load): void {
  const times = new Table({ head: ['', 'ms'] });
  for (const [step, milliseconds] of Object.entries(took)) times.push([step, milliseconds]);
  const held = new Table({ head: ['', 'resident', 'private', 'heap', 'descriptors', 'threads'] });
  for (const [who, weight] of Object.entries(weights)) {
    const { resident, private: own, heap = '', descriptors, threads } = weight;
    held.push([who, resident, own, heap, descriptors, threads]);
  }
  process.stdout.write(`${times.toString()}\n${held.toString()}\nnothing left\n`);
}
