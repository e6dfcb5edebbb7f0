import type { ConnectFields } from './connect-fields.ts';
import type { Access, IncomingMessage } from './access.ts';
import type { CloseReason } from './metrics.ts';
import type { Peer } from './peer.ts';
import type { ConnectRefusal, Principal } from './principal.ts';
import type { Session } from './session.ts';

/** What became of a CONNECT. */
export type Admission =
  | { readonly ok: true; readonly principal: Principal | null; readonly access: Access }
  | {
      readonly ok: false;
      readonly refusal: ConnectRefusal;
      /** How long the answer waits, so that guessing is slow. */
      readonly delayMs: number;
    };

/** Who is let in. One object for the whole broker; what each may do is its {@link Access}. */
export interface Policy {
  /** Whether the will of a client is published after a crash of the program too. */
  readonly keepsWills: boolean;
  /** Decides on a CONNECT and may rewrite its will. Never rejects. */
  admit(connect: ConnectFields, peer: Peer): Promise<Admission>;
  /** A client that was not let in yet broke the protocol: its connection ends. */
  violated(peer: Peer, code: CloseReason, detail: string): void;
  /** A will of a client whose connection ended with a run before this one. */
  releaseOrphan(message: Omit<IncomingMessage, 'acknowledge'>, done: () => void): void;
  /** A connection was closed because `next` came with the same client identifier. */
  takenOver(old: Session, next: Session): void;
}
