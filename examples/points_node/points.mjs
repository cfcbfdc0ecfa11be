// A tea shop's points as a remote participant, in JavaScript for Node 20, on nothing but Node itself: the whole protocol
// of docs/remote-participants.md in one file, for whoever writes it in a language that has no SDK.
//
//     node examples/points_node/points.mjs --data points.jsonl --keys keys --port 8901
//     jiebang participant test http://127.0.0.1:8901 --name points --keys keys --operation close
//
// Its state is a journal: one line of JSON a batch, on the disk before the answer leaves, read again at the start.

import { createHash, createPrivateKey, createPublicKey, sign, verify } from 'node:crypto'
import { closeSync, existsSync, fdatasyncSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const NAME = 'points'
const OPERATIONS = ['close']
const MAX_BATCH = 1024
const MAX_BODY = 1 << 20
const LIFETIME = 30
const SKEW = 5
const REQUEST_COVERS = '("@method" "@authority" "@path" "@query" "content-type" "content-digest")'
const REPLY_COVERS = '("@status" "content-type" "content-digest" "signature";req;key="jiebang")'
const ACCOUNT = /^[1-9][0-9]{0,15}$/

const { values: given } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    data: { type: 'string' },
    keys: { type: 'string' },
    'with-parent': { type: 'boolean', default: false },
  },
})
if (!given.data || !given.keys) {
  console.error('需要 --data 与 --keys / --data and --keys are needed')
  process.exit(2)
}
const ourKey = createPrivateKey(readFileSync(join(given.keys, `${NAME}-reply.pem`)))
const theirKey = createPublicKey(readFileSync(join(given.keys, `${NAME}-request.pub.pem`)))

// --- What is answered when a request is refused ----------------------------------------------------------------------

class Problem extends Error {
  constructor(status, code, zh, en, fields = {}) {
    super(code)
    Object.assign(this, { status, code, zh, en, fields })
  }

  body() {
    const [title, action] = [{ zh: this.zh[0], en: this.en[0] }, { zh: this.zh[1], en: this.en[1] }]
    return {
      type: `urn:jiebang:problem:${this.code.toLowerCase()}`,
      title: title.zh,
      status: this.status,
      detail: action.zh,
      code: this.code,
      zh: { title: title.zh, action: action.zh },
      en: { title: title.en, action: action.en },
      fields: this.fields,
    }
  }
}

const invalid = (field, zh, en) =>
  new Problem(422, 'INVALID-INPUT', ['内容不符合要求', '请按 fields 改正。'], ['The input is not valid', 'Correct what fields says.'], {
    field,
    reason: { zh, en },
  })
const badSignature = (zh, en) =>
  new Problem(401, 'BAD-SIGNATURE', ['签名无效', '请按协议签名。'], ['The signature is not valid', 'Sign as the protocol says.'], {
    reason: { zh, en },
  })

// --- Signatures: RFC 9421 over a Content-Digest (RFC 9530) ------------------------------------------------------------

const digest = (body) => `sha-256=:${createHash('sha256').update(body).digest('base64')}:`
const seconds = () => Math.floor(Date.now() / 1000)

function verifyRequest(request, body) {
  const { method, url, headers } = request
  const input = /(?:^|,\s*)jiebang=(\([^)]*\)[^,]*)/.exec(headers['signature-input'] ?? '')
  const signature = /(?:^|,\s*)jiebang=:([A-Za-z0-9+/=]+):/.exec(headers.signature ?? '')
  if (!input || !signature) throw badSignature('没有签名', 'there is no signature')
  if (headers['content-digest'] !== digest(body)) throw badSignature('摘要与正文不符', 'the digest is not the body\'s')
  const parameters = Object.fromEntries(
    [...input[1].matchAll(/;([a-z]+)=(?:"([^"]*)"|(\d+))/g)].map(([, name, text, number]) => [name, text ?? Number(number)]),
  )
  const { created, expires, nonce = '', keyid, alg, tag } = parameters
  if (!input[1].startsWith(REQUEST_COVERS + ';')) throw badSignature('所覆盖的部分不符', 'it does not cover what it must')
  if (keyid !== `${NAME}-request` || alg !== 'ed25519' || tag !== 'jiebang-request')
    throw badSignature('keyid、alg 或 tag 不符', 'keyid, alg or tag is another')
  const now = seconds()
  if (!(created <= now + SKEW) || !(expires >= now - SKEW) || !(expires - created <= LIFETIME))
    throw badSignature('不在有效期内', 'it is out of its time')
  if (nonce.length < 16 || nonce.length > 64) throw badSignature('nonce 长度不符', 'the nonce has another length')
  const at = url.indexOf('?')
  const base = [
    `"@method": ${method}`,
    `"@authority": ${(headers.host ?? '').toLowerCase()}`,
    `"@path": ${at < 0 ? url : url.slice(0, at)}`,
    `"@query": ${at < 0 ? '?' : url.slice(at)}`,
    `"content-type": ${headers['content-type'] ?? ''}`,
    `"content-digest": ${headers['content-digest']}`,
    `"@signature-params": ${input[1]}`,
  ].join('\n')
  if (!verify(null, Buffer.from(base), theirKey, Buffer.from(signature[1], 'base64')))
    throw badSignature('签名不符', 'the signature does not match')
  if (nonces.has(nonce)) throw badSignature('该签名已使用过', 'this signature was used before')
  for (const [old, until] of nonces) if (until < now - SKEW) nonces.delete(old)
  nonces.set(nonce, expires)
  return { nonce, expires }
}

