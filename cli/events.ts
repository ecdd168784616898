import { type Command, Option } from 'commander';
import type { Event } from '../client/client.ts';
import { goMessage, goTime, rfc3339 } from './json.ts';
import { withClient } from './session.ts';

export function addEvents(program: Command): void {
  program
    .command('events')
    .alias('event')
    .description('print what happens in the daemon, in all namespaces, until interrupted')
    .argument('[filter...]', 'such as topic==/tasks/exit,namespace==default')
    .addOption(
      new Option('--format <format>', "how to print: ctr's lines or one JSON object a line")
        .choices(['lines', 'json'])
        .default('lines'),
    )
    .action((filters: string[], { format }: { format: string }, command: Command) =>
      withClient(command, async ({ client, call }) => {
        for await (const event of client.events(filters, call)) {
          console.log(format === 'json' ? JSON.stringify(jsonOf(event)) : lineOf(event));
        }
        // The stream ends without an error when its time is over, and that is what was asked for.
      }),
    );
}

function lineOf({ envelope, namespace, topic, message }: Event): string {
  const body = message === undefined ? '' : JSON.stringify(goMessage(message));
  return `${goTime(envelope.timestamp)} ${namespace} ${topic} ${body}`;
}

function jsonOf({ envelope, namespace, topic, message }: Event): object {
  return {
    timestamp: rfc3339(envelope.timestamp),
    namespace,
    topic,
    event: message === undefined ? undefined : goMessage(message),
  };
}
