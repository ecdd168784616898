/**
 * Runs the tests, two files at a time, those beside the code first. Every suite has daemons of its own and counts only what is
 * theirs. The last line printed is `N passed, N failed`.
 *
 * A file with a failure is run again, alone, twice at most: real daemons race with the rest of the host. What passes then is named
 * before the last line, since it is a weakness of the test or of the program all the same. A test that hangs has failed.
 *
 *   node scripts/test.ts [path or part of a path …]
 *   node scripts/test.ts --files 'test/kubelet/*.check.ts'
 */
import { globSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import { finished } from 'node:stream/promises';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { parseArgs } from 'node:util';

const {
  values: { files: others },
  positionals: wanted,
} = parseArgs({ options: { files: { type: 'string' } }, allowPositionals: true });
const chosen = (patterns: string[]) =>
  globSync(patterns)
    .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
    .sort();

/** Milliseconds that a test may take. Its file ends with its last test, whatever that has left open. */
const HANGS_AFTER = 400_000;

interface Count {
  passed: number;
  failed: number;
}

/** What each file came to. */
const counts = new Map<string, Count>();

async function runFiles(files: string[], concurrency: number): Promise<void> {
  if (files.length === 0) return;
  for (const file of files) counts.set(resolve(file), { passed: 0, failed: 0 });
  const stream = run({
    files,
    concurrency,
    timeout: HANGS_AFTER,
    forceExit: true,
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });
  const countOf = ({ file }: { file?: string }): Count => {
    const count = counts.get(resolve(file ?? files[0]!)) ?? { passed: 0, failed: 0 };
    counts.set(resolve(file ?? files[0]!), count);
    return count;
  };
  const isTest = (data: { details: { type?: string } }) => data.details.type !== 'suite';
  stream.on('test:pass', (data) => {
    if (isTest(data) && data.skip === undefined && data.todo === undefined) countOf(data).passed += 1;
  });
  stream.on('test:fail', (data) => {
    if (isTest(data)) countOf(data).failed += 1;
  });
  const report = stream.compose(new spec());
  report.pipe(process.stdout, { end: false });
  await finished(report);
}

if (others === undefined) {
  await runFiles(chosen(['{ttrpc,grpc,native,cgroup,oci,shim,daemon,client,cli,bench}/**/*.test.ts']), 2);
  await runFiles(chosen(['test/**/*.test.ts']), 2);
} else await runFiles(chosen([others]), 1);
const failing = () => [...counts].filter(([, { failed }]) => failed > 0).map(([file]) => file);
const failedAtFirst = failing();
for (const time of ['once more', 'a last time']) {
  const files = failing();
  if (files.length > 0) console.log(`\n${time}, alone: ${files.map(short).join(' ')}\n`);
  for (const file of files) await runFiles([file], 1);
}
for (const file of failedAtFirst)
  if (counts.get(file)?.failed === 0) console.log(`failed at first and passed alone: ${short(file)}`);
const sum = (kind: keyof Count) => [...counts.values()].reduce((total, count) => total + count[kind], 0);
const [passed, failed] = [sum('passed'), sum('failed')];
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;

function short(file: string): string {
  return relative(process.cwd(), file);
}