function signedHeaders(request, status, type, body) {
  const headers = { 'content-type': type, 'content-length': body.length }
  const answered = /(?:^|,\s*)jiebang=(:[A-Za-z0-9+/=]+:)/.exec(request.headers.signature ?? '')
  if (!answered) return headers // an unsigned request gets an unsigned answer
  const now = seconds()
  const parameters = `${REPLY_COVERS};created=${now};keyid="${NAME}-reply";alg="ed25519";expires=${now + LIFETIME};tag="jiebang-reply"`
  const base = [
    `"@status": ${status}`,
    `"content-type": ${type}`,
    `"content-digest": ${digest(body)}`,
    `"signature";req;key="jiebang": ${answered[1]}`,
    `"@signature-params": ${parameters}`,
  ].join('\n')
  return {
    ...headers,
    'content-digest': digest(body),
    'signature-input': `jiebang=${parameters}`,
    signature: `jiebang=:${sign(null, Buffer.from(base), ourKey).toString('base64')}:`,
  }
}

// --- Messages: strict JSON --------------------------------------------------------------------------------------------

function decode(body) {
  let text
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body)
  } catch {
    throw invalid('$', '不是有效的 UTF-8', 'is not valid UTF-8')
  }
  let value
  try {
    value = JSON.parse(text)
  } catch {
    throw invalid('$', '不是有效的 JSON', 'is not valid JSON')
  }
  refuseRepeatedNames(text)
  return value
}

function refuseRepeatedNames(text) {
  const open = []
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\]:]|[^\s{}[\]:",]+/g) ?? []
  tokens.forEach((token, at) => {
    if (token === '{' || token === '[') open.push(token === '{' ? new Set() : null)
    else if (token === '}' || token === ']') open.pop()
    else if (token[0] === '"' && tokens[at + 1] === ':') {
      const [names, name] = [open.at(-1), JSON.parse(token)]
      if (names.has(name)) throw invalid(name.slice(0, 64), '同一对象中出现重复的名称', 'the name stands twice in one object')
      names.add(name)
    }
  })
}

function requireFields(value, place, known, needed) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(place, '须为对象', 'must be an object')
  for (const name of Object.keys(value)) if (!known.includes(name)) throw invalid(`${place}.${name}`, '不认识的字段', 'is no field')
  for (const name of needed) if (!(name in value)) throw invalid(`${place}.${name}`, '缺少字段', 'is missing')
}

function readAccount(value, place, least = 1n) {
  const zero = least === 0n && value === '0'
  if (!zero && (typeof value !== 'string' || !ACCOUNT.test(value) || BigInt(value) > 9007199254740991n))
    throw invalid(place, '须为账户号', 'must be an account id')
  return value
}

const isWhole = (value, least, most) => Number.isInteger(value) && value >= least && value <= most

function readBatch(body) {
  requireFields(body, '$', ['cases', 'operation', 'effects'], ['cases'])
  const { cases, operation = '', effects = {} } = body
  if (!Array.isArray(cases) || cases.length < 1 || cases.length > MAX_BATCH) throw invalid('$.cases', '须为 1 至 1,024 笔', 'must be 1 to 1,024 cases')
  requireFields(effects, '$.effects', Object.keys(effects ?? {}), [])
  if (operation !== '' && !OPERATIONS.includes(operation)) throw invalid('$.operation', `没有此操作;可用:${OPERATIONS}`, `there is no such operation; known are ${OPERATIONS}`)
  const seen = new Set()
  cases.forEach((one, at) => {
    const place = `$.cases[${at}]`
    requireFields(one, place, ['account', 'case_no', 'version'], ['account', 'case_no'])
    readAccount(one.account, `${place}.account`)
    if (!isWhole(one.case_no, 1, 4294967295)) throw invalid(`${place}.case_no`, '须为 1 至 4294967295', 'must be 1 to 4294967295')
    if (one.version !== undefined && !isWhole(one.version, 1, Number.MAX_SAFE_INTEGER)) throw invalid(`${place}.version`, '须为正整数', 'must be a whole number above 0')
    if (seen.has(`${one.account}-${one.case_no}`)) throw invalid('$.cases', '同一笔重复出现', 'a case is named twice')
    seen.add(`${one.account}-${one.case_no}`)
  })
  return { cases, effects }
}

