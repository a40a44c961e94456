// The program that every Node.js client of the zoo runs: its phases, its checks
// and the canonical records. Each client brings an object with its own calls,
// all of which may be asynchronous; those that it lacks are simply not there:
//
//   produce(topic, codec, records)  writes to partition 0 and waits for the answers
//   idempotent(topic, records)      the same with an idempotent producer
//   read(topic)                     the records of partition 0, from the first to the last
//   readAll(topics)                 the same of many at once, for a client that reads in groups
//                                   only: a Map from the topic to its records
//   group(topic, group, count, commit)
//                                   joins, reads count records, commits that offset, leaves
//   offsetAt(topic, ms)             of the first record at or after a time, null when there is none
//   bounds(topic)                   [first, next] offset of partition 0
//   topics()                        names of all topics
//   admin(names)                    [name, call] in order; names gives a topic and a group
//                                   without members to work on
//
// A record is {key, value, timestamp, headers}: Buffers or null, milliseconds or
// null, [[name, Buffer], …] or null.
const assert = require('assert')
const crypto = require('crypto')
const util = require('util')

const { ZOO_BOOTSTRAP, ZOO_ROW, ZOO_PHASE, ZOO_TOPICS, ZOO_CODECS, ZOO_CARRIES } = process.env
const CODECS = ZOO_CODECS.split(',')
const CARRIES = ZOO_CARRIES.split(',')
const CHECK_MS = 20000
const FIRST_TIMESTAMP = 1600000000000
const COUNT = 30

const key = (i) => (i % 7 === 3 ? null : Buffer.from(`k${i}`))
const value = (i) => {
  if (i % 11 === 5) return null
  if (i % 13 === 8) return Buffer.alloc(0)
  if (i % 10 === 6) return Buffer.from(Array.from({ length: 256 }, (_, b) => b))
  return Buffer.from(`v${i}-`.repeat(100).slice(0, 100))
}
const timestamp = (i) => (CARRIES.includes('timestamps') ? FIRST_TIMESTAMP + 1000 * i : null)
const headers = (i) => {
  if (!CARRIES.includes('headers')) return null
  return i % 3 === 0 ? [['h', Buffer.from(`x${i}`)], ['n', Buffer.alloc(0)]] : []
}
const canonical = () =>
  Array.from({ length: COUNT }, (_, i) => ({ key: key(i), value: value(i), timestamp: timestamp(i), headers: headers(i) }))

const hex = (b) => (b == null ? null : Buffer.from(b).toString('hex'))

// comparable is what the client promises to carry, in one form.
const comparable = (r) => {
  const bytes = (b) => (CARRIES.includes('nulls') ? hex(b) : hex(b || ''))
  return {
    key: bytes(r.key),
    value: bytes(r.value),
    timestamp: CARRIES.includes('timestamps') ? r.timestamp : null,
    headers: CARRIES.includes('headers') ? (r.headers || []).map(([name, v]) => [name, hex(v || '')]) : null,
  }
}
const same = (got, want) => {
  got = got.map(comparable)
  want = want.map(comparable)
  for (let i = 0; i < Math.max(got.length, want.length); i++) {
    if (JSON.stringify(got[i]) !== JSON.stringify(want[i])) {
      const field = Object.keys({ ...got[i], ...want[i] }).find((f) => !util.isDeepStrictEqual(got[i]?.[f], want[i]?.[f]))
      const shown = (r) => String(r && JSON.stringify(r[field])).slice(0, 120)
      throw new Error(`${got.length} records, want ${want.length}; record ${i}: ${field} is ${shown(got[i])}, want ${shown(want[i])}`)
    }
  }
}
const equal = assert.deepStrictEqual

// soon is like equal, but a broker may take a moment to show what it has
// acknowledged.
const soon = async (ask, want) => {
  for (let i = 0; i < 50 && (await ask()) !== want; i++) await new Promise((resolve) => setTimeout(resolve, 50))
  equal(await ask(), want)
}

const print = (line) => process.stdout.write(JSON.stringify(line) + '\n')

