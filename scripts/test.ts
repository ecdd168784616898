/**
 * Runs the tests: those beside the code two files at a time, then the integration suites one by one, since they count
 * what the whole host has (mounts, cgroups, processes). The last line printed is `N passed, N failed`.
 *
 *   node scripts/test.ts [path or part of a path …]
 */
import { globSync } from 'node:fs';
import { finished } from 'node:stream/promises';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

const wanted = process.argv.slice(2);
const chosen = (patterns: string[]) =>
  globSync(patterns)
    .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
    .sort();

let passed = 0;
let failed = 0;

async function runFiles(files: string[], concurrency: number): Promise<void> {
  if (files.length === 0) return;
  const stream = run({ files, concurrency, execArgv: ['--disable-warning=ExperimentalWarning'] });
  const isTest = (data: { details: { type?: string } }) => data.details.type !== 'suite';
  stream.on('test:pass', (data) => {
    if (isTest(data) && data.skip === undefined && data.todo === undefined) passed += 1;
  });
  stream.on('test:fail', (data) => {
    if (isTest(data)) failed += 1;
  });
  const report = stream.compose(new spec());
  report.pipe(process.stdout, { end: false });
  await finished(report);
}

await runFiles(chosen(['{ttrpc,native,shim,daemon,client,cli}/**/*.test.ts']), 2);
await runFiles(chosen(['test/**/*.test.ts']), 1);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
