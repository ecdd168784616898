/** `moord`: the daemon's command line. */
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { check } from './check/check.ts';
import { exitCodeOf, formatJson, formatReport } from './check/report.ts';
import { ConfigError, type Flags, defaultConfig, defaultPath, formatConfig, loadConfig } from './config.ts';
import { Daemon } from './daemon.ts';
import { levels, openLog } from './log.ts';
import { backup } from './metadata/backup.ts';
import { version } from './version.ts';

interface Options extends Flags {
  readonly config?: string;
}

interface CheckFlags {
  readonly repair?: boolean;
  readonly quick?: boolean;
  readonly json?: boolean;
}

/** Exit codes of a daemon that could not start, and of one that met what it cannot go on from. */
const EXIT_FAILURE = 1;
const EXIT_DEFECT = 70;

async function main(): Promise<void> {
  const program = new Command('moord')
    .description('Runs containers for clients of the containerd API, and never loses one.')
    .version(`moord ${version}`, '-v, --version')
    .option('-c, --config <file>', `configuration file (default: ${defaultPath}, if it is there)`)
    .option('-a, --address <socket>', 'unix socket to serve the API on')
    .option('--root <directory>', 'where everything durable is kept')
    .option('--state <directory>', 'where everything is kept that a reboot ends')
    .addOption(new Option('-l, --log-level <level>', 'how much to log').choices(levels))
    .action(() => serve(program.opts<Options>()));
  const config = program.command('config').description('show configurations');
  config
    .command('default')
    .description('print the configuration that is used when nothing is said')
    .action(() => void process.stdout.write(formatConfig(defaultConfig())));
  config
    .command('dump')
    .description('print the configuration that these flags and files make')
    .action(() => {
      const options = program.opts<Options>();
      process.stdout.write(formatConfig(loadConfig(options.config, options)));
    });
  program
    .command('backup')
    .description('copy the metadata, which may be in use, and read the copy from end to end')
    .argument('<directory>', 'made by this; it can take the place of metadata/ below the root')
    .action(async (directory: string) => {
      const options = program.opts<Options>();
      const { root } = loadConfig(options.config, options);
      const records = await backup(join(root, 'metadata'), directory);
      process.stdout.write(`${records} records\n`);
    });
  program
    .command('check')
    .description('say what is wrong with what is kept on disk; exit code 2 when something is')
    .option('--repair', 'put right what can be; no daemon may be running')
    .option('--quick', 'do not read the bytes of blobs')
    .option('--json', 'for programs')
    .action(async ({ repair = false, quick = false, json = false }: CheckFlags) => {
      const options = program.opts<Options>();
      const report = await check(loadConfig(options.config, options), { repair, quick });
      process.stdout.write(json ? formatJson(report) : formatReport(report));
      process.exitCode = exitCodeOf(report);
    });
  await program.parseAsync();
}

async function serve(options: Options): Promise<void> {
  const config = loadConfig(options.config, options);
  const log = openLog(config.debug.level);
  if (process.geteuid?.() !== 0)
    throw new ConfigError('moord must run as root: it mounts, and starts containers');
  for (const defect of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(defect, (error) => {
      // Containers do not mind, and a daemon in an unknown state is worth less than a new one.
      log.fatal({ err: error }, defect);
      process.exit(EXIT_DEFECT);
    });
  }
  const signal = nextSignal();
  const daemon = await Daemon.start(config, log);
  log.info({ signal: await signal }, 'asked to stop');
  void nextSignal().then(() => {
    log.warn('asked to stop again; leaving at once');
    process.exit(EXIT_FAILURE);
  });
  await daemon.stop();
  process.exit(0);
}

/** Waits for a signal that asks the daemon to stop. */
function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const signals = ['SIGTERM', 'SIGINT'] as const;
    const listener = (signal: NodeJS.Signals): void => {
      for (const name of signals) process.off(name, listener);
      resolve(signal);
    };
    for (const name of signals) process.on(name, listener);
  });
}

main().catch((error: unknown) => {
  process.stderr.write(`moord: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(EXIT_FAILURE);
});
