/** Makes links so that none is ever left half-made. */
import { randomInt } from 'node:crypto';
import { alreadyExists, failedPrecondition, unimplemented } from '../../ttrpc/errors.ts';
import { reached } from '../failpoint.ts';
import { type Attempt, attempt } from './failure.ts';
import { type Plan, type Settings, changeWords, creationWords } from './link-kind.ts';
import { linksOf } from './link-listing.ts';
import type { LinkName } from './names.ts';
import type { Networks } from './networks.ts';
import { type Place, fileOf } from './place.ts';

/** The group that links are in unless somebody puts them elsewhere. */
const DEFAULT_GROUP = '0';
const MAX_GROUP = 2 ** 31 - 1;

/** What is set of a link after it has been made. */
interface Step {
  readonly name: LinkName;
  readonly place: Place;
  readonly settings: Settings;
}

/**
 * The kernel makes a link, or both ends of a veth, by one message, all or nothing. Some settings cannot be in that message. A link
 * which needs them is made in a group with a number of its own, which it leaves by the last message; the record of the intent
 * has that number. Whoever finds the record after a crash removes what is in the group: nothing, if all has been done,
 * and never a link of somebody else that has the name. The other end of a veth goes with the first.
 */
export class LinkMaker {
  readonly #networks: Networks;

  constructor(networks: Networks) {
    this.#networks = networks;
  }

  /**
   * @param place where the link is to be, or the first end of a veth
   * @param other where the other end is to be, or where the parent is
   * @throws RpcError AlreadyExists, NotFound for a parent or master, Unimplemented for a kind the kernel does not have
   */
  async make(plan: Plan, place: Place, other: Place): Promise<void> {
    const { first, peer, parent } = plan;
    // A parent is looked up where ip runs, and so must the program be.
    const from = parent === undefined ? place : other;
    // And so is a master.
    const whole = from.netns === place.netns;
    const steps: Step[] = [];
    if (peer !== undefined) steps.push({ ...peer, place: other, settings: later(peer.settings) });
    if (!whole) steps.push({ ...first, place, settings: later(first.settings) });
    const needed = steps.filter(({ settings }) => changeWords(settings).length > 0);
    const creation = whole ? changeWords(atCreation(first.settings)) : creationWords(first.settings);
    if (needed.length === 0) return this.#create(plan, from, place, other, creation);
    const group = randomInt(1, MAX_GROUP);
    await this.#undoably(group, place, async () => {
      await this.#create(plan, from, place, other, ['group', String(group), ...creation]);
      reached('link-made');
      for (const { name, place: where, settings } of needed) {
        await attempt(configuring(name, where, settings.master), () =>
          this.#networks.ip.change(where.netns, ['link', 'set', 'dev', name, ...changeWords(settings)]),
        );
        reached('link-configured');
      }
      const leave = ['link', 'set', 'dev', first.name, 'group', DEFAULT_GROUP];
      await attempt(configuring(first.name, place), () => this.#networks.ip.change(place.netns, leave));
      reached('link-done');
    });
  }

  /** Removes what the daemon before had begun to make and had not finished. */
  async recover(): Promise<void> {
    const { records, log } = this.#networks;
    for (const { group, place: pending } of records.pendingLinks()) {
      try {
        const place = this.#networks.placeOf(pending);
        // Where the network is gone, so are its links.
        if (place !== undefined) await this.#removeGroup(group, place);
        await records.endLink(group);
      } catch (error) {
        // Kept for the next start. The daemon can do without.
        log.error({ err: error, ...pending }, 'cannot remove a link that was not finished');
      }
    }
  }

  async #undoably(group: number, place: Place, action: () => Promise<void>): Promise<void> {
    const { records, log } = this.#networks;
    const { namespace, name, netns } = place;
    await records.beginLink(group, { namespace, network: netns === undefined ? '' : name });
    try {
      reached('link-recorded');
      await action();
    } catch (error) {
      try {
        await this.#removeGroup(group, place);
        await records.endLink(group);
      } catch (undoing) {
        log.error(
          { err: undoing, network: name },
          'cannot remove a link that was not finished; the next start will',
        );
      }
      throw error;
    }
    await records.endLink(group);
  }

  async #removeGroup(group: number, { netns }: Place): Promise<void> {
    const { ip } = this.#networks;
    const listed = linksOf(await ip.show(netns, ['address', 'show', 'group', String(group)]));
    for (const { name } of listed) await ip.change(netns, ['link', 'delete', 'dev', name]);
  }

  async #create(
    { kind, first, peer, parent, details }: Plan,
    from: Place,
    place: Place,
    other: Place,
    creation: readonly string[],
  ): Promise<void> {
    const netnsOf = (target: Place): string[] =>
      target.netns === from.netns ? [] : ['netns', fileOf(target)];
    const words = [
      'link',
      'add',
      ...(parent === undefined ? [] : ['link', parent.name]),
      'name',
      first.name,
      ...creation,
      ...netnsOf(place),
      'type',
      kind,
      ...details,
      ...(peer === undefined
        ? []
        : ['peer', 'name', peer.name, ...creationWords(peer.settings), ...netnsOf(other)]),
    ];
    const ends = peer === undefined ? [first] : [first, peer];
    const about: Attempt = {
      action: `cannot add ${kind} ${ends.map(({ name, network }) => `"${name}" to network "${network}"`).join(' and ')}`,
      meanings: [
        [/File exists/, alreadyExists, 'a link of that name is there already: already exists'],
        [
          /Operation not supported|Unknown device type/,
          unimplemented,
          `this kernel has no links of kind ${kind}`,
        ],
        [/busy/, failedPrecondition, 'the parent is used in another way: failed precondition'],
      ],
    };
    await attempt(about, () => this.#networks.ip.change(from.netns, words));
  }
}

/** Being down and without master is how links are made. */
function atCreation({ master, up, ...settings }: Settings): Settings {
  return { ...settings, master: master === '' ? undefined : master, up: up === true ? true : undefined };
}

/** Of the settings at creation, what cannot be in the message that makes the link. */
function later(settings: Settings): Settings {
  return { ...atCreation(settings), mtu: undefined, mac: undefined };
}

/** How the refusal of a change is told. */
export function configuring(name: LinkName, { name: network }: Place, master?: string): Attempt {
  return {
    action: `cannot change link "${name}" of network "${network}"`,
    meanings: [
      [/Operation not supported/, failedPrecondition, supportOf(master)],
      [/File exists/, alreadyExists, 'a link of the new name is there already: already exists'],
      [/Device or resource busy/, failedPrecondition, 'it is up or in use: failed precondition'],
    ],
  };
}

function supportOf(master: string | undefined): string {
  const reason =
    master === undefined || master === ''
      ? 'the link cannot do that'
      : `"${master}" is no bridge, or the link no port`;
  return `${reason}: failed precondition`;
}
