/**
 * A daemon of tasks and nothing else, to be killed by the tests: the task service on ttrpc at `<directory>/api`, containers from
 * files, events appended to `<directory>/events` as they are published. Prints a line with the summary of its recovery when it
 * serves.
 *
 *   node daemon.ts DIRECTORY
 */
import { appendFileSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { TaskExit } from '../../../proto/gen/containerd/events/task.ts';
import { Container } from '../../../proto/gen/containerd/services/containers.ts';
import { EventsDefinition } from '../../../proto/gen/containerd/services/events_ttrpc.ts';
import { TasksDefinition } from '../../../proto/gen/containerd/services/tasks.ts';
import { notFound, unimplemented } from '../../../ttrpc/errors.ts';
import { TtrpcServer } from '../../../ttrpc/server.ts';
import { Exchange } from '../../events/exchange.ts';
import { openLog } from '../../log.ts';
import { TaskManager } from '../../runtime/manager.ts';
import { shimCommand } from '../../runtime/own-shim.ts';
import { shimEventsService } from '../events-ttrpc.ts';
import { tasksService } from '../tasks.ts';

const directory = process.argv[2]!;
const log = openLog('debug');
const exchange = new Exchange(log);
const addresses = { grpc: join(directory, 'moor.sock'), ttrpc: join(directory, 'moor.sock.ttrpc') };
const tasks = new TaskManager({
  state: directory,
  addresses,
  events: exchange,
  log,
  shim: shimCommand(),
  spawn: process.env.TEST_SHIM_SPAWN === 'exec' ? 'exec' : 'fork',
  debug: false,
});
const containers = {
  get: (namespace: string, id: string) => {
    try {
      return Container.decode(readFileSync(join(directory, 'containers', namespace, id)));
    } catch {
      throw notFound(`container "${id}" in namespace "${namespace}": not found`);
    }
  },
};

async function record(): Promise<void> {
  for await (const { namespace, topic, event } of exchange.subscribe([], new AbortController().signal)) {
    const exit = topic === '/tasks/exit' ? TaskExit.decode(event!.value) : undefined;
    const detail = exit && { container: exit.containerId, id: exit.id, status: exit.exitStatus };
    appendFileSync(join(directory, 'events'), `${JSON.stringify({ namespace, topic, ...detail })}\n`);
  }
}
void record();

const none = () => Promise.reject(unimplemented('no content is kept here'));
const checkpoints = { store: none, unpack: none };

const onError = (error: Error) => log.warn({ err: error }, 'ttrpc');
const events = new TtrpcServer({ onError }).add(EventsDefinition, shimEventsService(exchange, tasks));
await events.listen(addresses.ttrpc);
const summary = await tasks.recover();
const api = new TtrpcServer({ onError }).add(
  TasksDefinition,
  tasksService(tasks, containers, checkpoints, () => undefined),
);
await api.listen(join(directory, 'api'));
writeSync(1, `${JSON.stringify(summary)}\n`);

process.once('SIGTERM', () => {
  void (async () => {
    await api.close();
    await events.close();
    await tasks.close();
    process.exit(0);
  })();
});
