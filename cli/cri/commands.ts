/** `moor cri`: what crictl does, under its names. */
import type { Command } from 'commander';
import { goMessage } from '../json.ts';
import { statusObject } from '../pods.ts';
import { type Session, withClient } from '../session.ts';
import { addContainers } from './containers.ts';
import { addImageCommands } from './images.ts';
import { addLogs } from './logs.ts';
import { addPodCommands } from './pods.ts';
import { addPortForward } from './port-forward.ts';
import { addResources } from './resources.ts';
import { type ObjectFlags, addObjectFlags, printObject } from './selection.ts';
import { addStats } from './stats.ts';
import { addStreams } from './streams.ts';

const EVENTS = ['created', 'started', 'stopped', 'deleted'];

export function addCri(program: Command): void {
  const cri = program
    .command('cri')
    .description('what kubelet has on this node: containers of pods, and images; as crictl has it');
  addContainers(cri);
  addPodCommands(cri);
  addStreams(cri);
  addPortForward(cri);
  addLogs(cri);
  addResources(cri);
  addStats(cri);
  addImageCommands(cri);
  addNode(cri);
}

function addNode(cri: Command): void {
  const info = cri.command('info').description('show what the runtime is and whether it is ready');
  addObjectFlags(info).action((flags: ObjectFlags, command: Command) =>
    withClient(command, async ({ client, call }) =>
      printObject(statusObject(await client.kubernetes.runtime.status({ verbose: true }, call)), flags),
    ),
  );
  cri
    .command('version')
    .description('print the versions of the runtime and of the interface')
    .action((_flags: object, command: Command) => withClient(command, version));
  const config = cri.command('runtime-config').description('show what kubelet takes over from the runtime');
  addObjectFlags(config).action((flags: ObjectFlags, command: Command) =>
    withClient(command, async ({ client, call }) =>
      printObject(goMessage(await client.kubernetes.runtime.runtimeConfig({}, call)), flags),
    ),
  );
  cri
    .command('update-runtime-config')
    .description('tell the runtime what a cluster gives to its nodes, as kubelet does')
    .requiredOption('--pod-cidr <cidr>', 'the addresses of pods on this node; with a comma, of both families')
    .action(({ podCidr }: { podCidr: string }, command: Command) =>
      withClient(command, async ({ client, call }) => {
        const runtimeConfig = { networkConfig: { podCidr } };
        await client.kubernetes.runtime.updateRuntimeConfig({ runtimeConfig }, call);
      }),
    );
  cri
    .command('events')
    .description('print what becomes of pods and containers, until interrupted')
    .action((_flags: object, command: Command) => withClient(command, events));
}

async function version({ client, call }: Session): Promise<void> {
  const { version, runtimeName, runtimeVersion, runtimeApiVersion } = await client.kubernetes.runtime.version(
    {},
    call,
  );
  console.log(
    [
      `Version:  ${version}`,
      `RuntimeName:  ${runtimeName}`,
      `RuntimeVersion:  ${runtimeVersion}`,
      `RuntimeApiVersion:  ${runtimeApiVersion}`,
    ].join('\n'),
  );
}

async function events({ client, call }: Session): Promise<void> {
  for await (const event of client.kubernetes.runtime.getContainerEvents({}, call)) {
    const { createdAt, containerEventType, containerId, podSandboxStatus } = event;
    const time = new Date(Number(createdAt / 1_000_000n)).toISOString();
    const { namespace = '', name = '' } = podSandboxStatus?.metadata ?? {};
    console.log([time, EVENTS[containerEventType], containerId, `${namespace}/${name}`].join(' '));
  }
}
