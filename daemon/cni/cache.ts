/**
 * What is attached to what, in files that survive a reboot: addresses that plugins have given away are theirs to take back then, too.
 * Names and content are those of libcni's cache, so that other tools find their way.
 */
import { mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { replaceFile } from '../file.ts';
import { type NetworkList, parseNetworkList } from './network-list.ts';
import type { Attachment } from './plugin.ts';
import type { RawResult } from './result.ts';

const KIND = 'cniCacheV1';

/** An attachment, or the intent of one. */
export interface Cached {
  readonly list: NetworkList;
  readonly attachment: Attachment;
  /** What the last plugin answered; undefined as long as not all have. */
  readonly result?: RawResult;
}

interface Content {
  readonly kind: string;
  readonly containerId: string;
  /** Base64. */
  readonly config: string;
  readonly ifName: string;
  readonly networkName: string;
  readonly netns?: string;
  readonly cniArgs?: Attachment['args'];
  readonly capabilityArgs?: Attachment['capabilities'];
  readonly result?: RawResult;
}

export class AttachmentCache {
  readonly #folder: string;

  /** @param folder in which libcni's `results` is made */
  constructor(folder: string) {
    this.#folder = join(folder, 'results');
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
  }

  get(network: string, { containerId, ifName }: Attachment): Cached | undefined {
    return this.#read(fileName(network, containerId, ifName));
  }

  put({ list, attachment, result }: Cached): void {
    const { containerId, netns, ifName, args, capabilities } = attachment;
    const content: Content = {
      kind: KIND,
      containerId,
      config: Buffer.from(JSON.stringify(list)).toString('base64'),
      ifName,
      networkName: list.name,
      netns,
      ...(args === undefined ? {} : { cniArgs: args }),
      ...(capabilities === undefined ? {} : { capabilityArgs: capabilities }),
      ...(result === undefined ? {} : { result }),
    };
    replaceFile(this.#path(fileName(list.name, containerId, ifName)), JSON.stringify(content));
  }

  delete(network: string, { containerId, ifName }: Attachment): void {
    rmSync(this.#path(fileName(network, containerId, ifName)), { force: true });
  }

  /** All there are, or those of one container. */
  list(containerId?: string): Cached[] {
    return readdirSync(this.#folder)
      .filter((name) => !name.endsWith('.new'))
      .map((name) => this.#read(name))
      .filter((cached) => cached !== undefined)
      .filter(({ attachment }) => containerId === undefined || attachment.containerId === containerId);
  }

  /** Undefined for what is not there and for what cannot be read: plugins can undo without. */
  #read(name: string): Cached | undefined {
    try {
      const path = this.#path(name);
      const content = JSON.parse(readFileSync(path, 'utf8')) as Content;
      if (content.kind !== KIND) return undefined;
      const list = parseNetworkList(Buffer.from(content.config, 'base64').toString(), path);
      const {
        containerId,
        ifName,
        netns = '',
        cniArgs: args,
        capabilityArgs: capabilities,
        result,
      } = content;
      const attachment = {
        containerId,
        ifName,
        netns,
        ...(args === undefined ? {} : { args }),
        ...(capabilities === undefined ? {} : { capabilities }),
      };
      return { list, attachment, ...(result === undefined ? {} : { result }) };
    } catch {
      return undefined;
    }
  }

  #path(name: string): string {
    return join(this.#folder, name);
  }
}

function fileName(network: string, containerId: string, ifName: string): string {
  return `${network}-${containerId}-${ifName}`;
}
