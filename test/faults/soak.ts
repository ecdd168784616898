/**
 * The long storm.
 *
 *   npm run soak -- --seed 7 --kills daemon=100 shim=50 template=30 runtime=20 --clients 4 --pause 30
 */
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { type Target, TARGETS } from './killer.ts';
import { storm } from './storm.ts';

const { values, positionals } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    kills: { type: 'string', multiple: true, default: ['daemon=20'] },
    clients: { type: 'string', default: '4' },
    pause: { type: 'string', default: '30' },
  },
  allowPositionals: true,
});
const kills: Partial<Record<Target, number>> = {};
for (const entry of [...values.kills, ...positionals]) {
  const [target = '', count] = entry.split('=');
  const known = TARGETS.find((one) => one === target);
  if (known === undefined) throw new Error(`nothing to kill: ${entry}`);
  kills[known] = Number(count);
}
const report = await storm({
  seed: Number(values.seed),
  kills,
  clients: Number(values.clients),
  pause: Number(values.pause),
  progress: (what) => process.stderr.write(`${what}\n`),
});
const { done, returns, processes, events, ...findings } = report;
const median = returns.toSorted((one, other) => one - other)[Math.floor(returns.length / 2)];
const table = new Table({ head: ['', ''] });
table.push(
  ['killed', TARGETS.map((target) => `${target} ${done[target]}`).join(', ')],
  ['processes', processes],
  ['events', events],
  ['back to service, median', median === undefined ? '' : `${Math.round(median)} ms`],
  ...Object.entries(findings).map(([what, found]) => [what, found.length] as [string, number]),
);
process.stdout.write(`${table.toString()}\n`);
for (const [what, found] of Object.entries(findings))
  for (const one of found) process.stdout.write(`${what}: ${one}\n`);
