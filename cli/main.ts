/** The command line. Every failure ends here as one line and, where an operator can act, a hint. */
import { CommanderError, type Command } from 'commander';
import { explain, FAILURE_STATUS, launchStatus, USAGE_STATUS } from './failure.ts';
import { createProgram } from './program.ts';
import { type GlobalOptions, globalsOf } from './session.ts';

const program = createProgram();

// A reader that has seen enough, `moor tasks ls | head -1`, is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // A command that copies a process's output there has its own idea of it.
  if (process.stdout.listenerCount('error') > 1) return;
  process.exit(error.code === 'EPIPE' ? 0 : FAILURE_STATUS);
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) reportUsage(error);
  else report(error, globalsOf(program));
}
// Streams that are still open, such as a terminal's input, do not keep the command.
process.exit();

function report(error: unknown, globals: GlobalOptions): void {
  for (const line of explain(error, globals)) console.error(line);
  if (globals.debug === true && error instanceof Error) console.error(error.stack, error.cause ?? '');
  process.exitCode ||= FAILURE_STATUS;
}

/** Help and version come here, too, with nothing to report. */
function reportUsage(error: CommanderError): void {
  if (error.exitCode === 0 || error.code === 'commander.help') {
    process.exitCode = error.exitCode;
    return;
  }
  const [message = '', suggestion] = error.message.replace(/^error: /, '').split('\n');
  console.error(`moor: ${message}`);
  console.error(`hint: ${suggestion?.replace(/^\(|\)$/g, '') ?? hintFor(message)}`);
  process.exitCode = startsProcess(process.argv.slice(2)) ? launchStatus(error) : USAGE_STATUS;
}

function hintFor(message: string): string {
  const flag = /unknown option '(--?[\w-]+)/.exec(message)?.[1];
  const isGlobal =
    flag !== undefined && program.options.some(({ long, short }) => flag === long || flag === short);
  if (isGlobal) return `${flag} belongs before the command: moor ${flag} … COMMAND`;
  return `see ${commandNamed(process.argv.slice(2)).join(' ')} --help`;
}

/** The words of the command that was meant. */
function commandNamed(words: readonly string[]): string[] {
  const path = ['moor'];
  let command: Command = program;
  for (const word of words) {
    const next = command.commands.find((each) => each.name() === word || each.aliases().includes(word));
    if (next === undefined) continue;
    path.push(next.name());
    command = next;
  }
  return path;
}

/** Their own failures must not look like an exit status of the process. */
function startsProcess(words: readonly string[]): boolean {
  return /^moor (?:run|tasks (?:exec|start|attach)|cri (?:exec|attach))\b/.test(
    commandNamed(words).join(' '),
  );
}