// within rejects when the promise is not settled in time.
const within = (ms, promise) => {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${ms} ms`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

// call turns a function with a callback into a promise.
const call = (f) => new Promise((resolve, reject) => f((error, answer) => (error ? reject(error) : resolve(answer))))

const check = async (name, run) => {
  try {
    await within(CHECK_MS, Promise.resolve().then(run))
    print({ check: name, ok: true })
  } catch (e) {
    console.error(name, e)
    print({ check: name, ok: false, error: String((e && e.message) || e).slice(0, 500) })
  }
}

const own = async (client) => {
  const records = canonical()
  const prefix = `zoo-${ZOO_ROW}-`
  for (const codec of CODECS) {
    await check(`produce-${codec}`, () => client.produce(prefix + codec, codec, records))
    await check(`consume-${codec}`, async () => same(await client.read(prefix + codec), records))
  }
  const topic = prefix + CODECS[0]
  const one = async (name, r) => {
    await client.produce(prefix + name, 'none', [r])
    same(await client.read(prefix + name), [r])
  }
  if (CARRIES.includes('nulls')) {
    await check('tombstone', () => one('tombstone', { key: Buffer.from('gone'), value: null, timestamp: timestamp(0), headers: headers(1) }))
  }
  const half = crypto.randomBytes(1000)
  const large = Buffer.concat(Array(500).fill(half))
  await check('large', () => one('large', { key: Buffer.from('large'), value: large, timestamp: timestamp(0), headers: headers(1) }))
  if (client.idempotent) {
    await check('idempotent', async () => {
      await client.idempotent(prefix + 'idempotent', records)
      same(await client.read(prefix + 'idempotent'), records)
    })
  }
  if (client.topics) await check('metadata', async () => equal((await client.topics()).includes(topic), true))
  if (client.bounds) await check('offsets', async () => equal(await client.bounds(topic), [0, COUNT]))
  if (client.offsetAt) {
    await check('seek-time', async () => {
      equal(await client.offsetAt(topic, FIRST_TIMESTAMP + 1000 * 9 + 1), 10)
      equal(await client.offsetAt(topic, FIRST_TIMESTAMP + 1000 * COUNT), null)
    })
  }
  if (client.group) {
    await check('group', async () => same(await client.group(topic, prefix + 'group', COUNT), records))
    await check('commit', async () => {
      same(await client.group(topic, prefix + 'commit', 10, 10), records.slice(0, 10))
      same(await client.group(topic, prefix + 'commit', COUNT - 10), records.slice(10))
    })
  }
  if (client.admin) {
    for (const [name, run] of client.admin({ created: prefix + 'admin', filled: topic, group: prefix + 'commit' })) {
      await check(name, run)
    }
  }
}

// codec is the last part of the name of a topic that others read or write.
const codec = (topic) => topic.slice(topic.lastIndexOf('-') + 1)

const main = async (client) => {
  const topics = (ZOO_TOPICS || '').split(',').filter(Boolean)
  if (ZOO_PHASE === 'own') {
    await own(client)
  } else if (ZOO_PHASE === 'produce') {
    for (const topic of topics) {
      await check(`produce-${codec(topic)}`, () => client.produce(topic, codec(topic), canonical()))
    }
  } else if (ZOO_PHASE === 'consume') {
    let all
    if (client.readAll) await check('consume', async () => (all = await client.readAll(topics)))
    for (const topic of topics) {
      console.error(topic)
      await check(`consume-${codec(topic)}`, async () => {
        for (const r of all ? all.get(topic) : await client.read(topic)) {
          print({ topic, k: hex(r.key), v: hex(r.value), t: r.timestamp, h: r.headers && r.headers.map(([name, v]) => [name, hex(v)]) })
        }
      })
    }
  } else {
    throw new Error(`ZOO_PHASE=${ZOO_PHASE}: want own, produce or consume`)
  }
  // Connections of a check that failed may still be open.
  process.stdout.write('', () => process.exit(0))
}

module.exports = {
  BOOTSTRAP: ZOO_BOOTSTRAP,
  COUNT,
  CARRIES,
  call,
  equal,
  soon,
  run: (client) =>
    main(client).catch((e) => {
      console.error(e)
      process.exit(1)
    }),
}
