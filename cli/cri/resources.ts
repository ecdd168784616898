/** What containers may use, and what they are at a moment. */
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { Failure } from '../failure.ts';
import { withClient } from '../session.ts';
import { forEachOf } from './each.ts';

interface UpdateFlags {
  readonly cpuPeriod?: bigint;
  readonly cpuQuota?: bigint;
  readonly cpuShare?: bigint;
  readonly memory?: bigint;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
}

export function addResources(cri: Command): void {
  cri
    .command('update')
    .description('change what containers may use')
    .argument('<container...>')
    .option('--cpu-period <microseconds>', 'length of a scheduling period', integer)
    .option('--cpu-quota <microseconds>', 'processor time of a period', integer)
    .option('--cpu-share <number>', 'share of the processors beside others', integer)
    .option('--memory <bytes>', 'memory', integer)
    .option('--cpuset-cpus <list>', 'processors: 0-3,5')
    .option('--cpuset-mems <list>', 'memory nodes: 0-1')
    .action((ids: string[], flags: UpdateFlags, command: Command) =>
      withClient(command, async (session) => {
        const linux = resourcesOf(flags);
        await forEachOf(session, ids, async (containerId) => {
          await session.client.kubernetes.runtime.updateContainerResources(
            { containerId, linux },
            session.call,
          );
          console.log(containerId);
        });
      }),
    );
  cri
    .command('checkpoint')
    .description('write the state of a container with CRIU to an archive')
    .argument('<container>')
    .requiredOption('-e, --export <file>', 'the archive')
    .action((containerId: string, flags: { export: string }, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const location = resolve(flags.export);
        await client.kubernetes.runtime.checkpointContainer({ containerId, location }, call);
        console.log(containerId);
      }),
    );
}

/** @throws Failure when nothing is to be changed */
function resourcesOf(flags: UpdateFlags) {
  const {
    cpuPeriod,
    cpuQuota,
    cpuShare: cpuShares,
    memory: memoryLimitInBytes,
    cpusetCpus,
    cpusetMems,
  } = flags;
  const given = { cpuPeriod, cpuQuota, cpuShares, memoryLimitInBytes, cpusetCpus, cpusetMems };
  if (Object.values(given).every((value) => value === undefined))
    throw new Failure('nothing to change', 'see moor cri update --help');
  return given;
}

function integer(text: string): bigint {
  if (!/^-?\d{1,18}$/.test(text)) throw new InvalidArgumentError('Give a whole number.');
  return BigInt(text);
}
