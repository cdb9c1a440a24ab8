// Checks what must hold after a fault, from the outside: from what clients saw, what the database holds, what was published, and what the
// processes wrote. It shares no code with Countersign, and asks it nothing.
//
//   node check.mjs DIRECTORY
//
// DIRECTORY has history.jsonl (what clients sent and got), ledger.json (the logs as they are in the database, their checkpoints, and the
// ConfigMap), processes.json (memory and files of each replica) and logs/ (what each wrote). Prints a line for each invariant; the status
// is 0 only if all hold.
import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

// What is promised: a revocation that was acknowledged is in force on every replica, or nothing is issued, within this time.
const REVOKED_WITHIN = 10_000;
// How soon after a fault everything must work again; generous, since the machine may be busy.
const WELL_WITHIN = 30_000;
const RESIDENT_MAX = 256 * 1024 * 1024;
const FILES_MAX = 2048;

const directory = process.argv[2];
const read = (name) => readFileSync(join(directory, name), "utf8");
const history = read("history.jsonl").split("\n").filter(Boolean).map((line) => JSON.parse(line));
const { logs, published } = JSON.parse(read("ledger.json"));
const processes = JSON.parse(read("processes.json"));
const of = (kind) => history.filter((event) => event.kind === kind);

let broken = 0;
function invariant(name, meaning, examined, violations) {
  const shown = violations.length ? `BROKEN: ${violations.slice(0, 5).join("; ")}` : "holds";
  if (violations.length) broken += 1;
  console.log(`  ${name} ${meaning}: ${shown} (${examined})`);
}

function groupBy(items, key) {
  const groups = new Map();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();

// The root of a tree of RFC 6962 as it was at each size, from a stack of complete subtrees.
function* roots(lines) {
  const stack = [];
  yield sha256();
  for (const line of lines) {
    let node = { size: 1, hash: sha256(Buffer.of(0), line) };
    while (stack.length && stack.at(-1).size === node.size) {
      node = { size: 2 * node.size, hash: sha256(Buffer.of(1), stack.pop().hash, node.hash) };
    }
    stack.push(node);
    yield stack.map((part) => part.hash).reduceRight((right, left) => sha256(Buffer.of(1), left, right));
  }
}

function keyOf(vkey) {
  const [name, id, ...rest] = vkey.split("+");
  const raw = Buffer.from(rest.join("+"), "base64");
  const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw.subarray(1)]);
  return { name, id: Buffer.from(id, "hex"), key: createPublicKey({ key: der, format: "der", type: "spki" }) };
}

// The checkpoint in a signed note; throws if none of the keys has signed it.
function checkpoint(note, keys) {
  const split = note.lastIndexOf("\n\n");
  const text = note.slice(0, split + 1);
  const signed = note.slice(split + 2).split("\n").filter(Boolean).some((line) => {
    const [, name, signature] = line.split(" ");
    const bytes = Buffer.from(signature, "base64");
    const key = keys.find((known) => known.name === name && known.id.equals(bytes.subarray(0, 4)));
    return key && verify(null, Buffer.from(text), key.key, bytes.subarray(4));
  });
  if (!signed) throw new Error("a checkpoint that no published key has signed");
  const [origin, size, root] = text.split("\n");
  return { log: origin.split("/").at(-1), size: Number(size), root: Buffer.from(root, "base64") };
}

const records = logs.flatMap((log) => log.lines.map((line) => JSON.parse(line)));
const tokens = of("token");
const recordOf = new Map();
for (const record of records) {
  if (record.jti && record.outcome === "allow") recordOf.set(record.jti, [...(recordOf.get(record.jti) ?? []), record]);
}

// I1. Each token that arrived has a record that says the same of it.
{
  const violations = [];
  for (const { claims } of tokens) {
    const found = (recordOf.get(claims.jti) ?? []).filter((record) => record.event === "token.issue");
    if (!found.length) violations.push(`${claims.jti} is in no record`);
    else if (!found.some((record) => record.audience === claims.aud)) violations.push(`${claims.jti}: another audience`);
  }
  invariant("I1", "no token without its record", `${tokens.length} tokens, ${records.length} records`, violations);
}

