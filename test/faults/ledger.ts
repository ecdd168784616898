/** What clients had done, what they were told of it, and what of that is wrong. */
import type { Envelope } from '../../proto/gen/containerd/services/events.ts';
import {
  TaskCreate,
  TaskDelete,
  TaskExecAdded,
  TaskExecStarted,
  TaskExit,
  TaskStart,
} from '../../proto/gen/containerd/events/task.ts';

/** One process that a client started: a container's first, or an exec. */
export class Life {
  readonly container: string;
  /** Empty for the container's first process. */
  readonly exec: string;
  /** What its program exits with. */
  readonly code: number;
  /** What the client was told, by each way that it asked; undefined where it could not learn it. */
  readonly told: { wait?: number; state?: number; delete?: number } = {};
  /** The client was told that it cannot be: nothing is promised then but that nothing is left. */
  refused = false;
  /** What it was told. */
  refusal = '';

  constructor(container: string, exec: string, code: number) {
    this.container = container;
    this.exec = exec;
    this.code = code;
  }

  get name(): string {
    return this.exec === '' ? this.container : `${this.container}/${this.exec}`;
  }
}

/** What went wrong, each with the names of what it happened to. */
export interface Findings {
  readonly codesMissing: string[];
  readonly codesWrong: string[];
  readonly eventsLost: string[];
  readonly eventsDoubled: string[];
  /** Doubled for a subscriber who does not leave out what is told again, as he could (`docs/decisions/0011-events-exactly-once.md`). */
  readonly eventsRepeated: string[];
  readonly eventsOutOfOrder: string[];
}

/** Of a container's first process, in this order; of an exec, the same without the ends. */
const CONTAINER = ['/tasks/create', '/tasks/start', '/tasks/exit', '/tasks/delete'];
const EXEC = ['/tasks/exec-added', '/tasks/exec-started', '/tasks/exit'];

/** What a process exits with whose shim was killed. */
const KILLED = 137;

export class Ledger {
  readonly lives: Life[] = [];
  /** Containers whose shim was killed. */
  readonly struck = new Set<string>();
  /** Containers of which a runtime was killed at its work. */
  readonly balked = new Set<string>();

  /** What was refused though nothing was killed that it needed. */
  get wronged(): Life[] {
    return this.lives.filter(
      ({ refused, container }) => refused && !this.struck.has(container) && !this.balked.has(container),
    );
  }

  begin(container: string, exec: string, code: number): Life {
    const life = new Life(container, exec, code);
    this.lives.push(life);
    return life;
  }

  /**
   * @param watchers what each subscriber saw, in order
   * @param plain those of them that take what comes as it comes
   */
  judge(watchers: ReadonlyMap<string, readonly Envelope[]>, plain: ReadonlySet<string>): Findings {
    const findings: Findings = {
      codesMissing: [],
      codesWrong: [],
      eventsLost: [],
      eventsDoubled: [],
      eventsRepeated: [],
      eventsOutOfOrder: [],
    };
    for (const life of this.lives) this.#judgeCodes(life, findings);
    for (const [watcher, envelopes] of watchers) {
      const seen = sorted(envelopes);
      const own = plain.has(watcher) ? { ...findings, eventsDoubled: findings.eventsRepeated } : findings;
      for (const life of this.lives) this.#judgeEvents(life, watcher, seen.get(life.name) ?? [], own);
    }
    return findings;
  }

  /** A process of a killed shim may have ended by itself just before. */
  #isRight(life: Life, code: number): boolean {
    return code === life.code || (code === KILLED && this.struck.has(life.container));
  }

  #judgeCodes(life: Life, { codesMissing, codesWrong }: Findings): void {
    if (life.refused) return;
    const { told } = life;
    for (const way of ['wait', 'state', 'delete'] as const) {
      const code = told[way];
      if (code === undefined) {
        if (!(way === 'state' && life.exec !== '')) codesMissing.push(`${life.name} by ${way}`);
      } else if (!this.#isRight(life, code)) {
        codesWrong.push(`${life.name} by ${way}: ${code} instead of ${life.code}`);
      }
    }
    const codes = new Set(Object.values(told).filter((code) => code !== undefined));
    if (codes.size > 1) codesWrong.push(`${life.name}: ${[...codes].join(' and ')}`);
  }

  #judgeEvents(life: Life, watcher: string, seen: readonly Seen[], findings: Findings): void {
    const expected = life.exec === '' ? CONTAINER : EXEC;
    const note = (topic: string) => `${topic} of ${life.name} by ${watcher}`;
    for (const topic of expected) {
      const count = seen.filter((event) => event.topic === topic).length;
      if (count > 1) findings.eventsDoubled.push(`${note(topic)} ×${count}`);
      if (count === 0 && this.#isDue(life, topic, seen)) findings.eventsLost.push(note(topic));
    }
    const order = seen.map(({ topic }) => expected.indexOf(topic)).filter((at) => at >= 0);
    if (order.some((at, index) => index > 0 && at < order[index - 1]!))
      findings.eventsOutOfOrder.push(
        `${life.name} by ${watcher}: ${seen.map((event) => event.topic).join(' ')}`,
      );
    const code = life.told.wait ?? life.told.delete;
    for (const event of seen) {
      if (event.code !== undefined && code !== undefined && event.code !== code)
        findings.codesWrong.push(`${note(event.topic)}: ${event.code} instead of ${code}`);
    }
  }

  /** Of what was refused, a part may have happened; what has begun must be told to its end. */
  #isDue(life: Life, topic: string, seen: readonly Seen[]): boolean {
    if (!life.refused) return true;
    const has = (other: string) => seen.some((event) => event.topic === other);
    if (topic === '/tasks/exit') return has('/tasks/start') || has('/tasks/exec-started');
    return topic === '/tasks/delete' && has('/tasks/start');
  }
}

interface Seen {
  readonly topic: string;
  readonly code: number | undefined;
}

type Decoder = (bytes: Uint8Array) => { containerId: string; exec?: string; code?: number };

/** What the events of a process's life say of it. */
const DECODERS: { readonly [topic: string]: Decoder } = {
  '/tasks/create': (bytes) => TaskCreate.decode(bytes),
  '/tasks/start': (bytes) => TaskStart.decode(bytes),
  '/tasks/exec-added': (bytes) => renamed(TaskExecAdded.decode(bytes)),
  '/tasks/exec-started': (bytes) => renamed(TaskExecStarted.decode(bytes)),
  '/tasks/exit': (bytes) => {
    const { containerId, id, exitStatus: code } = TaskExit.decode(bytes);
    return { containerId, exec: id === containerId ? '' : id, code };
  },
  '/tasks/delete': (bytes) => {
    const { containerId, exitStatus: code } = TaskDelete.decode(bytes);
    return { containerId, code };
  },
};

function renamed({ containerId, execId: exec }: { containerId: string; execId: string }) {
  return { containerId, exec };
}

/** The events of tasks, by the name of the process that each is about. */
function sorted(envelopes: readonly Envelope[]): Map<string, Seen[]> {
  const lists = new Map<string, Seen[]>();
  for (const { topic, event } of envelopes) {
    const decode = DECODERS[topic];
    if (decode === undefined || event === undefined) continue;
    const { containerId, exec = '', code } = decode(event.value);
    const name = exec === '' ? containerId : `${containerId}/${exec}`;
    const list = lists.get(name) ?? [];
    list.push({ topic, code });
    lists.set(name, list);
  }
  return lists;
}