// --- The fence, and the shop's own business ---------------------------------------------------------------------------

const NO_ROW = { case_no: 0, case_op: 'cancelled' }
const rows = new Map() // account -> fence row
const members = new Map() // account -> { points, redeeming, frozen, told }
const nonces = new Map() // nonce -> when it expires

function judge(row, caseNo, op, refusal) {
  if (row.case_no > caseNo) return { outcome: 'refused', code: 'FENCE-LATER-CASE' }
  if (row.case_no < caseNo) {
    if (row.case_op === 'tried') return { outcome: 'pending' }
    if (op === 'confirm') return { outcome: 'refused', code: 'FENCE-NEVER-TRIED' }
    if (op === 'cancel') return { outcome: 'granted', write: 'cancelled' }
    return refusal ? { outcome: 'refused', code: refusal, write: 'cancelled' } : { outcome: 'granted', write: 'tried' }
  }
  if (row.case_op === 'tried') return { outcome: 'granted', write: { try: undefined, confirm: 'confirmed', cancel: 'cancelled' }[op] }
  if (row.case_op === 'confirmed') return op === 'cancel' ? { outcome: 'refused', code: 'FENCE-CONFIRMED' } : { outcome: 'granted' }
  return op === 'cancel' ? { outcome: 'granted' } : { outcome: 'refused', code: 'FENCE-CANCELLED' }
}

function isUnfit(effects) {
  const { points_kept: kept, notify, ...others } = effects
  const known = (kept === undefined || isWhole(kept, 0, 1_000_000)) && (notify === undefined || typeof notify === 'boolean')
  return !known || Object.keys(others).length > 0
}

function change(member, op, effects) {
  if (op === 'tried') return { ...member, frozen: true }
  if (op === 'cancelled') return { ...member, frozen: false }
  const kept = effects.points_kept ?? member.points
  return { ...member, frozen: false, points: Math.min(member.points, kept), told: member.told || effects.notify === true }
}

function carryOut(op, { cases, effects }, request) {
  const [written, changed, results] = [new Map(), new Map(), []]
  const unfit = op === 'try' && isUnfit(effects)
  for (const { account, case_no: caseNo } of cases) {
    const row = written.get(account) ?? rows.get(account) ?? NO_ROW
    const member = changed.get(account) ?? members.get(account)
    const refusal = unfit ? 'EFFECT-UNFIT' : member?.redeeming ? 'POINTS-REDEEMING' : undefined
    const { outcome, code, write } = judge(row, caseNo, op, refusal)
    const after = write ? { case_no: caseNo, case_op: write } : row
    if (write) written.set(account, after)
    if (write && member) changed.set(account, change(member, write, effects))
    results.push({ account, case_no: caseNo, outcome, ...(code && { code }), row: after })
  }
  keep({ rows: [...written], members: [...changed], nonce: [request.nonce, request.expires] })
  return results
}

// --- The journal ------------------------------------------------------------------------------------------------------

function load() {
  if (!existsSync(given.data)) return 0
  const bytes = readFileSync(given.data)
  const whole = bytes.lastIndexOf(10) + 1 // a line that was cut off was never answered for
  for (const line of bytes.subarray(0, whole).toString().split('\n')) if (line) take(JSON.parse(line))
  return whole
}

function take(entry) {
  for (const [account, row] of entry.rows ?? []) rows.set(account, row)
  for (const [account, member] of entry.members ?? []) members.set(account, member)
  if (entry.nonce) nonces.set(...entry.nonce)
}

let size = load()
const journal = openSync(given.data, existsSync(given.data) ? 'r+' : 'w+')
ftruncateSync(journal, size)

function keep(entry) {
  const line = Buffer.from(JSON.stringify(entry) + '\n')
  for (let done = 0; done < line.length; ) done += writeSync(journal, line, done, line.length - done, size + done)
  fdatasyncSync(journal)
  size += line.length
  take(entry)
}

// --- The six resources ------------------------------------------------------------------------------------------------

const byAccount = (one, other) => (BigInt(one[0]) < BigInt(other[0]) ? -1 : 1)
const showRows = (found) => ({ rows: found.map(([account, row]) => ({ account, ...row })) })

