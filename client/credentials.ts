/** Who we are to a registry. The daemon asks when a registry does, over a stream of its own; nothing is kept there. */
import { AuthRequest, AuthResponse, AuthType } from '../proto/gen/containerd/types/transfer.ts';
import { anyOf, typeNameOf } from './any.ts';
import type { Stream } from './stream.ts';

const PREFIX = 'containerd.types.transfer.';

export type Credentials =
  | { readonly kind: 'password'; readonly username: string; readonly secret: string }
  /** An identity token, which the registry's token server makes access tokens from. */
  | { readonly kind: 'refresh'; readonly secret: string }
  /** The value of the header `Authorization`. */
  | { readonly kind: 'header'; readonly secret: string };

export interface Question {
  /** Of the registry, with its port: `127.0.0.1:5000`; `registry-1.docker.io` for Docker's. */
  readonly host: string;
  readonly reference: string;
  /** What the registry has asked for: the values of `WWW-Authenticate`. */
  readonly challenges: readonly string[];
}

/** @returns undefined to go on as nobody. @throws to break the transfer off */
export type CredentialProvider = (question: Question) => Promise<Credentials | undefined>;

/** Answers the daemon until it asks no more. */
export async function answerQuestions(stream: Stream, provider: CredentialProvider): Promise<void> {
  for (let message = await stream.receive(); message !== undefined; message = await stream.receive()) {
    if (typeNameOf(message) !== `${PREFIX}AuthRequest`) continue;
    const { host, reference, wwwauthenticate: challenges } = AuthRequest.decode(message.value);
    const answer = await provider({ host, reference, challenges });
    stream.send(anyOf(`${PREFIX}AuthResponse`, AuthResponse, responseOf(answer)));
  }
}

function responseOf(credentials: Credentials | undefined): Partial<AuthResponse> {
  if (credentials === undefined) return { authType: AuthType.NONE };
  switch (credentials.kind) {
    case 'password':
      return { authType: AuthType.CREDENTIALS, username: credentials.username, secret: credentials.secret };
    case 'refresh':
      return { authType: AuthType.REFRESH, secret: credentials.secret };
    case 'header':
    default:
      return { authType: AuthType.HEADER, secret: credentials.secret };
  }
}