// I2, I10. One approval is one token, whoever asked however often, and none after it was completed; it is completed once.
{
  const violations = [];
  const requests = groupBy(history.filter((event) => event.request), (event) => event.request);
  for (const [request, events] of requests) {
    const identifiers = new Set(events.filter((event) => event.kind === "token").map((event) => event.claims.jti));
    if (identifiers.size > 1) violations.push(`${request} became ${[...identifiers]}`);
    const recorded = new Set(records.filter((record) => record.jit_request_uid === request && record.event === "token.issue"
      && record.outcome === "allow").map((record) => record.jti));
    if (recorded.size > 1) violations.push(`${request} is recorded as ${[...recorded]}`);
    const done = events.filter((event) => event.kind === "complete" && event.status === 200);
    if (done.length > 1) violations.push(`${request} was completed ${done.length} times`);
    const late = events.filter((event) => event.kind === "token" && done.some((end) => event.sent > end.at));
    if (late.length) violations.push(`${request} gave a token after it was completed`);
    const approved = events.find((event) => event.kind === "approving");
    const early = events.filter((event) => event.kind === "token" && (!approved || event.at < approved.sent));
    if (early.length) violations.push(`${request} gave a token before anybody approved it`);
  }
  invariant("I2", "one approval, one token", `${requests.size} requests`, violations);
}

// I3. An assertion is accepted once.
{
  const accepted = groupBy(tokens.filter((token) => token.assertion), (token) => token.assertion);
  const violations = [...accepted].filter(([, got]) => got.length > 1).map(([jti, got]) => `${jti} was accepted ${got.length} times`);
  const recorded = groupBy(
    records.filter((record) => record.event === "token.issue" && record.outcome === "allow" && record.key_thumbprint),
    (record) => `${record.key_thumbprint} ${record.credential_id}`,
  );
  for (const [jti, found] of recorded) if (found.length > 1) violations.push(`${jti} is recorded as accepted ${found.length} times`);
  invariant("I3", "one assertion, one token", `${of("assertion").length} sent to every replica at once`, violations);
}

// I4. Nothing for an agent whose suspension was acknowledged, once the bound is over; and nothing of it is alive.
{
  // A suspension that came after a copy was made is undone when that is put in place.
  const undone = (span) => of("restored").map(({ from, at }) => (span.at < at && (span.until ?? at) > from ? at : Infinity));
  const spans = of("suspended").map((span) => ({ ...span, until: Math.min(span.until ?? Infinity, ...undone(span)) }));
  const within = (event) => spans.some((span) => span.agent === event.agent
    && event.sent > span.at + REVOKED_WITHIN && event.at < span.until);
  const violations = tokens.filter(within).map((token) => `${token.claims.jti} was issued to a suspended agent`);
  const alive = of("introspected").filter((event) => event.active && within(event));
  violations.push(...alive.map((event) => `${event.jti} was alive after its agent was suspended`));
  const examined = `${spans.length} suspensions, ${of("introspected").length} introspections`;
  invariant("I4", `a suspension is in force within ${REVOKED_WITHIN / 1000} s`, examined, violations);
}

// I5, I6. What is derived is never more, and says one link more.
{
  const depth = (claims) => (claims.act ? 1 + depth(claims.act) : 0);
  const derived = tokens.filter((token) => token.parent);
  const violations = [];
  for (const { claims, parent, actor } of derived) {
    const held = new Set((parent.scope ?? "").split(" "));
    if ((claims.scope ?? "").split(" ").some((scope) => scope && !held.has(scope))) violations.push(`${claims.jti} has more scope`);
    if (claims.exp > parent.exp) violations.push(`${claims.jti} lives longer`);
    if (depth(claims) !== depth(parent) + 1) violations.push(`${claims.jti} is ${depth(claims)} deep, its parent ${depth(parent)}`);
    if (claims.act?.sub !== actor) violations.push(`${claims.jti} names ${claims.act?.sub}, not ${actor}`);
    if (claims.sub !== parent.sub) violations.push(`${claims.jti} is of another subject`);
  }
  invariant("I5", "a derived token is never more", `${derived.length} derived tokens`, violations.filter((v) => / (scope|longer|subject)$/.test(v)));
  invariant("I6", "each link is there and no other", `${derived.length} derived tokens`, violations.filter((v) => !/ (scope|longer|subject)$/.test(v)));
}