function look(body) {
  requireFields(body, '$', ['accounts'], ['accounts'])
  const { accounts } = body
  if (!Array.isArray(accounts) || accounts.length < 1 || accounts.length > MAX_BATCH) throw invalid('$.accounts', '须为 1 至 1,024 个', 'must be 1 to 1,024 accounts')
  accounts.forEach((account, at) => readAccount(account, `$.accounts[${at}]`))
  return showRows([...new Set(accounts)].filter((account) => rows.has(account)).map((account) => [account, rows.get(account)]))
}

function marks(body) {
  requireFields(body, '$', ['after', 'upto'], ['after', 'upto'])
  const [after, upto] = [BigInt(readAccount(body.after, '$.after', 0n)), BigInt(readAccount(body.upto, '$.upto'))]
  const found = [...rows].filter(([account]) => BigInt(account) > after && BigInt(account) <= upto)
  return showRows(found.sort(byAccount).slice(0, MAX_BATCH))
}

function branch(query, request) {
  for (const name of new Set(query.keys()))
    if (!['gid', 'branch_id', 'op', 'trans_type'].includes(name) || query.getAll(name).length > 1) throw invalid(name, '未知或重复的参数', 'an unknown parameter, or one named twice')
  const gid = /^([1-9][0-9]{0,15})-([1-9][0-9]{0,9})$/.exec(query.get('gid') ?? '')
  const op = query.get('op')
  if (!gid || !query.get('branch_id')) throw invalid('gid, branch_id', 'gid 须为“账户号-案号”', 'gid is account-case_no')
  if (!['try', 'confirm', 'cancel'].includes(op) || (query.get('trans_type') ?? 'tcc') !== 'tcc') throw invalid('op, trans_type', 'op 须为 try、confirm 或 cancel', 'op is try, confirm or cancel')
  const batch = readBatch({ cases: [{ account: gid[1], case_no: Number(gid[2]) }] })
  const [result] = carryOut(op, batch, request)
  return [{ granted: 200, refused: 409, pending: 425 }[result.outcome], result]
}

function answer(request, body) {
  const [path, search = ''] = request.url.split('?', 2)
  if (request.method === 'GET' && path === '/health') return [200, { name: NAME, pid: process.pid }]
  const ops = { '/try': 'try', '/confirm': 'confirm', '/cancel': 'cancel' }
  if (request.method !== 'POST' || ![...Object.keys(ops), '/look', '/marks', '/branch'].includes(path))
    throw new Problem(404, 'NO-SUCH-ROUTE', ['没有此地址', '请核对方法与路径。'], ['There is no such resource', 'Check method and path.'])
  const single = request.rawHeaders.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase())
  for (const name of ['content-type', 'content-length', 'host'])
    if (single.indexOf(name) !== single.lastIndexOf(name)) throw new Problem(400, 'HEADER-REPEATED', ['请求头重复', '请只发送一次。'], ['A header came twice', 'Send it once.'], { header: name })
  const verified = verifyRequest(request, body)
  if (path === '/branch') return branch(new URLSearchParams(search), verified)
  if (path === '/look') return [200, look(decode(body))]
  if (path === '/marks') return [200, marks(decode(body))]
  return [200, { results: carryOut(ops[path], readBatch(decode(body)), verified) }]
}

const server = createServer(async (request, response) => {
  let [status, body, type] = [200, {}, 'application/json']
  try {
    const [chunks, limit] = [[], MAX_BODY]
    let length = 0
    for await (const chunk of request) {
      length += chunk.length
      if (length <= limit) chunks.push(chunk)
    }
    if (length > limit) throw new Problem(413, 'BODY-TOO-LARGE', ['正文过大', '请分批发送。'], ['The body is too large', 'Send smaller batches.'], { limit_bytes: limit })
    ;[status, body] = answer(request, Buffer.concat(chunks))
  } catch (error) {
    const told = error instanceof Problem ? error : new Problem(500, 'INTERNAL', ['我方故障', '请稍后重试。'], ['Our fault', 'Try again later.'])
    if (told !== error) console.error(error)
    ;[status, body, type] = [told.status, told.body(), 'application/problem+json']
  }
  const content = Buffer.from(JSON.stringify(body))
  response.writeHead(status, signedHeaders(request, status, type, content))
  response.end(content)
})
server.keepAliveTimeout = 75_000 // longer than the platform keeps an idle connection
server.listen(Number(given.port), '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })))
if (given['with-parent']) process.stdin.on('end', () => process.exit(0)).resume()
process.on('SIGTERM', () => {
  closeSync(journal)
  process.exit(0)
})
