/** Images as kubelet has them. */
import type { Command } from 'commander';
import type { KubernetesImage } from '../../client/client.ts';
import { Failure } from '../failure.ts';
import { goMessage } from '../json.ts';
import { collect, parseLabels } from '../labels.ts';
import { SHORT_ID, statusObject } from '../pods.ts';
import { type Session, withClient } from '../session.ts';
import { binarySize } from '../size.ts';
import { print, printListing } from '../table.ts';
import { forEachOf } from './each.ts';
import {
  type ObjectFlags,
  type OutputFlags,
  addObjectFlags,
  addOutputFlags,
  formatOf,
  imageId,
  printObject,
} from './selection.ts';

interface ListFlags extends OutputFlags {
  readonly quiet?: boolean;
  readonly digests?: boolean;
  readonly trunc: boolean;
}

const DIGEST_START = 'sha256:'.length;

interface InspectFlags extends ObjectFlags {
  readonly quiet?: boolean;
}

export function addImageCommands(cri: Command): void {
  addOutputFlags(
    cri
      .command('images')
      .alias('img')
      .description('list images')
      .argument('[name]', 'one image by its name')
      .option('-q, --quiet', 'print only the ids')
      .option('--digests', 'print the digests of the manifests, too')
      .option('--no-trunc', 'print whole ids'),
  ).action((name: string | undefined, flags: ListFlags, command: Command) =>
    withClient(command, (session) => list(session, name, flags)),
  );
  const inspecting = cri
    .command('inspecti')
    .description('show all that is known of images')
    .argument('<image...>')
    .option('-q, --quiet', 'leave out what only this runtime says');
  addObjectFlags(inspecting).action((names: string[], flags: InspectFlags, command: Command) =>
    withClient(command, (session) => inspect(session, names, flags)),
  );
  cri
    .command('pull')
    .description('pull an image as kubelet does')
    .argument('<reference>')
    .option('--creds <user[:password]>', 'who asks the registry; a password that is left out is asked for')
    .option('-u, --username <user>', 'the same; the password is asked for')
    .option('--auth <base64>', 'USER:PASSWORD in base64')
    .option('--annotation <key=value>', 'for the image (repeatable)', collect)
    .action((image: string, flags: PullFlags, command: Command) =>
      withClient(command, (session) => pull(session, image, flags)),
    );
  cri
    .command('rmi')
    .description('remove images with all their names')
    .argument('[image...]')
    .option('-a, --all', 'all there are')
    .option('--prune', 'all that no container has and that are not pinned')
    .action((names: string[], flags: { all?: boolean; prune?: boolean }, command: Command) =>
      withClient(command, (session) => remove(session, names, flags)),
    );
  const sizes = cri
    .command('imagefsinfo')
    .description('show what images and the files of containers take on the disk');
  addObjectFlags(sizes).action((flags: ObjectFlags, command: Command) =>
    withClient(command, async ({ client, call }) =>
      printObject(goMessage(await client.kubernetes.images.imageFsInfo({}, call)), flags),
    ),
  );
}

async function list({ client, call }: Session, name: string | undefined, flags: ListFlags): Promise<void> {
  const filter = name === undefined ? undefined : { image: { image: name } };
  const { images } = await client.kubernetes.images.listImages({ filter }, call);
  if (flags.quiet === true) return print(images.map(({ id }) => id));
  const short = (id: string) => (flags.trunc ? id.slice(DIGEST_START, DIGEST_START + SHORT_ID) : id);
  const digestOf = ({ repoDigests: [digest = '<none>'] }: KubernetesImage) =>
    flags.digests === true ? [digest.replace(/^.*@/, '')] : [];
  await printListing(
    {
      header: ['IMAGE', ...(flags.digests === true ? ['DIGEST'] : []), 'ID', 'SIZE', 'PINNED'],
      rows: images.flatMap((image) =>
        namesOf(image).map((each) => [
          each,
          ...digestOf(image),
          short(image.id),
          binarySize(Number(image.size)),
          image.pinned ? 'yes' : '',
        ]),
      ),
      json: images.map(goMessage),
    },
    formatOf(flags),
  );
}

/** A line for each tag; for an image without one, its digest. */
function namesOf({ repoTags, repoDigests }: KubernetesImage): readonly string[] {
  return repoTags.length > 0 ? repoTags : [repoDigests[0] ?? '<none>'];
}

async function inspect(session: Session, names: readonly string[], flags: InspectFlags): Promise<void> {
  const verbose = flags.quiet !== true;
  const { client, call } = session;
  const all: object[] = [];
  for (const image of names) {
    const answer = await client.kubernetes.images.imageStatus({ image: { image }, verbose }, call);
    if (answer.image === undefined) await imageId(session, image);
    all.push(statusObject({ status: answer.image, info: answer.info }));
  }
  await printObject(all.length === 1 ? all[0] : all, flags);
}

interface PullFlags {
  readonly creds?: string;
  readonly username?: string;
  readonly auth?: string;
  readonly annotation?: readonly string[];
}

async function pull({ client, call }: Session, image: string, flags: PullFlags): Promise<void> {
  const auth = await authOf(flags);
  const annotations = parseLabels(flags.annotation ?? []);
  const request = { image: { image, annotations }, auth };
  console.log((await client.kubernetes.images.pullImage(request, call)).imageRef);
}

/** @throws Failure for flags that contradict each other, and a password that is not given */
async function authOf({ creds, username, auth }: PullFlags) {
  if ([creds, username, auth].filter((each) => each !== undefined).length > 1)
    throw new Failure('give one of --creds, --username and --auth');
  if (auth !== undefined) return { auth };
  const user = creds ?? username;
  if (user === undefined) return undefined;
  const colon = username === undefined ? user.indexOf(':') : -1;
  const name = colon < 0 ? user : user.slice(0, colon);
  if (name === '') throw new Failure('a name is needed before the password');
  if (colon >= 0) return { username: name, password: user.slice(colon + 1) };
  const { askPassword } = await import('../password.ts');
  return { username: name, password: await askPassword(`Password of ${name}`) };
}

async function remove(
  session: Session,
  names: readonly string[],
  { all = false, prune = false }: { all?: boolean; prune?: boolean },
): Promise<void> {
  const { client, call } = session;
  if ((all || prune) === names.length > 0)
    throw new Failure(
      names.length > 0 ? 'give images or --all or --prune' : 'name an image, or give --all or --prune',
    );
  const meant = names.length > 0 ? names : await unnamed(session, prune);
  await forEachOf(session, meant, async (image) => {
    await imageId(session, image);
    await client.kubernetes.images.removeImage({ image: { image } }, call);
    console.log(image);
  });
}

async function unnamed({ client, call }: Session, prune: boolean): Promise<string[]> {
  const { images } = await client.kubernetes.images.listImages({}, call);
  if (!prune) return images.map(({ id }) => id);
  const { containers } = await client.kubernetes.runtime.listContainers({}, call);
  const used = new Set(containers.map((container) => container.imageId));
  return images.filter(({ id, pinned }) => !pinned && !used.has(id)).map(({ id }) => id);
}
