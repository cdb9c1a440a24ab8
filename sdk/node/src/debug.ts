// What is said with NODE_DEBUG=countersign. Never a token, an assertion or a key.

import { debuglog } from 'node:util'

/** Writes a line to standard error if NODE_DEBUG has `countersign` in it. */
export const debug = debuglog('countersign')