// I7. The logs are what was signed: no gap, no fork, nothing changed, each named by its successor.
{
  const violations = [];
  const keys = (published.vkeys ?? "").split("\n").filter(Boolean).map(keyOf);
  let verified = 0;
  const sizes = new Map();
  for (const log of logs) {
    const all = [...roots(log.lines)];
    sizes.set(log.id, all);
    if (all.length !== log.size + 1) violations.push(`${log.id}: ${log.lines.length} records, not ${log.size}`);
    if (!all.at(-1).equals(Buffer.from(log.root, "base64"))) violations.push(`${log.id}: another root`);
    log.lines.forEach((line, i) => {
      const record = JSON.parse(line);
      if (record.log !== log.id || record.seq !== i) violations.push(`${log.id}: record ${i} says ${record.log}/${record.seq}`);
    });
    if (log.sealed_by && log.sealed_by !== log.id) {
      const successor = logs.find((other) => other.id === log.sealed_by);
      const named = (successor?.lines ?? []).map((line) => JSON.parse(line)).filter((record) => record.predecessor === log.id);
      if (named.length !== 1 || named[0].predecessor_root !== log.root || named[0].predecessor_size !== log.size) {
        violations.push(`${log.id} is not named as it ended by ${log.sealed_by}`);
      }
    }
  }
  const notes = [...logs.flatMap((log) => log.checkpoints), ...Object.entries(published).filter(([name]) => /^[0-9a-f]{32}$/.test(name)).map(([, note]) => note)];
  for (const note of notes) {
    try {
      const { log, size, root } = checkpoint(note, keys);
      verified += 1;
      if (!sizes.get(log)?.[size]?.equals(root)) violations.push(`${log} at ${size} is not what was signed`);
    } catch (error) {
      violations.push(error.message);
    }
  }
  for (const record of records) if (record.event === "ledger.discontinuity") violations.push(`${record.log}/${record.seq} reports a break`);
  invariant("I7", "the ledger is what was signed", `${logs.length} logs, ${verified} checkpoints`, violations);
}

// I8. Soon after the fault everything works, on every replica.
{
  const probes = of("well");
  const violations = probes.filter((probe) => !probe.ok || probe.after > WELL_WITHIN)
    .map((probe) => `${probe.what} at ${probe.replica}: ${probe.ok ? `${probe.after} ms` : probe.why}`);
  if (!probes.length) violations.push("nothing was tried");
  const last = Math.max(0, ...probes.map((probe) => probe.after));
  invariant("I8", "everything works again", `${probes.length} probes, the last after ${last} ms`, violations);
}

// I9. Bounded, without a panic, and without a token in any log.
{
  const violations = [];
  for (const { name, resident, files } of processes) {
    if (resident > RESIDENT_MAX) violations.push(`${name} has ${resident >> 20} MiB`);
    if (files > FILES_MAX) violations.push(`${name} has ${files} open files`);
  }
  const names = readdirSync(join(directory, "logs"));
  for (const name of names) {
    const text = read(join("logs", name));
    const panic = text.match(/panicked at [^\n]*/);
    if (panic) violations.push(`${name}: ${panic[0]}`);
    const token = text.match(/eyJ[\w-]{8,}\.[\w-]+\.[\w-]*/);
    if (token) violations.push(`${name} holds a token: ${token[0].slice(0, 12)}…`);
  }
  const most = Math.max(0, ...processes.map((process) => process.resident)) >> 20;
  invariant("I9", "memory and files are bounded, no panic, no token in a log", `${processes.length} processes, ${most} MiB at most, ${names.length} logs`, violations);
}

// I11. When an older copy of the cluster was put in place, that was noticed, and nothing from before it counts any more.
{
  const restored = of("restored");
  const old = of("old");
  const violations = old.filter((event) => event.active).map((event) => `${event.what} is alive: ${event.jti}`);
  for (const { at } of restored) {
    const noticed = records.some((record) => record.event === "cluster.restored" && Date.parse(record.time) >= at);
    if (!noticed) violations.push(`nobody recorded that the cluster is an older copy since ${new Date(at).toISOString()}`);
    if (!old.some((event) => event.sent > at)) violations.push("nothing from before was tried");
  }
  invariant("I11", "nothing comes back with an older copy of the cluster", `${restored.length} copies, ${old.length} tokens from before`, violations);
}

process.exitCode = broken ? 1 : 0;
