/** A client in the storm that moves images: it imports and pulls them, runs them, and has them collected, by Debian's ctr. */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Ctr } from '../harness/ctr.ts';
import type { Daemon } from '../harness/daemon.ts';
import { busyboxImage, digestOf, ociArchive } from '../harness/image.ts';
import { describe } from '../harness/program.ts';
import type { LocalRegistry } from '../harness/registry.ts';
import type { Seed } from '../harness/seed.ts';
import { Stuck } from './persistence.ts';

/** Milliseconds after which a command is stuck that was begun again and again: on a busy machine daemons may not live as long as it takes. */
const PATIENCE = 200_000;
const PAUSE = 50;
/** What a container exits with that has found its cargo. */
const FOUND = 42;

/** What a porter carries: an image in an archive, and the same in a registry. */
export interface Cargo {
  readonly archive: string;
  readonly imported: string;
  readonly pulled: string;
  /** Of its own. */
  readonly tag: string;
  /** Of the image's manifest. */
  readonly digest: string;
}

/** Puts an image into a registry under a tag of its own. The daemon has none of it when it resolves. */
export async function cargoFor(
  daemon: Daemon,
  registry: LocalRegistry,
  ctr: Ctr,
  tag: string,
): Promise<Cargo> {
  const image = await busyboxImage({ above: [{ [`cargo/${tag}`]: 'rum\n' }] });
  const imported = `harbour.test/ship:${tag}`;
  const pulled = `${registry.host}/ship:${tag}`;
  const archive = ociArchive(join(daemon.directory, `${tag}.tar`), [[imported], image]);
  await ctr.ok('images', 'import', archive);
  await ctr.ok('images', 'push', '--plain-http', pulled, imported);
  await ctr.ok('images', 'rm', '--sync', imported);
  return { archive, imported, pulled, tag, digest: image.manifest.digest };
}

export class Porter {
  /** Commands that never succeeded, and images that were not whole. */
  readonly failures: string[] = [];
  /** Images that came, were read and went. */
  carried = 0;
  /** Commands that were cut off, their own deaths among them. */
  repeated = 0;
  readonly #ctr: Ctr;
  readonly #cargo: Cargo;
  readonly #seed: Seed;

  constructor(ctr: Ctr, cargo: Cargo, seed: Seed) {
    this.#ctr = ctr;
    this.#cargo = cargo;
    this.#seed = seed;
  }

  /** Carries an image in, looks at it, runs it, and has it removed. */
  async carries(): Promise<void> {
    const { archive, imported, pulled, digest, tag } = this.#cargo;
    const isPull = this.#seed.pick([true, false]);
    const name = isPull ? pulled : imported;
    try {
      await this.#persist(
        isPull ? ['images', 'pull', '--plain-http', pulled] : ['images', 'import', archive],
      );
      const manifest = await this.#persist(['content', 'get', digest]);
      if (digestOf(Buffer.from(manifest)) !== digest)
        this.failures.push(`${name} has another manifest: ${manifest}`);
      await this.#runs(name, `porter-${tag}`);
      await this.#persist(['images', 'rm', '--sync', name]);
      this.carried += 1;
    } catch (error) {
      this.failures.push(String(error));
    }
  }

  /** Begins a command until it succeeds, as somebody does whose command was killed or lost its daemon. */
  async #persist(args: readonly string[], code = 0, before?: () => Promise<unknown>): Promise<string> {
    const deadline = performance.now() + PATIENCE;
    for (;;) {
      const outcome = await this.#ctr.call(args);
      if (outcome.code === code) return outcome.stdout;
      this.repeated += 1;
      if (performance.now() > deadline) throw new Stuck(describe(outcome));
      await delay(PAUSE);
      await before?.();
    }
  }

  /** A container that finds the cargo in the image. What a run that was cut off has left is the client's to remove. */
  async #runs(name: string, id: string): Promise<void> {
    const look = `grep -q rum /cargo/${this.#cargo.tag} && exit ${FOUND}`;
    await this.#persist(['run', '--rm', '--null-io', name, id, '/bin/sh', '-c', look], FOUND, () =>
      this.#clears(id),
    );
    await this.#clears(id);
  }

  /** Removes a container with its task and its snapshot, whatever there is of it. */
  async #clears(id: string): Promise<void> {
    const deadline = performance.now() + PATIENCE;
    for (const args of [
      ['tasks', 'rm', '-f', id],
      ['containers', 'rm', id],
      ['snapshots', 'rm', id],
    ]) {
      for (;;) {
        const outcome = await this.#ctr.call(args);
        if (outcome.code === 0 || /not found|does not exist/.test(outcome.stderr)) break;
        if (performance.now() > deadline) throw new Stuck(describe(outcome));
        await delay(PAUSE);
      }
    }
  }
}

/** A ctr that was killed, or whose daemon was, leaves its lease, which would expire a day later. */
export async function endLeases(ctr: Ctr): Promise<number> {
  const leases = (await ctr.lines('leases', 'ls', '-q')).filter((line) => line !== '');
  for (const lease of leases) await ctr.ok('leases', 'rm', '--sync', lease);
  return leases.length;
}
